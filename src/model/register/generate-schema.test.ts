import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { parse } from "yaml";
import { z } from "zod";
import { generateSchema } from "./generate-schema.ts";

const read = (path: string) => readFileSync(new URL(`../../../${path}`, import.meta.url), "utf8");
const schema = z.fromJSONSchema(generateSchema() as Parameters<typeof z.fromJSONSchema>[0]);

test("the shipped schema is the one that the parser's tables give", () => {
  const how = "run npm run docs";
  assert.equal(
    read("schema/sallyport.schema.json"),
    `${JSON.stringify(generateSchema(), null, 2)}\n`,
    how,
  );
});

test("every key an editor offers is explained", () => {
  const visit = (value: unknown, path: string): void => {
    if (typeof value !== "object" || value === null) return;
    const { properties } = value as { properties?: Record<string, { description?: string }> };
    for (const [key, each] of Object.entries(properties ?? {}))
      assert.ok(each.description, `${path}.${key} has no description`);
    for (const [key, each] of Object.entries(value)) visit(each, `${path}.${key}`);
  };
  visit(generateSchema(), "");
});

test("what passes check passes the schema", () => {
  const registers = [
    read("test/fixtures/registers/today.yaml"),
    ...[...read("docs/register.md").matchAll(/```yaml\n([\s\S]*?)```/g)].map(
      (match) => match[1] ?? "",
    ),
  ];
  assert.ok(registers.length > 5);
  for (const text of registers) {
    const result = schema.safeParse(parse(text));
    assert.deepEqual(result.success ? [] : result.error.issues, [], text);
  }
});

const noes: readonly [claim: string, text: string][] = [
  ["an unknown key", "version: 1\ntrustDomain: t\nservices: {}\nservces: {}"],
  ["another version", "version: 2\ntrustDomain: t\nservices: {}"],
  ["a missing trust domain", "version: 1\nservices: {}"],
  ["a service without an owner", "version: 1\ntrustDomain: t\nservices: { web: {} }"],
  ["a bad name", "version: 1\ntrustDomain: t\nservices: { Web: { owner: a } }"],
  [
    "a port in quotes",
    'version: 1\ntrustDomain: t\nservices: { a: { owner: a, ports: { x: { port: "1" } } } }',
  ],
  [
    "what is not supported yet",
    "version: 1\ntrustDomain: t\nservices: { a: { owner: a, edge: {} } }",
  ],
];
for (const [claim, text] of noes)
  test(`an editor underlines ${claim}`, () =>
    assert.equal(schema.safeParse(parse(text)).success, false));
