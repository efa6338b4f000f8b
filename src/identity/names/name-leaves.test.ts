import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { join } from "node:path";
import { test } from "node:test";
import { startIssuanceWorld, startTestDoor } from "../../../test/harness/issuance-world.ts";
import { silentLog } from "../../base/log.ts";
import { enrollGate } from "../enroll/enroll.ts";
import { startNameLeaves } from "./name-leaves.ts";

test("names are asked for in batches, what arrived outlives a failure and a restart, and only what lacks is asked for", {
  timeout: 20_000,
}, async (t) => {
  const world = await startIssuanceWorld(t);
  await startTestDoor(world);
  const { token } = await world.issuance.createToken({
    principal: world.principal("gate", "g1"),
    createdBy: "admin/first",
  });
  const dir = join(world.dir, "g1", "data");
  const controlOut = join(world.dir, "g1", "control");
  await enrollGate({ token, controlOut, dataOut: dir, clock: Date.now });
  let wanted = [...Array.from({ length: 150 }, (_, i) => `s${i}`), "not-mine"];
  const batches: number[] = [];
  const begin = () =>
    startNameLeaves({
      dir,
      file: join(world.dir, "names.json"),
      clock: () => world.clock.now,
      monotonic: () => performance.now(),
      random: () => 0.5,
      log: silentLog,
      wanted: () => wanted,
      onArrived: (names) => void batches.push(names.size),
    });
  const first = begin();
  await first.settled(10_000);
  assert.deepEqual(batches, [64, 64, 22]);
  assert.equal(first.missing(), 1, "the one that control does not give is not there");
  const leaf = new X509Certificate(first.all().get("s149")?.chainPem ?? "");
  assert.equal(leaf.checkHost("s149"), "s149");
  await first.close();

  wanted = [...wanted.slice(1, 150), "s150"];
  const second = begin();
  assert.equal(second.missing(), 1, "what was kept is there at once");
  await second.settled(10_000);
  assert.deepEqual(batches.slice(3), [1], "one name more is one name asked for");
  assert.equal(second.all().has("s0"), false, "what nobody wants is forgotten");
  // Due between a half and two thirds of an hour: a batch at a time.
  world.clock.now += 45 * 60_000;
  await second.settled(10_000);
  assert.deepEqual(batches.slice(4), [64], "renewals are spread out");
  assert.equal(second.missing(), 0);
  await second.close();
});
