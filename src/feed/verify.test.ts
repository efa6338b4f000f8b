import assert from "node:assert/strict";
import { test } from "node:test";
import { startFeedWorld, until } from "../../test/harness/feed-world.ts";
import type { ChainHead } from "../model/chain-head.ts";
import type { LogVerdict } from "./needs.ts";

const anchors: ChainHead[] = [{ chain: "2kf3x9abcd", sequence: 7, head: "ab" }];
const broken: LogVerdict = {
  ok: false,
  chains: [
    {
      chain: "2kf3x9abcd",
      ok: false,
      writer: "worker front 0",
      lines: 5,
      first: 1,
      last: 5,
      lost: 0,
      torn: 0,
      pruned: false,
    },
  ],
  problems: [
    { kind: "cut", chain: "2kf3x9abcd", says: "ends at 5,\u001b[2J but line 7 was anchored" },
  ],
};

test("a gate walks its log when it is asked, with the heads that control kept", async (t) => {
  const world = await startFeedWorld(t);
  const control = await world.startControl({ latest: world.sign(1) });
  const asked: (readonly ChainHead[])[] = [];
  await world.startGate(control.address, {
    with: {
      onVerify: async (kept) => {
        asked.push(kept);
        return broken;
      },
    },
  });
  await until(() => control.publisher.gates()[0]?.connected, "connected");
  const verdict = await control.publisher.verify("front", anchors);
  assert.deepEqual(asked, [anchors]);
  assert.deepEqual(verdict.chains, broken.chains);
  assert.equal(
    verdict.problems[0]?.says,
    "ends at 5,?[2J but line 7 was anchored",
    "nothing of a gate reaches a terminal as it came",
  );
});

test("one walk at a time, and no verdict from a gate that is away, fails or goes", async (t) => {
  const world = await startFeedWorld(t);
  const control = await world.startControl({ latest: world.sign(1) });
  await assert.rejects(control.publisher.verify("front", []), /not connected/);
  let end: (verdict: LogVerdict) => void = () => {};
  let fail: (cause: Error) => void = () => {};
  let asked = 0;
  const gate = await world.startGate(control.address, {
    with: {
      onVerify: () =>
        new Promise((resolve, reject) => {
          asked += 1;
          end = resolve;
          fail = reject;
        }),
    },
  });
  await until(() => control.publisher.gates()[0]?.connected, "connected");
  const first = control.publisher.verify("front", anchors);
  await until(() => asked === 1, "asked");
  await assert.rejects(control.publisher.verify("front", anchors), /walked already/);
  end(broken);
  assert.equal((await first).ok, false);
  const second = control.publisher.verify("front", anchors);
  const failed = assert.rejects(second, /the disk is gone/);
  await until(() => asked === 2, "asked again");
  fail(new Error("the disk is gone"));
  await failed;
  const third = assert.rejects(control.publisher.verify("front", anchors));
  await gate.subscription.close();
  await third;
});
