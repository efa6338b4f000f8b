import assert from "node:assert/strict";
import { test } from "node:test";
import { cidrCovers, parseCidr } from "../../base/address.ts";
import { carve } from "./carve.ts";

const rows: readonly (readonly [
  range: string,
  count: number,
  first: string | undefined,
  last: string | undefined,
])[] = [
  ["10.20.0.0/16", 1, "10.20.0.0/24", "10.20.0.0/24"],
  ["10.20.0.0/16", 256, "10.20.0.0/24", "10.20.255.0/24"],
  ["10.20.0.0/16", 257, "10.20.0.0/25", "10.20.128.0/25"],
  ["192.168.7.0/24", 3, "192.168.7.0/26", "192.168.7.128/26"],
  ["192.168.7.0/29", 1, "192.168.7.0/29", "192.168.7.0/29"],
  ["192.168.7.0/29", 2, undefined, undefined],
  ["10.0.0.1/32", 1, undefined, undefined],
  ["fd00:20::/48", 2, "fd00:20::/64", "fd00:20:0:1::/64"],
  ["fd00:20::/64", 2, "fd00:20::/65", "fd00:20:0:0:8000::/65"],
];

for (const [range, count, first, last] of rows) {
  test(`${count} of ${range}: ${first ?? "too small"}`, () => {
    const whole = parseCidr(range);
    assert.ok(whole);
    const parts = carve(whole, count);
    assert.equal(parts?.at(0), first);
    assert.equal(parts?.at(-1), last);
    if (!parts) return;
    assert.equal(new Set(parts).size, count);
    for (const part of parts) {
      const inner = parseCidr(part);
      assert.ok(inner && cidrCovers(whole, inner), part);
    }
  });
}
