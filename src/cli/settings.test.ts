import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { readDrainMs, renderSettingsDoc, settings } from "./settings.ts";

test("the drain time is milliseconds or a mistake", (t) => {
  const { env } = settings.drainMs;
  const before = process.env[env];
  t.after(() => {
    if (before === undefined) delete process.env[env];
    else process.env[env] = before;
  });
  delete process.env[env];
  assert.equal(readDrainMs(), 30_000);
  process.env[env] = "250";
  assert.equal(readDrainMs(), 250);
  for (const text of ["30s", "-1", "1e3", " 5", "99999999"]) {
    process.env[env] = text;
    assert.throws(() => readDrainMs(), RangeError, text);
  }
});

test("the page lists every setting, and lies where readers find it", () => {
  const page = renderSettingsDoc();
  for (const { env } of Object.values(settings)) assert.match(page, new RegExp(`\`${env}\``));
  const file = "docs/settings.md";
  assert.ok(existsSync(file));
  assert.equal(readFileSync(file, "utf8"), page, "run npm run docs");
});

test("no variable of ours is read without being in the table", () => {
  const known = new Set<string>(Object.values(settings).map(({ env }) => env));
  for (const given of ["SALLYPORT_DIR", "SALLYPORT_PRINCIPAL"]) known.add(given); // to hooks, not read
  for (const file of readdirSync("src", { recursive: true, encoding: "utf8" })) {
    if (!file.endsWith(".ts") || file.endsWith(".test.ts")) continue;
    const text = readFileSync(join("src", file), "utf8");
    for (const [name] of text.matchAll(/\bSALLYPORT_[A-Z_]+\b/g))
      assert.ok(known.has(name), `${file} names ${name}`);
  }
});
