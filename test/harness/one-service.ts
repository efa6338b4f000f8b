import type { TestContext } from "node:test";
import type { Credentials } from "../../src/base/credentials.ts";
import { type PlaneOptions, type PlaneWorld, startPlane } from "./plane-world.ts";
import { type Received, type ScriptedUpstream, scriptedUpstream } from "./scripted-upstream.ts";
import { dial, type RawClient } from "./tls-client.ts";

type With = {
  /** What the service `orders` answers. */
  readonly answer?: (received: Received) => string | undefined | Promise<string | undefined>;
  readonly onHead?: (head: string, socket: Received["socket"]) => boolean;
  /** Lines for `orders`, beside `owner`, `upstreams` and `allow`; each indented by four. */
  readonly orders?: string;
  /** The rules; by default `web` may ask for everything. */
  readonly allow?: string;
  /** More services, indented by two. */
  readonly services?: string;
  readonly upstreams?: readonly string[];
  readonly plane?: Omit<PlaneOptions, "register">;
};

/** A gate, `web` that calls, and `orders` that answers as a test dictates. All of it ends with the test. */
export type OneService = {
  readonly world: PlaneWorld;
  readonly upstream: ScriptedUpstream;
  readonly web: Credentials;
  readonly register: string;
  /** A new connection of `web`, or of whom `credentials` say. */
  dial(credentials?: Credentials, sni?: string): Promise<RawClient>;
};

export async function startOneService(t: TestContext, with_: With = {}): Promise<OneService> {
  const upstream = await scriptedUpstream(
    with_.answer,
    with_.onHead === undefined ? {} : { onHead: with_.onHead },
  );
  t.after(() => upstream.close());
  const upstreams = with_.upstreams ?? [upstream.address];
  const register = `
version: 1
trustDomain: test.internal
services:
  web: { owner: shop }
  orders:
    owner: shop
    upstreams: ${JSON.stringify(upstreams)}
    allow: ${with_.allow ?? "[{ id: web-orders, from: web }]"}
${with_.orders ?? ""}
${with_.services ?? ""}
`;
  const world = await startPlane({ register, ...with_.plane });
  t.after(() => world.close());
  const web = await world.issue("web");
  return {
    world,
    upstream,
    web,
    register,
    async dial(credentials = web, sni) {
      const client = await dial({
        port: world.port,
        credentials,
        ...(sni !== undefined && { sni }),
      });
      t.after(() => client.close());
      return client;
    },
  };
}
