import assert from "node:assert/strict";
import { test } from "node:test";
import type { Rule, Service } from "../model/register.ts";
import { assembleView, compileService } from "./compile.ts";
import { SlotsExhausted, SlotTable } from "./slots.ts";
import type { View } from "./view.ts";

const limit = { count: 1, perMs: 1000, burst: 1 };

function viewOf(slots: SlotTable, version: number, from: readonly string[], epoch = 1): View {
  const rule: Rule = { id: "r", effect: "allow", from, ports: ["http"], limit };
  const service: Service = {
    name: "orders",
    owner: "commerce",
    hosts: [],
    ports: {
      http: {
        name: "http",
        protocol: "http",
        via: "gate",
        exposure: "internal",
        upstreams: [],
        timeouts: { connectMs: 1, responseHeadMs: 1, idleMs: 1 },
      },
    },
    allow: from.length > 0 ? [rule] : [],
    deny: [],
    audit: "required",
    accept: { encodedSlash: false, underscoreHeaders: false, userHeaders: false },
  };
  const compiled = compileService(service, ["a", "b", "c"], (...pair) => slots.slotFor(...pair));
  const view = assembleView({ epoch, version, at: 0, trustDomain: "t", revocations: [] }, [
    compiled,
  ]);
  slots.keep(view);
  return view;
}

test("a pair keeps its slot, and every pair has one of its own", () => {
  const slots = new SlotTable(8);
  assert.equal(slots.slotFor("orders/r", "a"), slots.slotFor("orders/r", "a"));
  const all = [
    slots.slotFor("orders/r", "a"),
    slots.slotFor("orders/r", "b"),
    slots.slotFor("orders/s", "a"),
    slots.slotFor("billing/r", "a"),
  ];
  assert.equal(new Set(all).size, 4);
});

test("a slot is freed only when every worker confirmed a view without it", () => {
  const slots = new SlotTable(2);
  viewOf(slots, 1, ["a", "b"]);
  const b = slots.slotFor("orders/r", "b");
  viewOf(slots, 2, ["a"]);
  assert.throws(() => viewOf(slots, 3, ["a", "c"]), SlotsExhausted);
  assert.deepEqual(slots.retire({ epoch: 1, version: 1 }), []);
  assert.deepEqual(slots.retire({ epoch: 1, version: 2 }), [b]);
  viewOf(slots, 3, ["a", "c"]);
  assert.equal(slots.slotFor("orders/r", "c"), b);
});

test("a pair that comes back before that has its old slot, and keeps it", () => {
  const slots = new SlotTable(4);
  viewOf(slots, 1, ["a", "b"]);
  const b = slots.slotFor("orders/r", "b");
  viewOf(slots, 2, ["a"]);
  viewOf(slots, 3, ["a", "b"]);
  assert.deepEqual(slots.retire({ epoch: 1, version: 3 }), []);
  assert.equal(slots.slotFor("orders/r", "b"), b);
});

test("a new epoch is later than any version of the old one", () => {
  const slots = new SlotTable(4);
  viewOf(slots, 9, ["a"]);
  viewOf(slots, 1, [], 2);
  assert.deepEqual(slots.retire({ epoch: 1, version: 99 }), []);
  assert.equal(slots.retire({ epoch: 2, version: 1 }).length, 1);
  assert.equal(slots.size, 0);
});

test("slots of a snapshot that was refused are found again by the next one", () => {
  const slots = new SlotTable(1);
  slots.slotFor("orders/never-published", "a");
  viewOf(slots, 1, []);
  slots.retire({ epoch: 1, version: 1 });
  assert.equal(slots.slotFor("orders/r", "a"), 0);
});

test("a limit for everybody takes a slot for every registered service", () => {
  const slots = new SlotTable(8);
  viewOf(slots, 1, ["*"]);
  assert.equal(slots.size, 3);
});
