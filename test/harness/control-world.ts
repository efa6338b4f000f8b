import { generateKeyPairSync } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import type { Credentials } from "../../src/base/credentials.ts";
import { silentLog } from "../../src/base/log.ts";
import { createApp } from "../../src/control/api/app.ts";
import { type ApiDoor, type ApiLimits, openApiDoor } from "../../src/control/api/serve.ts";
import { type ControlClient, createControlClient } from "../../src/control/client/client.ts";
import type { Confirmations, GateState, Needs } from "../../src/control/needs.ts";
import { openRegistry, type Registry } from "../../src/control/registry/registry.ts";
import { openStore } from "../../src/control/store/sqlite.ts";
import type { ControlStore } from "../../src/control/store/store.ts";
import { type Authority, openAuthority } from "../../src/identity/authority/authority.ts";
import { openSnapshotKey } from "../../src/identity/authority/snapshot-key.ts";
import { createIssuance, type Issuance } from "../../src/identity/issue/issuance.ts";
import type { Hit } from "../../src/model/hit.ts";
import type { Role } from "../../src/model/issued.ts";
import type { Plane, Principal } from "../../src/model/principal.ts";
import type { Revocation, SignedSnapshot, Snapshot } from "../../src/model/snapshot.ts";

export const trustDomain = "shop.internal";

/** A register of two services that `checkRegister` accepts. */
export const smallRegister = `version: 1
trustDomain: shop.internal
services:
  web: { owner: storefront }
  orders:
    owner: commerce
    ports:
      http: { protocol: http, upstreams: ["127.0.0.1:9001"] }
    allow:
      - { id: web-reads-orders, from: web, methods: [GET], paths: ["/orders/**"] }
`;

/** A control plane of real parts, with a feed whose gates do what the test says and a hit log in memory. */
export type ControlWorld = {
  readonly dir: string;
  readonly door: ApiDoor;
  readonly store: ControlStore;
  readonly registry: Registry;
  readonly issuance: Issuance;
  readonly authorities: Readonly<Record<Plane, Authority>>;
  readonly needs: Needs;
  readonly hits: Hit[];
  readonly published: { signed: SignedSnapshot; snapshot: Snapshot }[];
  readonly revoked: Revocation[];
  readonly api: string;
  /** What the test turns. */
  readonly world: {
    nowMs: number;
    gates: GateState[];
    confirmations: Confirmations;
    canRecord: boolean;
    admits: (ip: string) => boolean;
  };
  /** Makes an operator, registers it and gives its client. */
  operator(
    role: Role,
    name: string,
    more?: { owners?: string[]; services?: string[] },
  ): Promise<ControlClient>;
  /** A leaf and its key. */
  credentials(uri: string, plane: Plane, more?: { ttlMs?: number }): Promise<Credentials>;
  client(credentials: Credentials): ControlClient;
};

export async function startControlWorld(
  t: TestContext,
  options: { readonly register?: string | undefined; readonly limits?: Partial<ApiLimits> } = {},
): Promise<ControlWorld> {
  const dir = await mkdtemp(join(tmpdir(), "sallyport-control-"));
  const stops: (() => unknown)[] = [() => rm(dir, { recursive: true, force: true })];
  t.after(async () => {
    for (const stop of stops.reverse()) await stop();
  });
  const world: ControlWorld["world"] = {
    nowMs: Date.now(),
    gates: [],
    confirmations: { confirmed: [], missing: [] },
    canRecord: true,
    admits: (ip) => ip === "127.0.0.1",
  };
  const clock = () => world.nowMs;
  const store = await openStore(join(dir, "control", "store.sqlite"));
  stops.push(() => store.close());
  const [control, data, key] = await Promise.all([
    openAuthority({ dir: join(dir, "ca-control"), plane: "control", trustDomain, clock }),
    openAuthority({ dir: join(dir, "ca-data"), plane: "data", trustDomain, clock }),
    openSnapshotKey(join(dir, "snapshot-key.pem")),
  ]);
  const authorities = { control, data };
  const hits: Hit[] = [];
  const published: ControlWorld["published"] = [];
  const revoked: Revocation[] = [];
  const issuance = createIssuance({
    store,
    authorities,
    trustDomain,
    clock,
    leafMs: () => 3_600_000,
    snapshotKeyPem: key.publicKeyPem,
    joinAddress: () => "127.0.0.1:7442",
    mayServe: () => false,
    onTokenReuse: async () => {},
    onLineageFork: async () => {},
  });
  const needs: Needs = {
    clock,
    log: silentLog,
    sign: key.signSnapshot,
    feed: {
      publish: (signed, snapshot) => void published.push({ signed, snapshot }),
      revokeNow: async (revocation) => {
        revoked.push(revocation);
        return world.confirmations;
      },
      gates: () => world.gates,
      confirmed: async () => world.confirmations,
    },
    record: (hit) => {
      if (!world.canRecord) return undefined;
      const id = `test-${hits.length + 1}`;
      hits.push({ ...hit, id });
      return id;
    },
    canRecord: () => world.canRecord,
    queryHits: async () => ({ hits: hits.toReversed(), absent: [] }),
    verifyHits: async () => ({ ok: true, chains: [], problems: [], absent: [] }),
    warnings: () => [],
    createToken: issuance.createToken,
    authorities: {
      status: () =>
        (["control", "data"] as const).map((plane) => ({
          plane,
          ...authorities[plane].rotation(),
        })),
      isOfRetiredRoot: () => false,
      rotate: async (planes, step, { force }) => {
        const taken = [];
        for (const plane of planes) {
          const authority = authorities[plane];
          const state =
            step === "prepare" ? await authority.prepare() : await authority[step]({ force });
          taken.push({ plane, ...state });
        }
        return { authorities: taken, behind: [] };
      },
    },
  };
  const registry = await openRegistry(store, needs);
  const text = "register" in options ? options.register : smallRegister;
  if (text !== undefined)
    await registry.apply({
      files: [{ name: "sallyport.yaml", text }],
      author: { name: "control/control" },
      force: true,
    });

  async function credentials(
    uri: string,
    plane: Plane,
    more: { ttlMs?: number } = {},
  ): Promise<Credentials> {
    const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const leaf = await issuance.issueDirect({
      principal: uri as Principal,
      plane,
      publicKeySpki: pair.publicKey.export({ format: "der", type: "spki" }),
      ...more,
    });
    return {
      keyPem: pair.privateKey.export({ format: "pem", type: "pkcs8" }).toString(),
      chainPem: leaf.chain,
      bundlePem: leaf.bundle,
    };
  }

  const app = createApp({ store, registry, needs, notes: () => ["this is a test"] });
  const door = await openApiDoor({
    app,
    endpoint: { host: "127.0.0.1", port: 0 },
    credentials: await credentials(`spiffe://${trustDomain}/control/control`, "control"),
    trustDomain,
    otherBundlePem: () => data.bundlePem(),
    admits: (ip) => world.admits(ip),
    needs,
    ...(options.limits && { limits: options.limits }),
  });
  stops.push(() => door.close());
  const api = `https://127.0.0.1:${door.address.port}`;

  function client(of: Credentials): ControlClient {
    const made = createControlClient({ api, trustDomain, credentials: of, clock });
    stops.push(() => made.close());
    return made;
  }

  return {
    dir,
    door,
    store,
    registry,
    issuance,
    authorities,
    needs,
    hits,
    published,
    revoked,
    api,
    world,
    credentials,
    client,
    async operator(role, name, more = {}) {
      const kind = {
        admin: "admin",
        auditor: "auditor",
        deployer: "automation",
        enroller: "automation",
      }[role];
      const principal = `spiffe://${trustDomain}/${kind}/${name}` as Principal;
      await store.savePrincipal({
        principal,
        role,
        owners: more.owners ?? [],
        services: more.services ?? [],
        createdBy: "control/control",
        createdMs: world.nowMs,
      });
      return client(await credentials(principal, "control"));
    },
  };
}
