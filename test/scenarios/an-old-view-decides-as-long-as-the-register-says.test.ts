import assert from "node:assert/strict";
import { test } from "node:test";
import { fieldValue, statusOf } from "../harness/http-text.ts";
import { startOneService } from "../harness/one-service.ts";

const get = (host: string): string => `GET /a HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
const hourMs = 3_600_000;

test("without control a service is served for as long as its staleAfter says, and the others for ever", async (t) => {
  const confirmed = Date.now();
  let now = confirmed;
  const { dial, upstream, world, register } = await startOneService(t, {
    orders: "    staleAfter: { after: 1h, then: refuse }",
    plane: { clock: () => now, confirmedMs: () => confirmed },
  });
  world.publish(
    `${register}\n  billing:\n    owner: shop\n    upstreams: ["${upstream.address}"]\n    staleAfter: { after: 1h, then: warn }\n    allow: [{ id: web-billing, from: web }]\n`,
  );
  const client = await dial(await world.issue("web", { ttlMs: 12 * hourMs }));
  const ask = async (host: string): Promise<string> => {
    client.send(get(host));
    const response = await client.response();
    return fieldValue(response, "sallyport-refusal") ?? String(statusOf(response));
  };
  now = confirmed + hourMs;
  assert.deepEqual([await ask("orders"), await ask("billing")], ["200", "200"]);
  now = confirmed + hourMs + 1;
  assert.deepEqual([await ask("orders"), await ask("billing")], ["stale", "200"]);
  assert.equal(upstream.requests.length, 3);
  assert.equal(world.hits.at(-2)?.code, "stale");
});
