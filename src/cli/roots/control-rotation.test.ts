import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLog } from "../../base/log.ts";
import type { RotationState } from "../../model/issued.ts";
import { createRotation } from "./control-rotation.ts";

const state: RotationState = {
  step: "steady",
  active: { id: "b", fingerprint: "f", createdMs: 0, notAfterMs: 1 },
};

function rotationOf(refuses = false) {
  const seen: string[] = [];
  let told: () => void = () => {};
  const isTold = new Promise<void>((resolve) => {
    told = resolve;
  });
  const step = (name: string) => async () => {
    seen.push(name);
    if (refuses) throw Object.assign(new Error("not now"), { code: "too_early" });
    return state;
  };
  const authority = {
    rotation: () => state,
    prepare: step("prepare"),
    activate: step("activate"),
    retire: step("retire"),
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
    tellGates: told,
  });
  return { rotation, seen, isTold };
}

test("a root that was retired is trusted no more, also where no new leaf can be made", async () => {
  const { rotation, seen, isTold } = rotationOf();
  const status = await rotation.rotate("control", "retire", { force: true });
  assert.deepEqual(status, { plane: "control", ...state });
  assert.deepEqual(seen, ["room", "retire", "roots", "own leaf", "admin's leaf"]);
  assert.equal(rotation.lastMs(), 7);
  await isTold;
});

test("a step that is refused changes nothing", async () => {
  const { rotation, seen } = rotationOf(true);
  await assert.rejects(rotation.rotate("data", "activate", { force: false }), /not now/);
  assert.deepEqual(seen, ["room", "activate"]);
  assert.equal(rotation.lastMs(), 0);
});
