import assert from "node:assert/strict";
import { test } from "node:test";
import { admit } from "./gcra.ts";

const limit = { count: 200, perMs: 1_000, burst: 20 };
const fresh = () => new Int32Array(new SharedArrayBuffer(4));

/** How many of so many are let in at one time. */
function burstAt(table: Int32Array, nowMs: number, tries = 100): number {
  let admitted = 0;
  for (let i = 0; i < tries; i++) if (admit(table, 0, limit, nowMs) === 0) admitted++;
  return admitted;
}

for (const [claim, lagMs] of [
  ["the same time", 0],
  ["a reading that is a little older", 0.1],
  ["a reading from before the thread was put aside", 50],
  ["a clock that is half a second behind", 500],
] as const)
  test(`a full limit stays full for a worker with ${claim}`, () => {
    const table = fresh();
    const nowMs = 5_000_000;
    assert.equal(burstAt(table, nowMs), limit.burst);
    assert.equal(burstAt(table, nowMs - lagMs), 0);
    assert.equal(burstAt(table, nowMs), 0, "nor has it been emptied for the others");
  });

test("it drips at its rate, and says when to come back", () => {
  const table = fresh();
  assert.equal(burstAt(table, 1_000), limit.burst);
  const retryMs = admit(table, 0, limit, 1_000);
  assert.ok(Math.abs(retryMs - 5) < 0.2, `${retryMs}`);
  assert.equal(burstAt(table, 1_000 + retryMs), 1);
  assert.equal(burstAt(table, 2_000 + retryMs), limit.burst, "a second later it is whole again");
});

test("a word that nobody used is not the far future, wherever the clock stands", () => {
  const turnMs = 2 ** 32 / ((limit.count * 64) / limit.perMs);
  for (const part of [0.1, 0.4, 0.5, 0.6, 0.9, 1.3])
    assert.equal(burstAt(fresh(), turnMs * part), limit.burst, `${part} of a turn`);
});
