import assert from "node:assert/strict";
import { test } from "node:test";
import { createRenewalSchedule, renewAt } from "./renewal-schedule.ts";

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;

/** Two clocks that are turned by hand, and a leaf of an hour that was found at the start. */
function startWorld(random = 0.5) {
  const world = { wall: 1_000_000_000_000, monotonic: 50 };
  const schedule = createRenewalSchedule({
    clock: () => world.wall,
    monotonic: () => world.monotonic,
    random: () => random,
  });
  const leaf = (lifeMs = hourMs) => ({
    notBeforeMs: world.wall,
    notAfterMs: world.wall + lifeMs,
  });
  schedule.holds(leaf(), "found");
  /** Both clocks go on: the machine is awake. */
  const pass = (ms: number) => {
    world.wall += ms;
    world.monotonic += ms;
  };
  /** Looks whenever the schedule says so, until it is due; resolves to how long that took. */
  const untilDue = () => {
    const start = world.monotonic;
    for (let looks = 0; schedule.waitMs() > 0; looks++) {
      assert.ok(looks < 100_000, "never due");
      pass(schedule.waitMs());
    }
    return world.monotonic - start;
  };
  return { world, schedule, leaf, pass, untilDue };
}

test("renewal is at two thirds of life, a little earlier by chance", () => {
  assert.equal(
    renewAt(0, 60, () => 0),
    40,
  );
  assert.equal(Math.round(renewAt(0, 60_000, () => 1)), 37_000);
  const { untilDue } = startWorld(0);
  assert.equal(untilDue(), 40 * minuteMs);
});

test("nothing is waited for longer than 30 s at once", () => {
  const { schedule, pass } = startWorld();
  assert.equal(schedule.waitMs(), 30_000);
  pass(7 * minuteMs);
  assert.equal(schedule.waitMs(), 30_000);
});

test("a machine that slept past the time renews when it wakes", () => {
  const { schedule, world } = startWorld();
  world.wall += 50 * minuteMs; // the monotonic clock stood still
  assert.equal(schedule.waitMs(), 0);
});

test("a clock that jumps forward makes it due at once, and back again harms nothing", () => {
  const { schedule, world, untilDue } = startWorld(0);
  world.wall += 48 * hourMs;
  assert.equal(schedule.waitMs(), 0);
  schedule.failed();
  world.wall -= 48 * hourMs;
  assert.ok(untilDue() <= 40 * minuteMs);
});

test("a clock that jumps back does not put renewal off", () => {
  const { world, untilDue } = startWorld(0);
  world.wall -= 48 * hourMs;
  assert.equal(untilDue(), 40 * minuteMs, "the other clock knows");
});

test("pauses after failures grow from 1 s to 5 min, whatever the wall clock does", () => {
  const { schedule, world, pass, untilDue, leaf } = startWorld(1);
  schedule.holds(leaf(24 * hourMs), "found");
  pass(17 * hourMs);
  const pauses: number[] = [];
  for (let i = 0; i < 12; i++) {
    schedule.failed();
    world.wall -= hourMs * (i % 2 ? 1 : -1);
    pauses.push(untilDue());
  }
  assert.deepEqual(
    pauses.slice(0, 9).map((ms) => ms / 1_000),
    [1, 2, 4, 8, 16, 32, 64, 128, 256],
  );
  assert.ok(
    pauses.slice(9).every((ms) => ms === 300_000),
    `${pauses}`,
  );
});

test("chance halves a pause at most, and never below 1 s", () => {
  const { schedule, pass, untilDue } = startWorld(0);
  pass(45 * minuteMs);
  const pauses = [1, 2, 3, 4].map(() => {
    schedule.failed();
    return untilDue();
  });
  assert.deepEqual(pauses, [1_000, 1_000, 2_000, 4_000]);
});

test("a short leaf is not waited out: pauses shrink with what is left", () => {
  const { schedule, leaf, pass, untilDue } = startWorld(1);
  schedule.holds(leaf(5 * minuteMs), "found");
  pass(4 * minuteMs);
  for (let i = 0; i < 9; i++) schedule.failed();
  assert.ok(untilDue() <= 12_000);
});

test("no answer makes it go round in circles", () => {
  const rows: [claim: string, lifeMs: number, beganMsAgo: number][] = [
    ["a leaf that has already expired", hourMs, 3 * hourMs],
    ["a leaf that expired years ago", hourMs, 9_999 * hourMs],
    ["a leaf that lives for a second", 1_000, 0],
    ["a leaf that ends before it begins", -hourMs, 0],
    ["a leaf that is nearly over", hourMs, 59 * minuteMs],
  ];
  for (const [claim, lifeMs, beganMsAgo] of rows) {
    const { schedule, world, untilDue, pass } = startWorld();
    pass(45 * minuteMs);
    const start = world.monotonic;
    let asked = 0;
    while (world.monotonic - start < hourMs) {
      asked += 1;
      const notBeforeMs = world.wall - beganMsAgo;
      schedule.holds({ notBeforeMs, notAfterMs: notBeforeMs + lifeMs }, "renewed");
      const waited = untilDue();
      assert.ok(waited >= 10_000, `${claim}: ${waited} ms`);
    }
    assert.ok(asked <= 361, `${claim}: asked ${asked} times in an hour`);
  }
});

/** A leaf of 5 min, issued by a right clock while ours is `skew(seconds)` off; answers when it was renewed and how little was left. */
function liveThrough(skew: (second: number) => number, seconds: number, reaches = () => true) {
  const start = 1_000_000_000_000;
  let second = 0;
  const schedule = createRenewalSchedule({
    clock: () => start + (second + skew(second)) * 1_000,
    monotonic: () => second * 1_000,
    random: () => 0.5,
  });
  const issued = () => ({
    notBeforeMs: start + (second - 60) * 1_000,
    notAfterMs: start + (second + 300) * 1_000,
  });
  let leaf = issued();
  schedule.holds(leaf, "found");
  const renewedAt: number[] = [];
  const disputedAt: number[] = [];
  let leastLeftMs = Number.POSITIVE_INFINITY;
  let lookAt = 0;
  for (; second < seconds; second++) {
    leastLeftMs = Math.min(leastLeftMs, leaf.notAfterMs - (start + second * 1_000));
    if (second < lookAt) continue;
    if (schedule.waitMs() === 0) {
      if (reaches()) {
        leaf = issued();
        schedule.holds(leaf, "renewed");
        renewedAt.push(second);
        if (schedule.isDisputed()) disputedAt.push(second);
      } else schedule.failed();
    }
    lookAt = second + schedule.waitMs() / 1_000;
  }
  return { renewedAt, disputedAt, leastLeftMs };
}

test("a clock that jumps an hour ahead, two back, and is right again", () => {
  const skew = (second: number) =>
    second < 100 ? 0 : second < 280 ? 3_600 : second < 370 ? -7_200 : 0;
  const { renewedAt, disputedAt, leastLeftMs } = liveThrough(skew, 1_800);
  const wrong = renewedAt.filter((second) => second >= 100 && second < 370);
  assert.ok(wrong.length <= 4, `no storm: ${renewedAt}`);
  assert.ok(leastLeftMs > 60_000, `never close to its end: ${leastLeftMs} ms, ${renewedAt}`);
  assert.ok(disputedAt.length > 0);
  assert.ok(!disputedAt.some((second) => second >= 370), "a right clock disputes nothing");
  assert.ok(renewedAt.length <= 12, `${renewedAt}`);
});

test("a clock that is wrong for good renews as often as its issuer's clock asks for", () => {
  for (const off of [-86_400, -7_200, -90, 250, 290, 3_600, 86_400]) {
    const { renewedAt, leastLeftMs } = liveThrough((second) => (second < 100 ? 0 : off), 3_700);
    const first = renewedAt[0] ?? 0;
    assert.ok(
      renewedAt.filter((second) => second < first + 200).length <= 3,
      `${off} s: ${renewedAt}`,
    );
    assert.ok(renewedAt.length <= 3_600 / 120, `${off} s: ${renewedAt}`);
    assert.ok(leastLeftMs > 60_000, `${off} s: ${leastLeftMs} ms`);
  }
});

test("pauses of an outage under a wrong clock end with the wrong clock", () => {
  // Nothing is reached for 200 s while the leaf looks expired; then clock and network are right.
  let isUp = false;
  const skew = (second: number) => {
    isUp = second < 60 || second >= 230;
    return second >= 60 && second < 230 ? 3_600 : 0;
  };
  const { renewedAt, leastLeftMs } = liveThrough(skew, 600, () => isUp);
  assert.ok((renewedAt[0] ?? 999) <= 262, `within a look: ${renewedAt}`);
  assert.ok(leastLeftMs > 30_000, `${leastLeftMs} ms left`);
});

test("the time of the next attempt is told as it is, beyond the next look", () => {
  const { schedule, world, leaf, pass, untilDue } = startWorld(1);
  schedule.holds(leaf(24 * hourMs), "found");
  pass(17 * hourMs);
  for (let i = 0; i < 9; i++) schedule.failed();
  assert.equal(schedule.waitMs(), 30_000);
  const told = schedule.untilAttemptMs();
  assert.equal(told, 256_000);
  const began = world.monotonic;
  untilDue();
  assert.equal(world.monotonic - began, told);
});

test("an order is followed at once, whatever was renewed or failed a moment ago", () => {
  const { schedule, leaf, pass } = startWorld();
  for (let i = 0; i < 3; i++) {
    schedule.hurry();
    assert.equal(schedule.waitMs(), 0);
    schedule.holds(leaf(), "renewed");
    assert.notEqual(schedule.waitMs(), 0);
    pass(100);
  }
  for (let i = 0; i < 3; i++) schedule.failed();
  schedule.hurry();
  assert.equal(schedule.waitMs(), 0);
});

test("orders without end are followed a few times a minute", () => {
  const { schedule, world, leaf, pass } = startWorld();
  const start = world.monotonic;
  let asked = 0;
  while (world.monotonic - start < minuteMs) {
    schedule.hurry();
    if (schedule.waitMs() === 0) {
      asked += 1;
      if (asked % 2) schedule.holds(leaf(), "renewed");
      else schedule.failed();
    }
    pass(50);
  }
  assert.ok(asked >= 7 && asked <= 20, `${asked}`);
});
