import assert from "node:assert/strict";
import { execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { after, before, test } from "node:test";
import { skipOutsideCi } from "./harness/skip-outside-ci.ts";

const root = join(import.meta.dirname, "..");
const scratch = mkdtempSync(join(tmpdir(), "sallyport-package-"));
after(() => rmSync(scratch, { recursive: true, force: true, maxRetries: 10 }));

type Ran = { code: number; stdout: string; stderr: string };

function run(program: string, args: readonly string[], cwd: string, path = ""): Promise<Ran> {
  const env = { ...process.env, PATH: [path, process.env.PATH].filter(Boolean).join(delimiter) };
  return new Promise((resolve) => {
    execFile(program, args, { cwd, env, timeout: 120_000 }, (error, stdout, stderr) =>
      resolve({ code: error ? Number(error.code ?? 1) : 0, stdout, stderr }),
    );
  });
}

const programs = join(root, "node_modules", ".bin");
const app = join(scratch, "app");
const installed = join(app, "node_modules", "sallyport");
const launcher = join("bin", "sallyport.js");
let tarball = "";

/** Packs a copy, so that no build is left in the clone, and installs what came out as a user would. */
before(async () => {
  const copy = join(scratch, "copy");
  mkdirSync(copy);
  for (const name of readdirSync(root))
    if (!["node_modules", "dist", ".git", ".sallyport", "bench", "test"].includes(name))
      cpSync(join(root, name), join(copy, name), { recursive: true });
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));
  const packed = await run("npm", ["pack", "--pack-destination", scratch], copy, programs);
  assert.equal(packed.code, 0, packed.stdout + packed.stderr);
  tarball = join(scratch, readdirSync(scratch).find((name) => name.endsWith(".tgz")) ?? "");
  mkdirSync(app);
  writeFileSync(join(app, "package.json"), '{ "private": true }');
  const flags = ["--prefer-offline", "--no-audit", "--no-fund"];
  const added = await run("npm", ["install", ...flags, tarball], app, programs);
  assert.equal(added.code, 0, added.stderr);
});

test("the package holds what runs and what is read, and no sources or tests", () => {
  assert.deepEqual(readdirSync(installed).sort(), [
    ...["CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md"],
    ...["bin", "dist", "docs", "package.json", "schema"],
  ]);
  const files = readdirSync(join(installed, "dist"), { recursive: true }).map(String);
  assert.deepEqual(
    files.filter((name) => /\.test\.|\.ts$|\.map$/.test(name)),
    [],
  );
  assert.ok(files.length > 150);
});

test("no file of the package imports or starts a .ts file", () => {
  for (const name of readdirSync(join(installed, "dist"), { recursive: true }).map(String)) {
    if (!name.endsWith(".js")) continue;
    const text = readFileSync(join(installed, "dist", name), "utf8");
    assert.doesNotMatch(text, /(?:from|import\(|new URL\()\s*["'][^"']*\.ts["']/, name);
  }
});

test("the installed package brings everything up, and its proof holds", async () => {
  const bin = join(app, "node_modules", ".bin", "sallyport");
  const ran = await run(bin, ["up", "--demo", "--once", "--json"], app, programs);
  assert.equal(ran.code, 0, ran.stderr);
  const { attempts } = JSON.parse(ran.stdout) as { attempts: { name: string; held: boolean }[] };
  assert.ok(attempts.length >= 16);
  assert.deepEqual(
    attempts.filter(({ held }) => !held),
    [],
  );
});

test("the installed package finds its version and its schema", async () => {
  const bin = join(app, "node_modules", ".bin", "sallyport");
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  assert.equal((await run(bin, ["--version"], app, programs)).stdout.trim(), version);
  const schema = await run(bin, ["schema"], app, programs);
  const shipped = join(installed, "schema", "sallyport.schema.json");
  assert.deepEqual(JSON.parse(schema.stdout), JSON.parse(readFileSync(shipped, "utf8")));
});

for (const [tool, args] of [
  ["publint", ["run"]],
  // A command line has no exports and needs no types; attw looks at what is there all the same.
  ["attw", ["--profile", "esm-only"]],
] as const)
  test(`${tool} has nothing against the package`, async () => {
    const ran = await run(join(programs, tool), [...args, tarball], app, programs);
    assert.equal(ran.code, 0, ran.stdout + ran.stderr);
  });

/** A real older Node where this machine has one, else ours that says it is one. */
function olderNode(): string[] {
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    const node = join(folder, "node");
    if (!existsSync(node)) continue;
    if (Number(execFileSync(node, ["-p", "process.versions.node"]).toString().split(".")[0]) < 22)
      return [node];
  }
  const says = "{ value: { ...process.versions, node: '20.20.2' } }";
  const disguise = `Object.defineProperty(process, "versions", ${says})`;
  return [process.execPath, "--import", `data:text/javascript,${encodeURIComponent(disguise)}`];
}

const [older = "", ...olderArgs] = olderNode();

test("the installed package tells an older Node in one sentence what it needs", async () => {
  const ran = await run(older, [...olderArgs, join(installed, launcher), "up", "--demo"], app);
  assert.deepEqual([ran.code, ran.stdout], [2, ""]);
  assert.match(
    ran.stderr,
    /^sallyport needs Node 24 or newer, and this is Node \d+\.\d+\.\d+\.\n$/,
  );
});

test("in a clone an older Node hands over to the clone's own, with arguments and exit code", async () => {
  if (!existsSync(join(programs, "node"))) return;
  const good = await run(older, [...olderArgs, join(root, launcher), "settings", "--json"], app);
  assert.equal(good.code, 0, good.stderr);
  assert.ok(JSON.parse(good.stdout).length > 3);
  const bad = await run(older, [...olderArgs, join(root, launcher), "check", "nothing.yaml"], app);
  assert.equal(bad.code, 2);
  assert.match(bad.stderr, /there is no file nothing\.yaml/);
});

test("who ends the older Node by its id ends everything, in order", async (t) => {
  if (!existsSync(join(programs, "node")))
    return skipOutsideCi(t, "this platform has no Node in the clone");
  const shop = join(scratch, "shop");
  mkdirSync(shop);
  const doors = ["control", "join", "ops", "data"].map((it) => `${it}: { bind: "127.0.0.1:0" }`);
  writeFileSync(
    join(shop, "sallyport.yaml"),
    `version: 1\ntrustDomain: shop.internal\nplanes: { ${doors.join(", ")} }\nservices: { web: { owner: me } }\n`,
  );
  const args = [...olderArgs, join(root, launcher), "up", "--json"];
  const up = spawn(older, args, { cwd: shop, stdio: ["ignore", "pipe", "pipe"] });
  t.after(() => void up.kill("SIGKILL"));
  let said = "";
  up.stderr.setEncoding("utf8").on("data", (piece: string) => {
    said += piece;
  });
  const isUp = await Promise.race([once(up.stdout, "data"), once(up, "close").then(() => false)]);
  assert.ok(isUp, said);
  up.kill("SIGTERM");
  const [code] = await once(up, "close");
  assert.equal(code, 0, said);
  assert.match(said, /draining/);
});

test("a clone without npm ci says so, whatever the Node", async () => {
  const clone = join(scratch, "clone");
  mkdirSync(join(clone, "src", "cli"), { recursive: true });
  cpSync(join(root, "bin"), join(clone, "bin"), { recursive: true });
  cpSync(join(root, "package.json"), join(clone, "package.json"));
  writeFileSync(join(clone, "src", "cli", "main.ts"), "");
  for (const node of [[process.execPath], [older, ...olderArgs]]) {
    const ran = await run(node[0] ?? "", [...node.slice(1), join(clone, launcher), "up"], app);
    assert.deepEqual([ran.code, ran.stdout], [2, ""]);
    assert.match(ran.stderr, /^sallyport .*"npm ci" in .*\.\n$/);
  }
});

test("npm ci accepts the lockfile: every optional package that is named has an entry", () => {
  const { packages } = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as {
    packages: Record<string, { optionalDependencies?: Record<string, string> }>;
  };
  for (const [place, entry] of Object.entries(packages))
    for (const name of Object.keys(entry.optionalDependencies ?? {})) {
      const found = packages[`node_modules/${name}`] ?? packages[`${place}/node_modules/${name}`];
      assert.ok(found, `${name} is missing: node tools/complete-lock.ts adds it`);
    }
});

test("the lockfile names no registry of anybody's", () => {
  const text = readFileSync(join(root, "package-lock.json"), "utf8");
  assert.doesNotMatch(text, /"resolved": "(?!tools\/)/);
});
