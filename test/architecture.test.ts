import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize, relative, sep } from "node:path";
import { test } from "node:test";

/** The architecture, as a table: a folder may import itself and what its row lists. All else is a bug. */
const common = ["policy", "model", "base"] as const;
const organs = ["proxy", "control", "feed", "identity", "audit", "infra"] as const;
const mayImport: Readonly<Record<string, readonly string[]>> = {
  base: [],
  model: ["base"],
  policy: ["model", "base"],
  wire: ["base"],
  proxy: ["wire", ...common],
  control: common,
  feed: common,
  identity: common,
  audit: common,
  infra: common,
  cli: [...organs, ...common],
};

/** Who may touch the world. Everything that is not listed is pure. */
const mayTouch: Readonly<Record<string, readonly string[]>> = {
  "node:(net|tls|https?|http2)": [
    "base/address",
    "proxy/accept",
    "proxy/forward",
    "proxy/ops",
    "identity/enroll",
    "identity/renew",
    "feed/subscribe",
    "control/api",
    "control/join",
    "control/client",
    "cli",
  ],
  "node:fs": ["cli", "audit/hit-log", "control/store", "identity", "feed/subscribe"],
  "node:worker_threads": ["cli/roots", "proxy/pool"],
  "node:child_process": ["cli", "identity/renew"],
  "node:dns": ["proxy/forward", "cli"],
  "node:sqlite": ["control/store", "cli/hold-state"],
  "node:dgram": [],
};

/** Globals that would let time, chance and the environment in by the back door. */
const mayName: Readonly<Record<string, readonly string[]>> = {
  "process\\.env": ["cli"],
  "Date\\.now\\(": ["cli"],
  "Math\\.random\\(": ["cli"],
  "\\bfetch\\(": [],
};

const src = process.env.SRC ?? "src";
const relativeImport = /\bfrom\s+"(\.[^"]+)"|\bimport\s*\(?\s*"(\.[^"]+)"/g;

function sources(folder: string): [path: string, text: string][] {
  return readdirSync(join(src, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts") && !file.endsWith(".test.ts"))
    .map((file) => [join(folder, file), readFileSync(join(src, folder, file), "utf8")]);
}

function isAt(path: string, homes: readonly string[]): boolean {
  return homes.some((home) => path.startsWith(home + sep) || path === `${home}.ts`);
}

for (const [folder, allowed] of Object.entries(mayImport)) {
  test(`${folder} imports only ${allowed.join(", ") || "itself"}`, () => {
    const files = sources(folder);
    assert.ok(files.length > 0, "an empty folder would pass for the wrong reason");
    for (const [path, text] of files) {
      for (const [, from, bare] of text.matchAll(relativeImport)) {
        const file = normalize(join(dirname(path), from ?? bare ?? ""));
        const [target = ""] = file.split(sep);
        assert.ok(target === folder || allowed.includes(target), `${path} imports ${target}`);
        assert.ok(existsSync(join(src, file)), `${path} imports ${file}, which is not there`);
      }
    }
  });
}

for (const [builtin, homes] of Object.entries(mayTouch)) {
  test(`${builtin} is touched only in ${homes.join(", ") || "nothing"}`, () => {
    // Types are free: a pure file may name a Socket, it just cannot make one.
    const touches = new RegExp(`(^import (?!type )[^;]*|import\\()"${builtin}(/[^"]*)?"`, "m");
    for (const [path, text] of sources(".")) {
      assert.ok(isAt(path, homes) || !touches.test(text), `${path} touches ${builtin}`);
    }
  });
}

for (const [name, homes] of Object.entries(mayName)) {
  test(`${name} is named only in ${homes.join(", ") || "nothing"}`, () => {
    const names = new RegExp(name);
    for (const [path, text] of sources(".")) {
      // A comment may speak of it.
      const code = text.replace(/^\s*(\/\/|\/?\*).*$/gm, "");
      assert.ok(isAt(path, homes) || !names.test(code), `${path} names ${name}`);
    }
  });
}

test("every folder has a row", () => {
  const folders = readdirSync(src, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  assert.deepEqual(folders.map((entry) => entry.name).sort(), Object.keys(mayImport).sort());
});

test("a gate loads no code that can see a CA key", () => {
  for (const root of ["gate", "gate-worker"]) {
    const seen = new Set<string>();
    const visit = (file: string): void => {
      if (seen.has(file) || !existsSync(file)) return;
      seen.add(file);
      for (const [, from, bare] of readFileSync(file, "utf8").matchAll(relativeImport))
        visit(normalize(join(dirname(file), from ?? bare ?? "")));
    };
    visit(join(src, "cli", "roots", `${root}.ts`));
    assert.ok(seen.size > 5, `${root} was not found`);
    const forbidden = [...seen].filter((file) =>
      /^(identity\/authority|identity\/issue|control)\//.test(
        relative(src, file).split(sep).join("/"),
      ),
    );
    assert.deepEqual(forbidden, []);
  }
});
