import assert from "node:assert/strict";
import { test } from "node:test";
import { createFailureBudget } from "./failure-budget.ts";

test("ten failures at once, then one in six seconds; others and a clock that was set back lose nothing", () => {
  let now = 1_000_000_000;
  const budget = createFailureBudget(() => now);
  const fail = (times: number, address = "10.0.0.1"): void => {
    for (let i = 0; i < times; i++) budget.fail(address);
  };
  fail(9);
  assert.equal(budget.retryAfterMs("10.0.0.1"), 0);
  fail(1);
  assert.equal(budget.retryAfterMs("10.0.0.1"), 6_000);
  assert.equal(budget.retryAfterMs("::ffff:10.0.0.1"), 6_000, "the same address");
  assert.equal(budget.retryAfterMs("10.0.0.2"), 0, "another one");
  now += 6_000;
  assert.equal(budget.retryAfterMs("10.0.0.1"), 0);
  fail(1_000);
  assert.equal(budget.retryAfterMs("10.0.0.1"), 66_000, "overdrawn, but not for ever");
  now -= 3_600_000;
  assert.equal(budget.retryAfterMs("10.0.0.1"), 0, "the clock was set back");
  fail(12, "2001:db8::1");
  assert.ok(budget.retryAfterMs("2001:db8::ffff") > 0, "a /64 is one");
  assert.equal(budget.retryAfterMs("2001:db8:0:1::1"), 0);
});
