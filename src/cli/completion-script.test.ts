import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { type Completed, completionScript, isShell } from "./completion-script.ts";

const commands: readonly Completed[] = [
  { name: "up", summary: "run it, and don't stop", options: ["--state", "--json"], words: [] },
  { name: "render", summary: "write files", options: [], words: ["compose"] },
];

/** What bash offers for a line whose last word is being written. */
function offered(words: readonly string[]): readonly string[] {
  const script = `${completionScript("bash", commands)}
COMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")})
COMP_CWORD=${words.length - 1}
_sallyport
printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr } = spawnSync("bash", ["-c", script], { encoding: "utf8" });
  assert.equal(stderr, "");
  return stdout.split("\n").filter(Boolean);
}

const rows: readonly (readonly [
  claim: string,
  words: readonly string[],
  expected: readonly string[],
])[] = [
  ["names", ["sallyport", ""], ["up", "render", "--help", "--version"]],
  ["names that begin so", ["sallyport", "re"], ["render"]],
  ["options", ["sallyport", "up", "--s"], ["--state"]],
  ["subcommands", ["sallyport", "render", "c"], ["compose"]],
  ["nothing after an unknown command", ["sallyport", "nothing", ""], []],
];

for (const [claim, words, expected] of rows) {
  test(`bash completes ${claim}`, () => {
    assert.deepEqual(offered(words), expected);
  });
}

test("every script names every command, with quotes that close", () => {
  for (const shell of ["zsh", "fish"] as const) {
    const script = completionScript(shell, commands);
    for (const { name } of commands) assert.ok(script.includes(name));
    assert.match(script, /don'\\''t stop/);
  }
});

test("another shell is none", () => {
  for (const name of ["sh", "", "constructor"]) assert.ok(!isShell(name));
});
