import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readdirSync, readFileSync, statSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import {
  callerOf,
  mainFile,
  runCli,
  type SystemWorld,
  startSystemWorld,
  until,
} from "../../harness/system-world.ts";

/** Segments of the gate's log, the longest first. */
function segments(world: SystemWorld): string[] {
  return readdirSync(world.gateHits, { recursive: true, encoding: "utf8" })
    .filter((name) => /\d{12}\.jsonl$/.test(name))
    .map((name) => join(world.gateHits, name))
    .sort((a, b) => statSync(b).size - statSync(a).size);
}

test("lines that are cut from the end of a gate's log are missed, and it is said where", async (t) => {
  const world = await startSystemWorld(t, { workers: 1 });
  const caller = callerOf(world, await world.enrol("web"), { port: world.ports.data });
  for (let i = 0; i < 30; i++) assert.equal((await caller.call(`/orders/${i}`)).status, 200);
  caller.close();

  const whole = await runCli(["hits", "verify"], world.dir);
  assert.equal(whole.code, 0, whole.stdout + whole.stderr);
  assert.doesNotMatch(whole.stderr, /without anchors/);
  const remote = await world.cli("hits", "verify");
  assert.equal(remote.code, 0, remote.stdout + remote.stderr);
  const seen = await world.cli("hits", "--json", "--service", "orders", "--caller", "web");
  assert.equal(seen.code, 0, seen.stderr);
  const paths = (JSON.parse(seen.stdout) as { path?: string }[]).map(({ path }) => path);
  for (let i = 0; i < 30; i++) assert.ok(paths.includes(`/orders/${i}`), `/orders/${i}`);

  // Whole batches go, so that what is left is sound in itself; the gate wrote nothing since.
  await until("the heads reached control", async () => {
    const { code, stdout } = await world.cli("hits", "verify", "--json");
    return code === 0 && JSON.parse(stdout).ok === true;
  });
  const [file = ""] = segments(world);
  const lines = readFileSync(file, "utf8").trimEnd().split("\n");
  const ends = lines.flatMap((line, i) => (/"h":"[0-9a-f]{64}"\}$/.test(line) ? [i] : []));
  const kept = lines.slice(0, (ends.at(-4) ?? 0) + 1);
  truncateSync(file, kept.join("\n").length + 1);

  for (const verify of [
    await runCli(["hits", "verify"], world.dir),
    await world.cli("hits", "verify"),
  ]) {
    assert.equal(verify.code, 1, verify.stdout + verify.stderr);
    const chain = file.split("/").at(-2) ?? "";
    assert.match(verify.stdout, new RegExp(`gate local ${chain}.*cut.*anchored elsewhere`));
  }
  await world.supervisor.close();
  const alone = await runCli(["hits", "verify"], world.dir);
  assert.match(alone.stderr, /read without the heads that control keeps/);
});

test("hits --follow through control shows each hit once, over a death of control", async (t) => {
  const world = await startSystemWorld(t, { workers: 1 });
  const caller = callerOf(world, await world.enrol("web"), { port: world.ports.data });
  await caller.call("/orders/before");
  const args = ["hits", "--follow", "--json", "--service", "orders", "--context", world.adminDir];
  const child = spawn(process.execPath, [mainFile, ...args], { cwd: world.dir });
  world.beforeClose.push(() => child.kill());
  const shown: string[] = [];
  const said: string[] = [];
  createInterface({ input: child.stdout }).on("line", (line) => {
    const { kind, path } = JSON.parse(line);
    if (kind === "request") shown.push(path);
  });
  createInterface({ input: child.stderr }).on("line", (line) => said.push(line));
  await until("the old hit is shown", () => shown.includes("/orders/before"));
  for (let i = 0; i < 5; i++) await caller.call(`/orders/a${i}`);
  await until("hits are followed", () => shown.includes("/orders/a4"));
  process.kill(world.supervisor.pids().control as number, "SIGKILL");
  for (let i = 0; i < 5; i++) await caller.call(`/orders/b${i}`);
  await until("hits are followed again", () => shown.includes("/orders/b4"), 20_000);
  await caller.call("/orders/last");
  await until("the last is shown", () => shown.includes("/orders/last"), 20_000);
  const expected = ["before", ...[..."01234"].flatMap((i) => [`a${i}`, `b${i}`]), "last"];
  assert.deepEqual(shown.toSorted(), expected.map((name) => `/orders/${name}`).toSorted());
});
