import assert from "node:assert/strict";
import { type ChildProcess, execFile, fork } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { type TestContext, test } from "node:test";
import { promisify } from "node:util";
import { smallRegister } from "../../../test/harness/control-world.ts";
import { createControlClient } from "../../control/client/client.ts";
import { readCredentials } from "../../identity/credentials/credential-directory.ts";
import { enroll } from "../../identity/enroll/enroll.ts";
import type { ControlConfig } from "./control.ts";

const run = promisify(execFile);
const text = `${smallRegister}planes:
  control: { bind: "127.0.0.1:0" }
  join: { bind: "127.0.0.1:0" }
  ops: { bind: "127.0.0.1:0" }
  data: { bind: "127.0.0.1:0" }
`;
const registerFiles = [{ name: "sallyport.yaml", text }];

type Doors = { readonly control: string; readonly join: string };
type Child = {
  readonly process: ChildProcess;
  readonly messages: Record<string, unknown>[];
  readonly doors: Doors;
};

function placeFor(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "sallyport-root-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

function spawnRoot(t: TestContext, config: ControlConfig): ChildProcess {
  const child = fork(join(import.meta.dirname, "control.ts"), [JSON.stringify(config)], {
    silent: true,
    execArgv: [],
  });
  t.after(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  });
  return child;
}

async function start(t: TestContext, config: ControlConfig): Promise<Child> {
  const child = spawnRoot(t, config);
  const messages: Record<string, unknown>[] = [];
  let said = "";
  child.stderr?.on("data", (bytes: Buffer) => {
    said += bytes.toString();
  });
  const doors = await new Promise<Doors>((ready, failed) => {
    child.on("message", (message: Record<string, unknown>) => {
      messages.push(message);
      if (message.kind === "ready") ready(message.doors as Doors);
    });
    child.once("exit", (code) => failed(new Error(`control ended with ${code}: ${said}`)));
  });
  return { process: child, messages, doors };
}

async function end(child: Child): Promise<number | null> {
  child.process.kill("SIGTERM");
  const [code] = await once(child.process, "exit");
  return code as number | null;
}

async function clientOf(dir: string) {
  const context = JSON.parse(readFileSync(join(dir, "context.json"), "utf8"));
  const credentials = await readCredentials(dir);
  return createControlClient({ ...context, credentials, clock: () => Date.now() });
}

test("control starts, serves its administrator, leaves when asked, and comes back the same", async (t) => {
  const stateDir = placeFor(t);
  const adminDir = join(stateDir, "admin");
  const config: ControlConfig = {
    stateDir,
    registerFiles,
    adminDir,
    apart: false,
    name: "control",
    localGate: "local",
  };
  const first = await start(t, config);
  assert.ok(
    first.messages.some(
      ({ kind, token }) => kind === "gate-token" && String(token).startsWith("sp1."),
    ),
  );
  const client = await clientOf(adminDir);
  const status = (await client.call("GET", "/v1/status")).body as {
    you: { principal: string };
    snapshot: { name: string };
    notes: string[];
  };
  assert.equal(status.you.principal, "admin/first");
  assert.equal(status.snapshot.name, "1.1");
  assert.match(status.notes.join("\n"), /whoever owns the gate owns the CA/);
  const { hits } = (await client.call("GET", "/v1/hits", { query: { limit: 10 } })).body as {
    hits: { action?: string; caller?: string }[];
  };
  assert.ok(hits.some((hit) => hit.action === "status" && hit.caller === "admin/first"));
  const verdict = (await client.call("GET", "/v1/hits/verify")).body as { ok: boolean };
  assert.equal(verdict.ok, true, JSON.stringify(verdict));
  await client.call("POST", "/v1/revocations", { body: { principal: "service/web" } });

  // A second one on the same state is refused, and the first does not notice.
  const second = spawnRoot(t, config);
  const [code] = await once(second, "exit");
  assert.equal(code, 2);
  client.close();

  assert.equal(await end(first), 0);
  const again = await start(t, config);
  assert.deepEqual(again.doors, first.doors, "ports that were chosen are kept");
  const back = await clientOf(adminDir);
  const after = (await back.call("GET", "/v1/status")).body as {
    snapshot: { name: string; revocations: number };
  };
  assert.deepEqual([after.snapshot.name, after.snapshot.revocations], ["1.2", 1]);
  const still = (await back.call("GET", "/v1/hits/verify")).body as { ok: boolean };
  assert.equal(still.ok, true, JSON.stringify(still));
  back.close();
  again.process.kill("SIGKILL");
  await once(again.process, "exit");
  const third = await start(t, config);
  assert.deepEqual(third.doors, first.doors);
  assert.equal(await end(third), 0);
});

test("apart: the first administrator's token is written once, for an empty store that has a register", async (t) => {
  const stateDir = placeFor(t);
  const empty = spawnRoot(t, { stateDir, apart: true, name: "control" });
  const [code] = await once(empty, "exit");
  assert.equal(code, 2);
  const initAdminFile = join(stateDir, "admin.token");
  const config: ControlConfig = {
    stateDir,
    registerFiles,
    initAdminFile,
    apart: true,
    name: "control",
  };
  const first = await start(t, config);
  assert.equal(statSync(initAdminFile).mode & 0o777, 0o600);
  const dir = join(stateDir, "ops");
  await enroll({
    token: readFileSync(initAdminFile, "utf8").trim(),
    out: dir,
    clock: () => Date.now(),
  });
  writeFileSync(
    join(dir, "context.json"),
    JSON.stringify({
      api: `https://${first.doors.control}`,
      principal: "spiffe://shop.internal/admin/first",
      trustDomain: "shop.internal",
    }),
  );
  const client = await clientOf(dir);
  await client.call("GET", "/v1/status");
  client.close();
  assert.equal(await end(first), 0);
  rmSync(initAdminFile);
  const again = await start(t, config);
  assert.equal(existsSync(initAdminFile), false);
  assert.equal(await end(again), 0);
});

test("a restored store begins an epoch of its own, each time it is restored", async (t) => {
  const stateDir = placeFor(t);
  const backup = join(placeFor(t), "backup");
  const adminDir = join(stateDir, "admin");
  const config = { stateDir, adminDir, apart: false, name: "control" } as const;
  const nothing = spawnRoot(t, { ...config, registerFiles, restore: true });
  const [code] = await once(nothing, "exit");
  assert.equal(code, 2, "there is nothing to restore");
  const first = await start(t, { ...config, registerFiles });
  assert.equal(await end(first), 0);
  await run("cp", ["-a", join(stateDir, "control"), backup]); // with its modes
  const epochs: number[] = [];
  for (let round = 0; round < 2; round++) {
    rmSync(join(stateDir, "control"), { recursive: true });
    await run("cp", ["-a", backup, join(stateDir, "control")]);
    const restored = await start(t, { ...config, restore: true });
    const client = await clientOf(adminDir);
    const { body } = await client.call("GET", "/v1/status");
    const { name } = (body as { snapshot: { name: string } }).snapshot;
    client.close();
    assert.equal(await end(restored), 0);
    epochs.push(Number(name.split(".")[0]));
  }
  const [one = 0, two = 0] = epochs;
  assert.ok(one > 1_700_000_000 && two > one, `${one}, then ${two}`);
});

test("a token that comes with another key revokes what it bought, once, and warns beyond a restart", async (t) => {
  const stateDir = placeFor(t);
  const adminDir = join(stateDir, "admin");
  const config = { stateDir, adminDir, apart: false, name: "control" } as const;
  const first = await start(t, { ...config, registerFiles });
  const client = await clientOf(adminDir);
  const { body } = await client.call("POST", "/v1/tokens", { body: { service: "web" } });
  const { token } = body as { token: string };
  const clock = () => Date.now();
  await enroll({ token, out: join(stateDir, "web"), clock });
  for (const again of ["thief", "thief again"])
    await assert.rejects(enroll({ token, out: join(stateDir, again), clock }), again);
  type Told = {
    warnings: { id: string }[];
    snapshot: { name: string; revocations: number };
  };
  const status = async (of: typeof client) => (await of.call("GET", "/v1/status")).body as Told;
  const told = await status(client);
  assert.deepEqual([told.snapshot.name, told.snapshot.revocations], ["1.2", 1]);
  client.close();
  assert.equal(await end(first), 0);
  const second = await start(t, config);
  const back = await clientOf(adminDir);
  const { warnings } = await status(back);
  assert.deepEqual(
    warnings.map(({ id }) => id.split(":")[0]),
    ["token-reuse"],
  );
  back.close();
  assert.equal(await end(second), 0);
});

test("the command line reaches it without flags, and says what is wrong", async (t) => {
  const place = placeFor(t);
  const stateDir = join(place, ".sallyport");
  const control = await start(t, {
    stateDir,
    registerFiles,
    adminDir: join(stateDir, "admin"),
    apart: false,
    name: "control",
  });
  writeFileSync(join(place, "sallyport.yaml"), text.replace("[GET]", "[GET, POST]"));
  const main = resolve("src/cli/main.ts");
  const { SALLYPORT_CONTEXT: _, SALLYPORT_STATE: __, ...env } = process.env;
  const cli = (...args: string[]) =>
    run(process.execPath, [main, ...args], { cwd: place, env }).then(
      ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
      ({ code, stdout, stderr }) => ({
        code: code as number,
        stdout: String(stdout),
        stderr: String(stderr),
      }),
    );
  const rows: [args: string[], code: number, says: RegExp][] = [
    [["status"], 0, /snapshot 1\.1/],
    [["diff"], 1, /~ services\.orders\.allow\[web-reads-orders\]\.methods/],
    [["apply"], 2, /say --yes/],
    [["apply", "--yes"], 0, /applied: snapshot 1\.2/],
    [["diff"], 0, /nothing changes/],
    [["rollback", "1", "--yes"], 0, /snapshot 1\.3/],
    [["rollback", "99", "--yes"], 1, /not_found, hit /],
    [["rollback", "x"], 2, /is no version/],
    [["history", "--json"], 0, /"reason": "rollback 1"/],
    [["token", "create", "--service", "ghost"], 1, /has no service "ghost"/],
    [["token", "create", "--service", "web", "--gate", "g"], 2, /a token is for one/],
    [
      ["token", "create", "--service", "web"],
      0,
      /^sp1\.[\w-]+\n[\s\S]*sallyport enroll --token-file/,
    ],
    [["revoke"], 2, /name a principal or a --serial/],
    [["revoke", "service/wbe"], 1, /there is no service\/wbe/],
    [["revoke", "service/web", "--wait", "1s"], 0, /revoked: service\/web/],
    [["ca", "rotate", "--retire"], 1, /refused_step/],
    [["ca", "status"], 0, /rotate --prepare/],
    [["status", "--context", "nowhere"], 2, /nowhere is no context/],
  ];
  for (const [args, code, says] of rows) {
    const told = await cli(...args);
    assert.equal(told.code, code, `${args.join(" ")}: ${told.stdout}${told.stderr}`);
    assert.match(told.stdout + told.stderr, says, args.join(" "));
    assert.doesNotMatch(told.stderr, /\bat .*\.ts:\d+/, args.join(" "));
  }
  assert.equal(await end(control), 0);
  const gone = await cli("status");
  assert.equal(gone.code, 3);
  assert.match(gone.stderr, /no control plane answers/);
});
