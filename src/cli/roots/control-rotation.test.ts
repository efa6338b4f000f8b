import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLog } from "../../base/log.ts";
import type { HeldRoots } from "../../feed/needs.ts";
import type { GateStatus } from "../../feed/publish/publisher.ts";
import type { RotationState } from "../../model/issued.ts";
import { createRotation } from "./control-rotation.ts";

const root = (fingerprint: string) => ({
  id: fingerprint,
  fingerprint,
  createdMs: 0,
  notAfterMs: 1,
});
const steady: RotationState = { step: "steady", active: root("b") };
const prepared: RotationState = { step: "prepared", active: root("a"), next: root("b") };
const activated: RotationState = { step: "activated", active: root("b"), previous: root("a") };
const plane = (leaf: string | null, ...trusted: string[]) => ({ leaf, trusted });

function rotationOf(
  before: RotationState,
  options: { refuses?: boolean; held?: HeldRoots; away?: GateStatus[] } = {},
) {
  const seen: string[] = [];
  const raised: string[] = [];
  const { held, away = [] } = options;
  let state = before;
  const step = (name: string) => async () => {
    seen.push(name);
    if (options.refuses) throw Object.assign(new Error("not now"), { code: "too_early" });
    state = name === "prepare" ? prepared : name === "activate" ? activated : steady;
    return state;
  };
  const authority = {
    rotation: () => state,
    prepare: step("prepare"),
    activate: step("activate"),
    retire: step("retire"),
    issuers: () => [],
  };
  const rotation = createRotation({
    authorities: { control: authority, data: authority },
    clock: () => 7,
    log: silentLog,
    makeRoom: () => void seen.push("room"),
    swapRoots: () => void seen.push("roots"),
    refresh: [
      async () => {
        seen.push("own leaf");
        throw new Error("database or disk is full");
      },
      async () => void seen.push("admin's leaf"),
    ],
    publisher: () => ({
      tellRoots: () => void seen.push("tell"),
      renewAll: () => void seen.push("renew"),
      gates: () => away,
      unlike: async (satisfies) => (satisfies(held) ? [] : ["front"]),
    }),
    raise: (warning) => void raised.push(`${warning.severity} ${warning.says}`),
    waits: { followMs: 0, cutMs: 0 },
  });
  return { rotation, seen, raised };
}

const followed: HeldRoots = { control: plane("b", "b"), data: plane("b", "b") };

test("gates are told before the step and after it, and what fails afterwards undoes nothing", async () => {
  const { rotation, seen, raised } = rotationOf(activated, { held: followed });
  const { authorities, behind } = await rotation.rotate(["control"], "retire", { force: true });
  assert.deepEqual(authorities, [{ plane: "control", ...steady }]);
  assert.deepEqual(behind, []);
  assert.deepEqual(raised, []);
  const step = ["room", "retire", "roots", "own leaf", "admin's leaf"];
  assert.deepEqual(seen, ["tell", ...step, "tell", "renew"]);
  assert.equal(rotation.lastMs(), 7);
});

test("a step that is refused changes nothing, and nobody waits for it", async () => {
  const { rotation, seen } = rotationOf(steady, { refuses: true });
  await assert.rejects(rotation.rotate(["data"], "activate", { force: false }), /not now/);
  assert.deepEqual(seen, ["room", "activate"]);
  assert.equal(rotation.lastMs(), 0);
});

test("a gate that did not follow is named, warned of, and well again when it has", async () => {
  const rows: [
    claim: string,
    before: RotationState,
    held: HeldRoots | undefined,
    warned: RegExp,
  ][] = [
    ["it says nothing", prepared, undefined, /did not follow/],
    [
      "it does not know the next root",
      prepared,
      { control: plane("a", "a"), data: plane("a", "a") },
      /did not follow/,
    ],
    [
      "its leaf is the old root's",
      activated,
      { control: plane("b", "b"), data: plane("a", "b") },
      /did not follow/,
    ],
    [
      "it trusts what was retired",
      activated,
      { control: plane("b", "b"), data: plane("b", "a", "b") },
      /has not confirmed/,
    ],
  ];
  for (const [claim, before, held, warned] of rows) {
    const { rotation, raised } = rotationOf(before, held ? { held } : {});
    const step = before === prepared ? "activate" : "retire";
    const { behind } = await rotation.rotate(["control", "data"].slice(1) as ["data"], step, {
      force: true,
    });
    assert.deepEqual(behind, ["front"], claim);
    assert.match(raised.at(-1) ?? "", warned, claim);
    if (held) rotation.heard("front", held);
    assert.doesNotMatch(raised.at(-1) ?? "", /^info/, claim);
    rotation.heard("front", followed);
    assert.match(raised.at(-1) ?? "", /^info .*by now/, claim);
  }
});

test("a gate that is away is named, and told when it comes", async () => {
  const east: GateStatus = {
    name: "east",
    connected: false,
    running: null,
    addresses: [],
    servedNames: [],
    counters: {},
  };
  const { rotation, raised } = rotationOf(activated, { held: followed, away: [east] });
  const { behind } = await rotation.rotate(["control", "data"], "retire", { force: true });
  assert.deepEqual(behind, ["east"]);
  assert.match(raised[0] ?? "", /^critical gate east is away/);
});
