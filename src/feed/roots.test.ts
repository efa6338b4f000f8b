import assert from "node:assert/strict";
import { test } from "node:test";
import { startFeedWorld, until } from "../../test/harness/feed-world.ts";
import type { HeldRoots, Roots } from "./needs.ts";

const name = (letter: string) => letter.repeat(43);
const plane = (active: string, ...trusted: string[]) => ({ active, trusted });
const heldPlane = (leaf: string | null, ...trusted: string[]) => ({ leaf, trusted });

test("a gate is told of the roots with each connection and each change, and says what it has come to", async (t) => {
  const world = await startFeedWorld(t);
  let roots: Roots = {
    control: plane(name("a"), name("a"), name("b")),
    data: plane(name("a"), name("a"), name("b")),
  };
  const heard: [string, HeldRoots][] = [];
  const control = await world.startControl({
    latest: world.sign(1),
    with: { roots: () => roots, onRoots: (gate, held) => heard.push([gate, held]) },
  });
  const told: Roots[] = [];
  let held: HeldRoots | undefined;
  const gate = await world.startGate(control.address, {
    with: { onRoots: (next) => told.push(next), heldRoots: () => held },
  });
  await until(() => told.length === 1, "told with the connection");
  assert.deepEqual(told[0], roots);
  const knowsB = (one: HeldRoots | undefined) => one?.data.trusted.includes(name("b")) === true;
  assert.deepEqual(await control.publisher.unlike(knowsB, 0), ["front"], "it has said nothing");

  const waiting = control.publisher.unlike(knowsB, 10_000);
  held = {
    control: heldPlane(name("a"), name("a"), name("b")),
    data: heldPlane(null, name("b")),
  };
  gate.subscription.rootsChanged();
  assert.deepEqual(await waiting, []);
  assert.deepEqual(heard, [["front", held]]);

  roots = { control: plane(name("b"), name("b")), data: plane(name("b"), name("b")) };
  control.publisher.tellRoots();
  await until(() => heard.length === 2, "answered, although nothing has changed");
  assert.deepEqual(told[1], roots);

  await gate.subscription.close();
  await until(() => control.publisher.gates()[0]?.connected === false, "gone");
  assert.deepEqual(await control.publisher.unlike(() => false, 0), [], "only who is connected");
});
