import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { checkRegister } from "../src/policy/lint/check-register.ts";

const root = join(import.meta.dirname, "..");
const pages = [
  "README.md",
  ...readdirSync(join(root, "docs"))
    .filter((name) => name.endsWith(".md"))
    .map((name) => `docs/${name}`),
].filter((name) => existsSync(join(root, name)));

for (const page of pages) {
  const text = readFileSync(join(root, page), "utf8");
  for (const match of text.matchAll(/^( *)```ya?ml[^\n]*\n([\s\S]*?)^ *```/gm)) {
    const [, indent = "", block = ""] = match;
    if (!/^ *version: 1\b/m.test(block)) continue;
    const line = text.slice(0, match.index).split("\n").length;
    const register = block.replaceAll(new RegExp(`^${indent}`, "gm"), "");
    test(`${page}:${line} prints a register that passes check`, () => {
      const { problems } = checkRegister(
        [{ name: page, text: register }],
        Date.parse("2026-11-22"),
      );
      assert.deepEqual(
        problems.filter((problem) => problem.severity === "error"),
        [],
      );
    });
  }
}

test("the reference prints registers at all", () => {
  assert.match(readFileSync(join(root, "docs", "register.md"), "utf8"), /```yaml\nversion: 1/);
});
