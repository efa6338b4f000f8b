import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { Command } from "commander";
import { commands } from "../../src/cli/commands.ts";
import { completionScript, shells } from "../../src/cli/completion-script.ts";
import { skipOutsideCi } from "../harness/skip-outside-ci.ts";

/** Every command and subcommand, as it is typed. */
async function everyCommand(): Promise<{ typed: string; help: string; made: Command }[]> {
  const all: { typed: string; help: string; made: Command }[] = [];
  const visit = (made: Command, before: string): void => {
    const typed = `${before} ${made.name()}`;
    const pieces: string[] = [];
    made.configureOutput({ writeOut: (text) => void pieces.push(text) }).outputHelp();
    all.push({ typed, help: pieces.join(""), made });
    for (const sub of made.commands) visit(sub, typed);
  };
  for (const entry of commands) visit((await entry.load()).command(), "sallyport");
  return all;
}

const all = await everyCommand();

for (const { typed, help, made } of all) {
  test(`${typed} --help has examples, exit codes and a description`, () => {
    assert.match(help, /^Examples:\n {2}\S/m);
    assert.match(help, /Exit code: 0/);
    assert.ok(made.description().length > 10);
  });

  test(`the examples of ${typed} name commands and options that exist`, () => {
    for (const line of help.slice(help.indexOf("Examples:")).matchAll(/^ {2}.*?(sallyport .+)$/gm))
      for (const piece of (line[1] ?? "").split(/[|>]|&&/)) assertExists(piece.trim());
  });
}

/** Fails on a command that is not there, or an option that its command does not have. */
function assertExists(line: string): void {
  const [program, ...words] = line.replaceAll(/"[^"]*"/g, "TEXT").split(/\s+/);
  if (program !== "sallyport") return;
  let here = all.find(({ typed }) => typed === `sallyport ${words[0]}`)?.made;
  assert.ok(here, `${line}: there is no such command`);
  const sub = here.commands.find((each) => each.name() === words[1]);
  here = sub ?? here;
  const known = [...here.options, ...(here.parent?.options ?? [])].flatMap(({ long, short }) => [
    long,
    short,
  ]);
  for (const word of words.filter((each) => /^--?[a-z]/.test(each)))
    assert.ok([...known, "--help"].includes(word), `${line}: there is no ${word}`);
}

const launcher = join(import.meta.dirname, "..", "..", "bin", "sallyport.js");

type Ran = { code: number; stdout: string; stderr: string };

function run(args: readonly string[], env: Record<string, string> = {}): Promise<Ran> {
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [launcher, ...args],
      { env: { ...process.env, ...env }, cwd: "/" },
      (error, stdout, stderr) =>
        resolve({ code: typeof error?.code === "number" ? error.code : 0, stdout, stderr }),
    );
  });
}

test("sallyport --help lists every command, and ends in examples", async () => {
  const { code, stdout } = await run(["--help"]);
  assert.equal(code, 0);
  for (const { name, hidden } of commands)
    if (!hidden) assert.match(stdout, new RegExp(`^  ${name}\\b`, "m"));
  assert.match(stdout, /^Examples:/m);
});

test("--help of a command comes from the launcher with exit code 0", async () => {
  const { code, stdout, stderr } = await run(["token", "create", "--help"]);
  assert.deepEqual([code, stderr], [0, ""]);
  assert.match(stdout, /--out NAME\.token|--out web\.token/);
});

const slips: [what: string, args: string[], code: number, says: RegExp][] = [
  ["no command", [], 2, /Usage: sallyport/],
  ["a mistyped command", ["chek"], 2, /Did you mean check\?[\s\S]*hint: sallyport --help/],
  [
    "a mistyped subcommand",
    ["token", "craete"],
    2,
    /Did you mean create\?[\s\S]*hint: sallyport token/,
  ],
  [
    "a mistyped option",
    ["hits", "--folow"],
    2,
    /Did you mean --follow\?[\s\S]*hint: sallyport hits/,
  ],
  ["a missing argument", ["explain", "web"], 2, /hint: sallyport explain --help/],
  ["no register", ["check"], 2, /hint: run "sallyport init"/],
  ["no control plane known", ["status"], 3, /hint: start one with sallyport up/],
  ["no hit log", ["hits"], 2, /no \.sallyport here or above[\s\S]*hint: sallyport up/],
  ["nobody to ask", ["init"], 2, /hint: say --service/],
  ["no such port", ["init", "--service", "a=99999"], 2, /1 to 65535[\s\S]*hint: --service a=9001/],
  ["no token", ["enroll", "--out", "x"], 2, /hint: make one with sallyport token create/],
];
for (const [what, args, code, says] of slips)
  test(`${what} ends in a next step`, async () => {
    const ran = await run(args);
    assert.equal(ran.code, code);
    assert.match(ran.stderr, says);
    assert.equal(ran.stdout, "");
  });

test("completions offer every command and none of the hidden options", async () => {
  for (const shell of shells) {
    const { stdout } = await run(["completion", shell]);
    for (const { name, hidden } of commands)
      assert.equal(new RegExp(`\\b${name}\\b`).test(stdout), !hidden, `${shell}: ${name}`);
    assert.doesNotMatch(stdout, /--token(?!-file)\b/);
  }
  assert.ok(completionScript("bash", []).startsWith("# bash"));
});

test("a terminal gets colours, and none where NO_COLOR is set", async (t) => {
  const terminal = "script"; // script(1) runs a command in a terminal of its own
  if (spawnSync(terminal, ["--version"]).status !== 0) return skipOutsideCi(t, "needs script(1)");
  const folder = mkdtempSync(join(tmpdir(), "sallyport-help-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const typed = (line: string) => `${process.execPath} ${launcher} ${line}`;
  const inTerminal = (line: string, env: Record<string, string> = {}) =>
    spawnSync(terminal, ["-qec", typed(line), "/dev/null"], {
      cwd: folder,
      env: {
        ...process.env,
        TERM: "xterm",
        CI: undefined,
        NO_COLOR: undefined,
        FORCE_COLOR: undefined,
        ...env,
      },
      encoding: "utf8",
    }).stdout;
  inTerminal("init --yes");
  const colour = String.fromCharCode(27);
  assert.ok(inTerminal("explain web GET orders/").includes(colour));
  assert.ok(!inTerminal("explain web GET orders/", { NO_COLOR: "1" }).includes(colour));
});
