import assert from "node:assert/strict";
import { test } from "node:test";
import type { Hit } from "../../model/hit.ts";
import type { Warning } from "../../model/warning.ts";
import { createWatch } from "./watch.ts";

const refused: Hit = {
  id: "aaaaaaaaaa-1",
  at: 1_000_000,
  plane: "data",
  kind: "connection",
  decision: "refused",
  code: "no_certificate",
  peer: "10.0.0.7:50000",
};
const decoy: Hit = { ...refused, plane: "decoy", code: "decoy", local: "10.0.0.1:5432" };
const died: Hit = {
  id: "aaaaaaaaaa-2",
  at: 1_000_000,
  plane: "data",
  kind: "process",
  decision: "fault",
  action: "worker_died",
  gate: "g1",
};

/** The ids of the warnings that so many hits raise. */
function raised(hits: readonly Hit[]): string[] {
  const warnings: Warning[] = [];
  const watch = createWatch({ clock: () => 1, raise: (warning) => warnings.push(warning) });
  for (const hit of hits) watch.see(hit);
  return warnings.map(({ id, severity }) => `${severity} ${id}`);
}

const times = (count: number, hit: (i: number) => Partial<Hit>, like = refused): Hit[] =>
  Array.from({ length: count }, (_, i) => ({ ...like, ...hit(i) }));

const rows: [claim: string, hits: Hit[], expected: string[]][] = [
  ["one touch of a decoy is critical", [decoy], ["critical decoy:10.0.0.7"]],
  [
    "two sources are two matters",
    [decoy, { ...decoy, peer: "[fd00::1]:1" }],
    ["critical decoy:10.0.0.7", "critical decoy:fd00:0:0:0::/64"],
  ],
  [
    "a decoy again is the same matter",
    [decoy, { ...decoy, peer: "10.0.0.7:2" }],
    ["critical decoy:10.0.0.7"],
  ],
  ["even when it was allowed", [{ ...decoy, decision: "allowed" }], ["critical decoy:10.0.0.7"]],
  ["one refusal is no warning", [refused], []],
  ["the same refusal a thousand times is no scan", times(1000, () => ({})), []],
  ["seven different ones are none", times(7, (i) => ({ path: `/${i}` })), []],
  [
    "eight different ones are a scan",
    times(8, (i) => ({ path: `/${i}` })),
    ["warning scanner:10.0.0.7"],
  ],
  ["but not over hours", times(8, (i) => ({ path: `/${i}`, at: i * 600_000 })), []],
  ["nor from eight sources", times(8, (i) => ({ path: `/${i}`, peer: `10.0.0.${i}:1` })), []],
  [
    "a known caller is no stranger",
    times(20, (i) => ({ path: `/${i}`, caller: "service/web" })),
    [],
  ],
  [
    "fifty refusals of one caller are a burst",
    times(50, () => ({ caller: "service/web" })),
    ["warning refusal-burst:service/web"],
  ],
  ["forty-nine are not", times(49, () => ({ caller: "service/web" })), []],
  ["fifty of two callers are not", times(50, (i) => ({ caller: `service/${i % 2}` })), []],
  [
    "a rate limit is no burst",
    times(99, () => ({ caller: "service/web", code: "rate_limited" })),
    [],
  ],
  ["what was allowed is nothing", times(99, (i) => ({ decision: "allowed", path: `/${i}` })), []],
  ["a worker's death is a warning", [died], ["warning worker-death:g1"]],
  [
    "three are critical",
    [died, died, died],
    ["warning worker-death:g1", "critical workers-dying:g1"],
  ],
  ["a start is nothing", [{ ...died, action: "start", decision: "allowed" }], []],
];
for (const [claim, hits, expected] of rows)
  test(claim, () => assert.deepEqual(raised(hits), expected));

test("what goes on is told again after a minute, with its count and its latest hits", () => {
  let now = 0;
  const warnings: Warning[] = [];
  const watch = createWatch({ clock: () => now, raise: (warning) => warnings.push(warning) });
  for (let i = 0; i < 120; i++) {
    now = i * 1000;
    watch.see({ ...decoy, id: `aaaaaaaaaa-${i}`, at: now });
  }
  assert.deepEqual(
    warnings.map(({ count, at }) => [count, at]),
    [
      [1, 0],
      [61, 60_000],
    ],
  );
  assert.equal(warnings[1]?.hits.length, 20);
  assert.equal(warnings[1]?.hits.at(-1), "aaaaaaaaaa-60");
});

test("a sum counts for as many as it stands for", () => {
  const sum: Hit = { ...refused, kind: "sum", count: 500, caller: "service/web" };
  assert.deepEqual(raised([sum]), ["warning refusal-burst:service/web"]);
});

test("a crowd costs no more than a table", () => {
  const crowd = times(
    20_000,
    (i) => ({ peer: `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}:1` }),
    decoy,
  );
  assert.equal(raised(crowd).length, 20_000);
});
