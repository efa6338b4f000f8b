import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { Command } from "commander";
import { commands } from "./commands.ts";

const main = join(import.meta.dirname, "main.ts");

/** Commands that do something themselves; others only hold subcommands. */
function doing(command: Command, path: string): [path: string, command: Command][] {
  const below = command.commands.flatMap((sub) => doing(sub, `${path} ${sub.name()}`));
  return below.length > 0 && !command.options.some(({ long }) => long === "--json")
    ? below
    : [[path, command], ...below];
}

test("every command that prints something prints JSON when asked to", async () => {
  for (const { name, load } of commands)
    for (const [path, command] of doing((await load()).command(), name))
      assert.ok(
        command.options.some(({ long }) => long === "--json"),
        `${path} has no --json`,
      );
});

function run(cwd: string, ...args: string[]): Promise<{ code: number; out: string; err: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [main, ...args], { cwd }, (error, out, err) =>
      resolve({ code: typeof error?.code === "number" ? error.code : 0, out, err }),
    );
  });
}

test("what is made is told as one document, and nothing is asked", async (t) => {
  const cwd = await mkdtemp(join(tmpdir(), "sallyport-json-"));
  t.after(() => rm(cwd, { recursive: true }));
  const refused = await run(cwd, "init", "--json");
  assert.equal(refused.code, 2);
  assert.match(refused.err, /with --json nothing is asked\nhint: /);
  const made = JSON.parse((await run(cwd, "init", "--json", "--yes")).out);
  assert.deepEqual([made.out, made.services.length], ["sallyport.yaml", 2]);
  assert.equal(JSON.parse((await run(cwd, "schema", "--json")).out).type, "object");
  const { shell, script } = JSON.parse((await run(cwd, "completion", "fish", "--json")).out);
  assert.match(`${shell}: ${script}`, /^fish: [\s\S]*sallyport/);
  const rendered = JSON.parse((await run(cwd, "render", "compose", "--json")).out);
  assert.match(rendered.text, /services:/);
  const file = join("a", "b", "compose.yaml");
  const written = JSON.parse((await run(cwd, "render", "compose", "--json", "--out", file)).out);
  assert.deepEqual([written.out, written.text], [file, undefined]);
  assert.ok((await readFile(join(cwd, file), "utf8")).includes("services:"));
});

test("a place where a file cannot be written is told, with a way out", async (t) => {
  const cwd = await mkdtemp(join(tmpdir(), "sallyport-out-"));
  t.after(() => rm(cwd, { recursive: true }));
  assert.equal((await run(cwd, "init", "--yes")).code, 0);
  const below = join("sallyport.yaml", "x");
  const rows = [
    ["init", "--yes", "--out", below],
    ["render", "compose", "--out", below],
    ["render", "compose", "--out", "."],
    ["token", "create", "--service", "web", "--out", below],
    ...(existsSync("/proc/self") ? [["render", "compose", "--out", "/proc/self/x/y"]] : []),
  ];
  for (const args of rows) {
    const { code, err } = await run(cwd, ...args);
    assert.equal(code, 2, args.join(" "));
    assert.match(err, /error: cannot write .*\nhint: (?!this is a fault)/, args.join(" "));
  }
});

test("what would be refused is refused before anybody is asked", async (t) => {
  const cwd = await mkdtemp(join(tmpdir(), "sallyport-asked-"));
  t.after(() => rm(cwd, { recursive: true }));
  const web = ["token", "create", "--service", "web"];
  const rows: [args: string[], says: RegExp][] = [
    [
      [...web, "--ttl", "99d"],
      /--ttl "99d" is too long: a token lives from 1m to 24h\nhint: write/,
    ],
    [[...web, "--ttl", "59s"], /is too short: a token lives from 1m to 24h/],
    [[...web, "--ttl", "soon"], /is no duration: a token lives from 1m to 24h/],
    [[...web, "--from", "10.0.0.1/8"], /is no range.*\nhint: did you mean 10\.0\.0\.0\/8\?/],
    [["token", "create", "--gate", "G 1"], /--gate "G 1" is no name\nhint: 1 to 63/],
    [["revoke", "--serial", "zz"], /--serial "zz" is no serial\nhint: 1 to 40 hex digits/],
    [["check", "."], /is a directory, not a register\nhint: name the file/],
  ];
  for (const [args, says] of rows) {
    // There is no control plane here: whoever asked it would end in 3.
    const { code, err } = await run(cwd, ...args);
    assert.equal(code, 2, `${args.join(" ")}: ${err}`);
    assert.match(err, says);
  }
});
