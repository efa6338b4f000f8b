import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
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

test("what a gate that was killed wrote last is anchored when it starts again, and so is what control wrote", async (t) => {
  const world = await startSystemWorld(t, { workers: 1 });
  const web = await world.enrol("web");
  const kill = async (name: "control" | "local") => {
    const pid = world.supervisor.pids()[name] as number;
    process.kill(pid, "SIGKILL");
    await until(`${name} is started again`, () => (world.supervisor.pids()[name] ?? pid) !== pid);
  };
  const chainsIn = (dir: string) =>
    readdirSync(dir).filter((name) => !name.endsWith(".jsonl") && !name.endsWith(".new"));
  const ofControl = chainsIn(world.controlHits);

  // Control dies first: nobody is there whom the gate could tell of its last lines, and nobody who remembers control's own.
  const controlIsBack = kill("control");
  const caller = callerOf(world, web, { port: world.ports.data });
  for (let i = 0; i < 30; i++) assert.equal((await caller.call(`/orders/${i}`)).status, 200);
  const ofGate = chainsIn(world.gateHits);
  await Promise.all([controlIsBack, kill("local")]);
  caller.close();
  await until(
    "everything that was left behind is kept",
    async () => {
      const { code, stdout } = await world.cli("status", "--json");
      const counters = code === 0 ? JSON.parse(stdout).gates[0]?.counters : undefined;
      return counters?.chainsLeft === 0 && counters.snapshot_version > 0;
    },
    30_000,
  );
  const whole = await runCli(["hits", "verify"], world.dir);
  assert.equal(whole.code, 0, whole.stdout + whole.stderr);

  for (const [dir, chains] of [
    [world.gateHits, ofGate],
    [world.controlHits, ofControl],
  ] as const) {
    const cut: string[] = [];
    for (const chain of chains)
      for (const name of readdirSync(join(dir, chain)).filter((one) => one.endsWith(".jsonl"))) {
        const file = join(dir, chain, name);
        const lines = readFileSync(file, "utf8").trimEnd().split("\n");
        const ends = lines.flatMap((line, i) => (/"h":"[0-9a-f]{64}"\}$/.test(line) ? [i] : []));
        if (ends.length < 2) continue;
        truncateSync(file, lines.slice(0, (ends.at(-2) ?? 0) + 1).join("\n").length + 1);
        cut.push(chain);
      }
    assert.ok(cut.length > 0);
    const { code, stdout } = await runCli(["hits", "verify"], world.dir);
    assert.equal(code, 1, stdout);
    for (const chain of cut) assert.match(stdout, new RegExp(`${chain}.*cut.*anchored elsewhere`));
  }
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

test("a gate elsewhere shows its hits and walks its own log; one that is away is named", async (t) => {
  const world = await startSystemWorld(t, { workers: 1 });
  const tokenFile = join(world.dir, "far.token");
  const made = await world.cli("token", "create", "--gate", "far", "--out", tokenFile);
  assert.equal(made.code, 0, made.stderr);
  const state = join(world.dir, "far-state");
  const args = ["gate", "--name", "far", "--join-token-file", tokenFile, "--state", state];
  const far = spawn(process.execPath, [mainFile, ...args], { cwd: world.dir, stdio: "ignore" });
  const gone = once(far, "exit");
  world.beforeClose.push(async () => {
    far.kill("SIGTERM");
    await gone;
  });
  const connected = async () => {
    const { gates } = JSON.parse((await world.cli("status", "--json")).stdout);
    return gates.some(
      (gate: { name: string; connected: boolean }) => gate.name === "far" && gate.connected,
    );
  };
  await until("the other gate is connected", connected, 20_000);
  const verdict = await world.cli("hits", "verify", "--json");
  assert.equal(verdict.code, 0, verdict.stdout + verdict.stderr);
  const { chains, absent } = JSON.parse(verdict.stdout);
  assert.deepEqual(absent, []);
  assert.ok(
    chains.some(({ gate, lines }: { gate?: string; lines: number }) => gate === "far" && lines > 0),
  );

  const logs = join(state, "gates", "far", "hits");
  const [file = ""] = readdirSync(logs, { recursive: true, encoding: "utf8" })
    .filter((name) => /\d{12}\.jsonl$/.test(name))
    .map((name) => join(logs, name))
    .filter((name) => /"action":"start"/.test(readFileSync(name, "utf8")));
  const text = readFileSync(file, "utf8");
  writeFileSync(file, text.replace('"action":"start"', '"action":"stArt"'));
  const broken = await world.cli("hits", "verify");
  assert.equal(broken.code, 1, broken.stdout + broken.stderr);
  assert.match(broken.stdout, /gate far [a-z2-7]+\/\d+\.jsonl:\d+: changed/);

  far.kill("SIGTERM");
  await gone;
  await until("control noticed", async () => !(await connected()));
  const away = await world.cli("hits", "verify");
  assert.equal(away.code, 1, "what was not looked at is not whole");
  assert.match(away.stderr, /gate far could not be asked/);
  const hits = await world.cli("hits", "--limit", "5");
  assert.match(hits.stderr, /gate far could not be asked/);
});
