import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { formatDuration, formatRate, parseDuration, parseRate } from "./duration.ts";

const durations: readonly [claim: string, text: string, expected: number | undefined][] = [
  ["milliseconds", "100ms", 100],
  ["seconds", "5s", 5000],
  ["minutes", "15m", 900_000],
  ["hours", "1h", 3_600_000],
  ["days", "30d", 2_592_000_000],
  ["several units, largest first", "1h30m", 5_400_000],
  ["zero is a duration", "0s", 0],
  ["nothing is none", "", undefined],
  ["a bare number has no unit", "15", undefined],
  ["units fall", "30m1h", undefined],
  ["no unit twice", "1h1h", undefined],
  ["no sign", "-5s", undefined],
  ["no fraction", "1.5h", undefined],
  ["no blank", "5 s", undefined],
  ["no upper case", "5S", undefined],
  ["no words", "fifteen minutes", undefined],
  ["no years", "1y", undefined],
  ["a century is the limit", "36526d", undefined],
  ["digits have an end", "99999999999999999999s", undefined],
  ["a line end is not swallowed", "5s\n", undefined],
];
for (const [claim, text, expected] of durations)
  test(`duration: ${claim}`, () => assert.equal(parseDuration(text), expected));

const rates: readonly [claim: string, text: string, expected: object | undefined][] = [
  ["a second", "100/s", { count: 100, perMs: 1000 }],
  ["a minute", "5/m", { count: 5, perMs: 60_000 }],
  ["an hour", "1000/h", { count: 1000, perMs: 3_600_000 }],
  ["none at all is no limit", "0/s", undefined],
  ["no day", "5/d", undefined],
  ["no count", "/s", undefined],
  ["no blank", "5 / s", undefined],
  ["no fraction", "0.5/s", undefined],
  ["too many", "10000001/s", undefined],
];
for (const [claim, text, expected] of rates)
  test(`rate: ${claim}`, () => assert.deepEqual(parseRate(text), expected));

test("what is printed reads back as the same", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 3_155_760_000_000 }), (durationMs) => {
      assert.equal(parseDuration(formatDuration(durationMs)), durationMs);
    }),
  );
  assert.equal(formatDuration(90_000), "1m30s");
  assert.equal(formatRate({ count: 100, perMs: 1000 }), "100/s");
});
