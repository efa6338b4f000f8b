import assert from "node:assert/strict";
import { test } from "node:test";
import { type GateView, gateTroubles, shutDoors } from "./gate-troubles.ts";

const serving: GateView = {
  connected: true,
  running: { epoch: 1, version: 1 },
  addresses: ["127.0.0.1:7443"],
  counters: { audit_failing: 0, workers: 2, leaf_expires_seconds: 1_800, doorProblems: [] },
};

test("what a gate counts of itself says whether it serves", () => {
  const counting = (counters: object): GateView => ({
    ...serving,
    counters: { ...serving.counters, ...counters },
  });
  const rows: [claim: string, gate: GateView, says: RegExp[]][] = [
    ["one that serves", serving, []],
    ["one that counts nothing yet, or nothing that we know", { ...serving, counters: {} }, []],
    ["a log that cannot be written", counting({ audit_failing: 1 }), [/audit_unavailable.*free/]],
    ["no workers", counting({ workers: 0 }), [/no worker/]],
    ["a certificate that ended", counting({ leaf_expires_seconds: -3 }), [/certificate has ended/]],
    ["no snapshot", { ...serving, running: null, addresses: [] }, [/no snapshot/]],
    ["no door", { ...serving, addresses: [] }, [/none of its data doors/]],
    [
      "two things at once",
      counting({ audit_failing: 1, workers: 0 }),
      [/audit_unavailable/, /no worker/],
    ],
    ["one that is away", { ...counting({ audit_failing: 1, workers: 0 }), connected: false }, []],
    [
      "values of other kinds",
      counting({ audit_failing: "1", workers: null, leaf_expires_seconds: "never" }),
      [],
    ],
  ];
  for (const [claim, gate, says] of rows) {
    const troubles = gateTroubles(gate);
    assert.equal(troubles.length, says.length, `${claim}: ${troubles}`);
    for (const [i, pattern] of says.entries()) assert.match(troubles[i] ?? "", pattern, claim);
  }
});

test("doors that are shut are told as sentences and nothing else", () => {
  assert.deepEqual(shutDoors(serving), []);
  const counters = { doorProblems: ["port 7443 is taken", 4, null] };
  assert.deepEqual(shutDoors({ ...serving, counters }), ["port 7443 is taken"]);
  assert.deepEqual(shutDoors({ ...serving, counters, connected: false }), []);
  assert.deepEqual(shutDoors({ ...serving, counters: { doorProblems: "no list" } }), []);
});
