import assert from "node:assert/strict";
import { test } from "node:test";
import type { Anchor } from "../../control/store/store.ts";
import { openAnchors } from "./control-anchors.ts";

const head = (chain: string, sequence: number) => ({ chain, sequence, head: `${sequence}` });

/** A store that can refuse to write, and what it holds. */
async function world() {
  const held = new Map<string, number>();
  const state = { isFull: false, isLeaving: false, left: [head("own-old", 9)] };
  const anchors = await openAnchors({
    store: {
      anchors: async () => [],
      async saveAnchors(list: readonly Anchor[]) {
        if (state.isFull) throw new Error("the disk is full");
        for (const { source, chain, sequence } of list) held.set(`${source} ${chain}`, sequence);
        return [];
      },
    },
    clock: () => 1,
    own: {
      name: "control/control",
      heads: () => [head("own", 3), ...state.left],
      kept(list) {
        state.left = state.left.filter(({ chain }) => !list.some((one) => one.chain === chain));
      },
    },
    raise: (warning) => assert.fail(warning.says),
    isLeaving: () => state.isLeaving,
  });
  return { anchors, held, state };
}

test("what cannot be stored is confirmed to nobody, and stored the next time, never older than what came since", async () => {
  const { anchors, held, state } = await world();
  const kept: string[] = [];
  state.isFull = true;
  anchors.heard("front", [head("living", 5), head("dead", 7)], () => kept.push("front"));
  anchors.heard("back", [head("dead", 1)]);
  await assert.rejects(anchors.keep(), /full/);
  assert.deepEqual([kept, state.left.length, held.size], [[], 1, 0]);
  anchors.heard("front", [head("living", 6)]);
  state.isFull = false;
  await anchors.keep();
  assert.deepEqual(Object.fromEntries(held), {
    "gate/front living": 6,
    "gate/front dead": 7,
    "gate/back dead": 1,
    "control/control own": 3,
    "control/control own-old": 9,
  });
  assert.deepEqual([kept, state.left], [["front"], []]);
  await anchors.keep();
  assert.deepEqual(kept, ["front"], "once");
});

test("of one gate the latest is told, and nobody once nothing is stored any more", async () => {
  const { anchors, held, state } = await world();
  const kept: string[] = [];
  for (const name of ["first", "second"])
    anchors.heard("front", [head("dead", 7)], () => kept.push(name));
  state.isLeaving = true;
  await anchors.keep();
  assert.deepEqual([kept, held.size], [[], 0]);
  state.isLeaving = false;
  await anchors.keep();
  assert.deepEqual(kept, ["second"]);
});
