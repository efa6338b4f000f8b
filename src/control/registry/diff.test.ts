import assert from "node:assert/strict";
import { test } from "node:test";
import type { Register } from "../../model/register.ts";
import { checkRegister } from "../../policy/lint/check-register.ts";
import { describeChange, diffRegisters } from "./diff.ts";

const base = `version: 1
trustDomain: shop.internal
networks: { mesh: ["10.20.0.0/16"] }
services:
  web: { owner: storefront }
  billing: { owner: finance }
  orders:
    owner: commerce
    ports:
      http: { protocol: http, upstreams: ["127.0.0.1:9001"] }
    allow:
      - { id: one, from: web, methods: [GET], paths: ["/orders/**"] }
      - { id: two, from: billing, methods: [GET] }
`;

function read(text: string): Register {
  const { register, problems } = checkRegister([{ name: "sallyport.yaml", text }], Date.now());
  assert.ok(register, JSON.stringify(problems));
  return register;
}

function lines(before: string, after: string): string[] {
  return diffRegisters(read(before), read(after)).map(describeChange);
}

const rows: [claim: string, from: RegExp | string, to: string, expected: string[]][] = [
  ["nothing is nothing", "one", "one", []],
  [
    "moving a service says nothing",
    "  web: { owner: storefront }\n  billing: { owner: finance }\n",
    "  billing: { owner: finance }\n  web: { owner: storefront }\n",
    [],
  ],
  [
    "a value by its path",
    "methods: [GET], paths",
    "methods: [GET, PUT], paths",
    ['~ services.orders.allow[one].methods: ["GET"] → ["GET","PUT"]'],
  ],
  [
    "a service comes whole",
    "  orders:\n",
    "  new: { owner: x }\n  orders:\n",
    [
      '+ services.new: {"name":"new","owner":"x","ports":{},"audit":"required","accept":{"encodedSlash":false,"underscoreHeaders":false,"userHeaders":false}}',
    ],
  ],
  [
    "a rule goes whole",
    /\n {6}- \{ id: two.*\}/,
    "",
    [
      '- services.orders.allow[two]: {"id":"two","effect":"allow","from":["billing"],"ports":["http"],"methods":["GET"]}',
    ],
  ],
  [
    "rules that change places are told by their ids",
    / {6}- \{ id: one(.*)\n {6}- \{ id: two(.*)\n/,
    "      - { id: two$2\n      - { id: one$1\n",
    ['~ services.orders.allow: ["one","two"] → ["two","one"]'],
  ],
  [
    "an upstream as people write it",
    "127.0.0.1:9001",
    "127.0.0.1:9002",
    ['~ services.orders.ports.http.upstreams: ["127.0.0.1:9001"] → ["127.0.0.1:9002"]'],
  ],
  [
    "what was not there before is added",
    "id: one, ",
    "id: one, limit: { rate: 5/s, burst: 2 }, ",
    [
      "+ services.orders.allow[one].limit.count: 5",
      "+ services.orders.allow[one].limit.perMs: 1000",
      "+ services.orders.allow[one].limit.burst: 2",
    ],
  ],
  [
    "a network",
    "10.20.0.0/16",
    "10.21.0.0/16",
    ['~ networks.mesh: ["10.20.0.0/16"] → ["10.21.0.0/16"]'],
  ],
];

for (const [claim, from, to, expected] of rows)
  test(claim, () => assert.deepEqual(lines(base, base.replace(from, to)), expected));

test("a first register is told whole, service by service", () => {
  const changes = diffRegisters(undefined, read(base));
  assert.ok(changes.every(({ kind }) => kind === "added"));
  assert.ok(changes.some(({ path }) => path === "services.orders"));
  assert.ok(changes.some(({ path }) => path === "trustDomain"));
});

test("names that every object has are names like any other", () => {
  const register = read(base);
  const { web } = register.services;
  const odd = { ...register, services: { ...register.services, constructor: web } } as Register;
  assert.deepEqual(
    diffRegisters(register, odd).map(({ path, kind }) => `${kind} ${path}`),
    ["added services.constructor"],
  );
});
