import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import {
  callerOf,
  freePorts,
  mainFile,
  runCli,
  shopRegister,
  startSystemWorld,
  until,
} from "../../harness/system-world.ts";

test("applying, history, rollback and a conflict, each on record", async (t) => {
  const world = await startSystemWorld(t, { workers: 1 });
  const web = await world.enrol("web");
  const caller = callerOf(world, web, { port: world.ports.data });
  const file = join(world.dir, "sallyport.yaml");
  const narrow = shopRegister(world.ports);
  assert.equal((await caller.call("/new/1")).code, "not_authorized");
  writeFileSync(file, narrow.replace("/orders/**", "/**"));
  const applied = await world.cli("apply", file, "--yes");
  assert.equal(applied.code, 0, applied.stderr);
  assert.equal((await caller.call("/new/1")).status, 200, "the new rule decides");

  const versions = async () => JSON.parse((await world.cli("history", "--json")).stdout);
  const [newest, oldest] = await versions();
  assert.deepEqual([newest.version, newest.author], [2, "admin/first"]);
  assert.equal(oldest.version, 1);

  // Somebody else was quicker: what they did is not overwritten unseen.
  const api = await world.api();
  const { etag } = await api.call("GET", "/v1/register");
  const put = (text: string) =>
    api.call("PUT", "/v1/register", {
      body: { files: [{ name: "sallyport.yaml", text }] },
      headers: { "If-Match": etag ?? "" },
    });
  await put(narrow.replace("[GET]", "[GET, POST]"));
  await assert.rejects(put(narrow.replace("[GET]", "[GET, PUT]")), { code: "changed_meanwhile" });

  const back = await world.cli("rollback", "2", "--yes");
  assert.equal(back.code, 0, back.stderr);
  assert.equal((await caller.call("/new/1")).status, 200, "version 2 decides again");
  assert.equal((await versions())[0].version, 4, "as a version of its own");

  // A broken one changes nothing, and says all that is wrong.
  writeFileSync(file, narrow.replace("from: [web, intern]", "from: [wbe, itnern]"));
  const broken = await world.cli("apply", file, "--yes");
  assert.equal(broken.code, 1);
  for (const name of ["wbe", "itnern"]) assert.match(broken.stderr, new RegExp(name));
  assert.equal((await versions())[0].version, 4);

  const actions = (await world.hits({ plane: "control", kind: "action" })).filter(
    ({ decision, action }) =>
      ["apply", "rollback"].includes(action ?? "") && decision !== undefined,
  );
  assert.deepEqual(actions.map(({ action, decision }) => `${action} ${decision}`).toReversed(), [
    "apply allowed",
    "apply allowed",
    "apply refused",
    "rollback allowed",
  ]);
  assert.ok(actions.every(({ caller }) => caller === "admin/first"));
});

test("who may connect follows the register", async (t) => {
  const world = await startSystemWorld(t, { workers: 2 });
  const web = await world.enrol("web");
  const ask = async () => {
    const caller = callerOf(world, web, { port: world.ports.data, connections: 1 });
    const answer = await caller.call("/orders/1").catch(() => undefined);
    caller.close();
    return answer?.status;
  };
  assert.equal(await ask(), 200);
  const data = `data:    { bind: "127.0.0.1:${world.ports.data}" }`;
  const elsewhere = `data:    { bind: "127.0.0.1:${world.ports.data}", from: ["10.0.0.0/8"] }`;
  await world.apply(shopRegister(world.ports).replace(data, elsewhere));
  for (let i = 0; i < 8; i++) assert.equal(await ask(), undefined, "nobody from here any more");
  await until(
    "each is a hit",
    async () => (await world.hits({ code: "address_not_allowed" })).length >= 8,
  );
  await world.apply(shopRegister(world.ports));
  for (let i = 0; i < 8; i++) assert.equal(await ask(), 200);
});

test("a snapshot that was not signed by the pinned key is refused whole, and status says so", async (t) => {
  const world = await startSystemWorld(t, { workers: 1 });
  const web = await world.enrol("web");
  const caller = callerOf(world, web, { port: world.ports.data });
  const key = join(world.stateDir, "control", "snapshot-key.pem");
  const restartControl = async (): Promise<void> => {
    const pid = world.supervisor.pids().control as number;
    process.kill(pid, "SIGKILL");
    await until("control is another", () => {
      const next = world.supervisor.doors().control && world.supervisor.pids().control;
      return next !== undefined && next !== pid;
    });
    await until("the gate is back", async () => (await world.cli("status")).code !== 3);
  };
  // Whoever has the store, and not the key, cannot make a gate do anything.
  renameSync(key, `${key}.away`);
  await restartControl();
  const wider = shopRegister(world.ports).replace("/orders/**", "/**");
  const applied = await (await world.api()).call("PUT", "/v1/register", {
    query: { force: true, waitMs: 500 },
    body: { files: [{ name: "sallyport.yaml", text: wider }] },
  });
  assert.deepEqual((applied.body as { missing: string[] }).missing, ["local"]);
  await until("status says so", async () => {
    const { code, stdout } = await world.cli("status");
    return code === 1 && /refused a snapshot \(bad_signature\)/.test(stdout);
  });
  assert.equal((await caller.call("/new/1")).code, "not_authorized", "what stood stands");
  assert.equal((await caller.call("/orders/1")).status, 200);
  renameSync(`${key}.away`, key);
  await restartControl();
  await world.apply(wider.replace("[GET]", "[GET, POST]"));
  await until("all is well", async () => (await world.cli("status")).code === 0);
  assert.equal((await caller.call("/new/1")).status, 200);
});

test("up applies what is saved, and a broken save changes nothing", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "sallyport-save-"));
  t.after(() => rmSync(dir, { recursive: true, force: true, maxRetries: 10 }));
  const [control = 0, joinPort = 0, ops = 0, data = 0, upstream = 0] = await freePorts(5);
  const text = shopRegister({ control, join: joinPort, ops, data, upstream });
  const file = join(dir, "sallyport.yaml");
  writeFileSync(file, text);
  const up = spawn(process.execPath, [mainFile, "up", file], { cwd: dir });
  t.after(() => up.kill("SIGKILL"));
  let said = "";
  for (const stream of [up.stdout, up.stderr])
    stream.on("data", (chunk: Buffer) => {
      said += chunk;
    });
  await until("it is up", () => said.includes("sallyport is up"), 20_000);
  const versions = async () =>
    JSON.parse((await runCli(["history", "--json"], dir)).stdout).length as number;
  assert.equal(await versions(), 1);
  writeFileSync(file, "services: {{{");
  await until("it says so", () => said.includes("not applied"));
  assert.equal(await versions(), 1);
  writeFileSync(file, text.replace("[GET]", "[GET, POST]"));
  await until("it is applied", () => said.includes("applied: 1 change"));
  assert.equal(await versions(), 2);
  up.kill("SIGTERM");
  assert.deepEqual(await once(up, "close"), [0, null]);
});
