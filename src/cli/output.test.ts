import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { skipOutsideCi } from "../../test/harness/skip-outside-ci.ts";

const main = join(import.meta.dirname, "main.ts");

async function place(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "sallyport-output-"));
  t.after(() => rm(folder, { recursive: true }));
  await writeFile(
    join(folder, "sallyport.yaml"),
    "version: 1\ntrustDomain: t.internal\nservices:\n  web: { owner: a }\n" +
      "  orders: { owner: b, upstreams: ['127.0.0.1:1'], allow: [{ id: r, from: web }] }\n",
  );
  return folder;
}

/** Runs a command whose reader of one stream leaves before anything was printed; what the other stream said. */
function runUnread(
  cwd: string,
  gone: "stdout" | "stderr",
  args: readonly string[],
): Promise<{ code: number | null; said: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [main, ...args], { cwd });
    child[gone].destroy();
    let said = "";
    child[gone === "stdout" ? "stderr" : "stdout"].on("data", (piece) => (said += piece));
    child.once("close", (code) => resolve({ code, said }));
  });
}

const rows: [gone: "stdout" | "stderr", code: number, args: string[]][] = [
  ["stdout", 0, ["--help"]],
  ["stdout", 0, ["--version"]],
  ["stdout", 0, ["token", "--help"]],
  ["stdout", 0, ["schema"]],
  ["stdout", 0, ["settings"]],
  ["stdout", 0, ["completion", "bash"]],
  ["stdout", 0, ["check"]],
  ["stdout", 0, ["explain", "web", "GET", "orders/"]],
  ["stdout", 1, ["explain", "orders", "GET", "orders/"]],
  ["stderr", 2, ["check", "nowhere.yaml"]],
  ["stderr", 2, ["no-such-command"]],
  ["stderr", 2, ["enroll", "--nothing"]],
];

test("a reader that leaves changes nothing: no trace, and the exit code of what was done", async (t) => {
  const cwd = await place(t);
  for (const [gone, code, args] of rows) {
    const ended = await runUnread(cwd, gone, args);
    assert.equal(ended.code, code, `${args.join(" ")}: ${ended.said}`);
    assert.doesNotMatch(ended.said, /EPIPE|Unhandled|\n\s+at /, args.join(" "));
  }
});

test("what has to be written is written, read or not", async (t) => {
  const cwd = await place(t);
  for (const gone of ["stdout", "stderr"] as const) {
    const made = `${gone}.yaml`;
    const { code } = await runUnread(cwd, gone, ["init", "--yes", "--out", made]);
    assert.equal(code, 0);
    assert.match(await readFile(join(cwd, made), "utf8"), /trustDomain/);
  }
});

test("a result that was lost to a full disk is told, and is no success", async (t) => {
  if (!existsSync("/dev/full")) return skipOutsideCi(t, "this system has no /dev/full");
  const cwd = await place(t);
  await using full = await open("/dev/full", "w");
  const child = spawn(process.execPath, [main, "schema"], {
    cwd,
    stdio: ["ignore", full.fd, "pipe"],
  });
  let said = "";
  child.stderr?.on("data", (piece) => (said += piece));
  const code = await new Promise((resolve) => child.once("close", resolve));
  assert.equal(code, 2);
  assert.match(said, /^error: the result could not be written: ENOSPC.*\nhint: .*\n$/);
});
