import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { refusals } from "../../src/model/refusal.ts";

const page = readFileSync(
  join(import.meta.dirname, "..", "..", "docs", "troubleshooting.md"),
  "utf8",
);

test("every refusal has a line in docs/troubleshooting.md", () => {
  const missing = Object.keys(refusals).filter((code) => !page.includes(`\`${code}\``));
  assert.deepEqual(missing, []);
});

test("docs/troubleshooting.md explains no refusal that does not exist", () => {
  const [, table = ""] = page.split("## The gate answers with an error");
  const rows = (table.split("\n## ")[0] ?? "").matchAll(/^\| (`[^|]+`) \|/gm);
  const named = [...rows].flatMap(([, cell = ""]) => cell.replaceAll("`", "").split(", "));
  assert.ok(named.length > 20);
  assert.deepEqual(
    named.filter((code) => !(code in refusals)),
    [],
  );
});
