import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { gateName } from "../../../src/cli/supervisor/start-here.ts";
import { readCredentials } from "../../../src/identity/credentials/credential-directory.ts";
import { renew } from "../../../src/identity/renew/renew.ts";
import {
  callerOf,
  freePorts,
  mainFile,
  runCli,
  type SystemWorld,
  shopRegister,
  startLoad,
  startSystemWorld,
  startUpstream,
  until,
} from "../../harness/system-world.ts";

async function take(world: SystemWorld, step: "prepare" | "activate" | "retire"): Promise<string> {
  const force = step === "prepare" ? [] : ["--force"];
  const done = await world.cli("ca", "rotate", `--${step}`, ...force);
  assert.equal(done.code, 0, done.stderr);
  return done.stderr;
}

test("a root that may be stolen is replaced within seconds, and no renewed caller notices", async (t) => {
  const world = await startSystemWorld(t);
  const { data: port } = world.ports;
  const web = await world.enrol("web");
  const old = await world.enrol("intern");
  const caller = callerOf(world, web, { port });
  const load = startLoad(world, caller, { everyMs: 5 });
  const late = callerOf(world, old, { port });
  assert.equal((await late.call("/orders/1")).status, 200);

  // Nobody waits for anything but the answer, and for the caller's own new certificate.
  for (const step of ["prepare", "activate", "retire"] as const) {
    assert.equal(await take(world, step), "", "no gate was left behind");
    if (step !== "retire") caller.use(await renew({ dir: web.dir, clock: Date.now }));
  }
  const seen = load.answers.length;

  // What was opened with an old certificate is cut, and the same certificate opens nothing anew.
  await assert.rejects(late.call("/orders/1"), "the gate's new chain is a stranger's to it");
  const { bundlePem } = await renew({ dir: web.dir, clock: Date.now });
  const stranger = await callerOf(world, { ...old, bundlePem }, { port }).call("/orders/1");
  assert.deepEqual([stranger.status, stranger.code], [401, "unknown_issuer"]);

  // Whoever enrols now knows the new root alone, and can verify the gate.
  const fresh = callerOf(world, await world.enrol("intern"), { port });
  assert.equal((await fresh.call("/orders/1")).status, 200);

  await until("traffic flows", () => load.answers.length > seen + 20);
  await load.stop();
  assert.deepEqual(load.failures, [], "no request went without an answer");
  assert.deepEqual(
    load.answers.filter(({ status }) => status !== 200),
    [],
    "and none was refused",
  );
  const status = await world.cli("status");
  assert.equal(status.code, 0, status.stdout);
});

test("a gate that cannot follow lets nobody of the retired root in, is named, and joins again", async (t) => {
  const world = await startSystemWorld(t);
  const { data: port } = world.ports;
  const old = await world.enrol("intern");
  const late = callerOf(world, old, { port });
  assert.equal((await late.call("/orders/1")).status, 200);
  await take(world, "prepare");
  await until("the gate has the next root", () =>
    world.said.some((line) => /the certificate was renewed/.test(line)),
  );
  await take(world, "activate");
  await until("it has the new one's leaves", async () => {
    const { stdout } = await world.cli("status");
    return /all are renewed/.test(stdout);
  });
  await take(world, "retire");

  // Once more; this time every renewal fails from the second step on: the directories are not private any more.
  const held = await world.enrol("web");
  const kept = callerOf(world, held, { port });
  assert.equal((await kept.call("/orders/1")).status, 200);
  await take(world, "prepare");
  const dirs = ["control", "data"].map((plane) => join(world.stateDir, "gates", gateName, plane));
  const before = world.said.length;
  await until(
    "the gate has renewed",
    () =>
      world.said.slice(before).filter((line) => /the certificate was renewed/.test(line)).length >=
      2,
  );
  for (const dir of dirs) chmodSync(dir, 0o755);
  await take(world, "activate");
  assert.match(await take(world, "retire"), /gate local did not follow in time/);

  const again = await kept.call("/orders/1");
  assert.deepEqual([again.status, again.code], [401, "unknown_issuer"]);
  const status = await world.cli("status");
  assert.equal(status.code, 1);
  assert.match(status.stdout, /gate\/local +\w+ +its root was retired/);
  assert.match(status.stdout, /critical: gate local did not follow/);
  assert.doesNotMatch(status.stdout, /all are renewed in time/);

  for (const dir of dirs) chmodSync(dir, 0o700);
  process.kill(world.supervisor.pids()[gateName] ?? 0, "SIGKILL");
  const fresh = await world.enrol("web");
  await until(
    "the gate has joined again",
    async () => {
      const caller = callerOf(world, fresh, { port });
      return await caller.call("/orders/1").then(
        ({ status }) => status === 200,
        () => false,
      );
    },
    90_000,
  );
  await until(
    "all is well",
    async () => {
      const { code, stdout } = await world.cli("status");
      return code === 0 || !/gate\/local/.test(stdout);
    },
    20_000,
  );
});

test("a gate elsewhere that was away says what to do, and joins again with a new token", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "sallyport-away-"));
  const at = (...parts: string[]): string => join(dir, ...parts);
  const [control = 0, joinPort = 0, ops = 0, data = 0, upstreamPort = 0] = await freePorts(5);
  const upstream = await startUpstream("127.0.0.1", upstreamPort);
  const register = shopRegister({ control, join: joinPort, ops, data, upstream: upstreamPort });
  writeFileSync(at("sallyport.yaml"), register);
  const children: ChildProcess[] = [];
  const closing: { beforeClose: (() => unknown)[] } = { beforeClose: [] };
  t.after(async () => {
    for (const close of closing.beforeClose) close();
    await Promise.all(children.map((child) => stop(child)));
    upstream.closeAllConnections();
    upstream.close();
    rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
  });
  const start = async (...args: string[]) => {
    const child = spawn(process.execPath, [mainFile, ...args, "--json"], { cwd: dir });
    children.push(child);
    let said = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (piece: Buffer) => {
        said += piece;
      });
    await until(`${args[0]} is up`, () => /"(?:data|control)":/.test(said), 20_000);
    return { child, said: () => said };
  };
  const run = async (...args: string[]): Promise<string> => {
    const done = await runCli(args, dir);
    assert.equal(done.code, 0, `${args.join(" ")}: ${done.stderr}`);
    return done.stderr;
  };
  const operate = (...args: string[]) => run(...args, "--context", at("admin"));
  const gate = ["gate", "--name", "east", "--state", at("east")];

  const files = ["--register", at("sallyport.yaml"), "--init-admin", at("admin.token")];
  await start("control", "--state", at("control"), ...files);
  await run("enroll", "--token-file", at("admin.token"), "--out", at("admin"));
  await runCli(["status", "--context", at("admin"), "--api", `https://127.0.0.1:${control}`], dir);
  await operate("token", "create", "--gate", "east", "--out", at("east.token"));
  const first = await start(...gate, "--join-token-file", at("east.token"));
  await stop(first.child);

  for (const step of ["prepare", "activate", "retire"]) {
    const said = await operate("ca", "rotate", `--${step}`, "--force");
    assert.equal(/gate east did not follow/.test(said), step !== "prepare", `${step}: ${said}`);
    // An operator elsewhere renews as callers do.
    if (step !== "retire") await renew({ dir: at("admin"), clock: Date.now });
  }
  const status = await runCli(["status", "--context", at("admin")], dir);
  assert.equal(status.code, 1);
  assert.match(
    status.stdout,
    /gate\/east .*its root was retired: sallyport token create --gate east/,
  );

  const lost = await start(...gate, "--join-token-file", at("east.token"));
  await until("it says what to do", () => /token create --gate east/.test(lost.said()));
  await stop(lost.child);

  await operate("token", "create", "--gate", "east", "--out", at("again.token"));
  await start(...gate, "--join-token-file", at("again.token"));
  await operate("token", "create", "--service", "web", "--out", at("web.token"));
  await run("enroll", "--token-file", at("web.token"), "--out", at("web"));
  const caller = callerOf(closing, await readCredentials(at("web")), { port: data });
  await until("it serves", async () => (await caller.call("/orders/1")).status === 200);
});

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGTERM");
  await once(child, "exit");
}
