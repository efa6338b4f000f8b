import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { registerOf } from "../../../test/harness/feed-world.ts";
import { parseRegister } from "../../model/register/parse.ts";
import { registerShape } from "./register-shape.ts";

test("every register that the parser makes can travel", async () => {
  const path = "test/fixtures/registers/today.yaml";
  const text = await readFile(new URL(`../../../${path}`, import.meta.url), "utf8");
  const { register } = parseRegister([{ name: path, text }]);
  assert.ok(register);
  const travelled = JSON.parse(JSON.stringify(register));
  const shaped = registerShape.safeParse(travelled);
  assert.equal(shaped.error, undefined);
  assert.deepEqual(shaped.data, travelled);
});

const small = registerOf();
const orders = small.services.orders as object;
const noes: [claim: string, register: unknown][] = [
  ["nothing", null],
  ["another version", { ...small, version: 2 }],
  ["a member of a newer version", { ...small, quotas: {} }],
  ["a trust domain with a path", { ...small, trustDomain: "a/b" }],
  [
    "a service whose name is no name",
    { ...small, services: { "../x": { ...orders, name: "../x" } } },
  ],
  [
    "a rule with a condition that is not known here",
    {
      ...small,
      services: {
        orders: {
          ...orders,
          allow: [{ id: "a", effect: "allow", from: ["web"], ports: ["http"], onlyIf: "x" }],
        },
      },
    },
  ],
  [
    "a rule for nobody",
    {
      ...small,
      services: {
        orders: { ...orders, allow: [{ id: "a", effect: "allow", from: [], ports: ["http"] }] },
      },
    },
  ],
  [
    "a rule of another effect",
    {
      ...small,
      services: {
        orders: {
          ...orders,
          allow: [{ id: "a", effect: "permit", from: ["web"], ports: ["http"] }],
        },
      },
    },
  ],
];
for (const [claim, register] of noes)
  test(`refused: ${claim}`, () => assert.equal(registerShape.safeParse(register).success, false));
