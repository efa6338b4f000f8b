import assert from "node:assert/strict";
import { test } from "node:test";
import { startOneService } from "../harness/one-service.ts";
import { until } from "../harness/until.ts";

test("a caller that proves who it is, asks nothing and leaves is a hit", async (t) => {
  const { dial, world } = await startOneService(t, {});
  const client = await dial();
  client.socket.end();
  const hit = await until("the line", () => world.hits.at(-1));
  assert.equal(hit.kind, "connection");
  assert.equal(hit.decision, "allowed");
  assert.equal(hit.caller, "service/web");
});
