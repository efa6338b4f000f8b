import assert from "node:assert/strict";
import { test } from "node:test";
import { registerOf } from "../../../test/harness/feed-world.ts";
import type { Register, Rule } from "../../model/register.ts";
import { discover } from "./discover.ts";

const now = 1_000_000;
const rule = (fields: Partial<Rule>): Rule => ({
  id: "r",
  effect: "allow",
  from: ["web"],
  ports: ["http"],
  ...fields,
});

function registerWith(allow: readonly Rule[]): Register {
  const base = registerOf();
  const { web, orders } = base.services;
  assert.ok(web && orders?.ports.http);
  const { http } = orders.ports;
  const ports = {
    http,
    metrics: { ...http, name: "metrics" },
    debug: { ...http, name: "debug", via: "direct" as const },
  };
  return {
    ...base,
    services: { web, blog: { ...web, name: "blog" }, orders: { ...orders, ports, allow } },
  };
}

const gates = [
  { name: "lost", connected: false, addresses: ["10.0.0.1:7443"] },
  { name: "new", connected: true, addresses: [] },
  { name: "front", connected: true, addresses: ["10.0.0.2:7443"] },
];

const rows: [claim: string, caller: string, allow: Rule[], services: string[]][] = [
  ["a rule that names the caller opens the main port's name", "web", [rule({})], ["orders"]],
  ["so does one for everybody", "blog", [rule({ from: ["*"] })], ["orders"]],
  ["another port has a name of its own", "web", [rule({ ports: ["metrics"] })], ["metrics.orders"]],
  ["both", "web", [rule({ ports: ["http", "metrics"] })], ["metrics.orders", "orders"]],
  [
    "a port that is not behind the gate is not called through it",
    "web",
    [rule({ ports: ["debug"] })],
    [],
  ],
  ["a rule for somebody else opens nothing", "blog", [rule({})], []],
  ["a rule that is over opens nothing", "web", [rule({ expiresMs: now })], []],
  ["a rule that is not over yet does", "web", [rule({ expiresMs: now + 1 })], ["orders"]],
  ["nobody who is not registered learns anything", "nobody", [rule({ from: ["*"] })], []],
  ["nor does a name that every object has", "constructor", [rule({ from: ["*"] })], []],
];

for (const [claim, caller, allow, services] of rows)
  test(claim, () => {
    const found = discover({ register: registerWith(allow), caller, gates, nowMs: now });
    assert.deepEqual(found.services, services);
    // Whoever may call nothing does not learn where the gates are either.
    const names = found.gates.map((gate) => gate.name);
    assert.deepEqual(names, services.length > 0 ? ["front", "lost"] : []);
  });
