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

const reading: Partial<Rule> = { methods: ["GET"], paths: ["/pub/**"] };
const deny = (fields: Partial<Rule>) => rule({ id: "d", effect: "deny", ...fields });
const examples: [claim: string, allow: Rule[], deny: Rule[], example: string | undefined][] = [
  ["a rule without conditions", [rule({})], [], "GET orders/"],
  ["method and path of the rule", [rule(reading)], [], "GET orders/pub"],
  ["a variable gets a word", [rule({ paths: ["/o/:id"] })], [], "GET orders/o/sallyport-canary"],
  ["HEAD where that is all", [rule({ methods: ["HEAD"] })], [], "HEAD orders/"],
  ["reading comes first", [rule({ methods: ["POST"] }), rule(reading)], [], "GET orders/pub"],
  ["another method where none reads", [rule({ methods: ["DELETE"] })], [], "DELETE orders/"],
  ["the name of another port", [rule({ ports: ["metrics"] })], [], "GET metrics.orders/"],
  ["never what is denied", [rule(reading)], [deny({})], undefined],
  ["below what is denied", [rule({})], [deny({ paths: ["/"] })], "GET orders/sallyport-canary"],
  [
    "the next rule where the first is denied",
    [rule(reading), rule({ paths: ["/b"] })],
    [deny({ paths: ["/pub/**"] })],
    "GET orders/b",
  ],
  [
    "never by a rule for somebody else",
    [rule({ from: ["blog"] }), rule(reading)],
    [],
    "GET orders/pub",
  ],
  [
    "never outside its hours",
    [rule({ hours: { days: [6], startMinute: 0, endMinute: 1, zone: "UTC" } })],
    [],
    undefined,
  ],
];

for (const [claim, allow, denied, wanted] of examples)
  test(`an example that is allowed: ${claim}`, () => {
    const base = registerWith(allow);
    const { orders } = base.services;
    assert.ok(orders);
    const register = {
      ...base,
      services: { ...base.services, orders: { ...orders, deny: denied } },
    };
    const { example } = discover({ register, caller: "web", gates, nowMs: now });
    assert.equal(example && `${example.method} ${example.host}${example.path}`, wanted);
  });
