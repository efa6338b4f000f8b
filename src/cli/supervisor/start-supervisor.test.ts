import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { pathToFileURL } from "node:url";
import { silentLog } from "../../base/log.ts";
import { startSupervisor } from "./start-supervisor.ts";
import type { Death, SupervisorOptions } from "./supervised-child.ts";

const here = (file: string): string => JSON.stringify(new URL(file, import.meta.url).href);

/** A root that does what a gate does: asks for descriptors, and lets one worker listen on each. */
const rootSource = `
import { createServer } from "node:net";
import { Worker, isMainThread, workerData } from "node:worker_threads";
import { fileURLToPath } from "node:url";
import { linkToSupervisor, readRootConfig } from ${here("./link-to-supervisor.ts")};

if (isMainThread) await main();
else {
  const server = createServer((socket) => socket.end(workerData.name + "\\n")).listen({ fd: workerData.fd });
  server.on("listening", () => workerData.tell.postMessage("up"));
}

async function main() {
  const config = readRootConfig();
  if (config.exit !== undefined) process.exit(config.exit);
  const link = linkToSupervisor(() => {
    if (!config.stubborn) process.exit(0);
  });
  setInterval(() => {}, 1000);
  const doors = {};
  for (const [name, wish] of Object.entries(config.doors ?? {})) {
    try {
      const { host, port, copies } = await link.listen(wish.host, wish.port, wish.copies);
      for (const { fd } of copies) {
        const { port1, port2 } = new MessageChannel();
        new Worker(fileURLToPath(import.meta.url), {
          workerData: { fd, name: config.name, tell: port2 }, transferList: [port2],
        });
        await new Promise((resolve) => port1.once("message", resolve));
        port1.close();
      }
      doors[name] = host + ":" + port;
    } catch (cause) {
      link.send({ kind: "refused", name, code: cause.code, message: cause.message });
    }
  }
  link.on("echo", (message) => link.send({ kind: "echoed", text: message.text, long: config.long?.length }));
  link.ready(doors);
}
`;

function fixture(t: TestContext, options: Partial<SupervisorOptions> = {}) {
  const folder = mkdtempSync(join(tmpdir(), "sallyport-supervisor-"));
  const file = join(folder, "root.ts");
  writeFileSync(file, rootSource);
  const root = pathToFileURL(file);
  const heard: { kind: string }[] = [];
  const deaths: Death[] = [];
  const started: ReturnType<typeof startSupervisor>[] = [];
  t.after(async () => {
    for (const supervisor of started) {
      supervisor.kill();
      await supervisor.close();
    }
    rmSync(folder, { recursive: true, force: true });
  });
  return {
    folder,
    root,
    heard,
    deaths,
    start(children: SupervisorOptions["children"]) {
      const supervisor = startSupervisor({
        children,
        log: silentLog,
        onLine: () => {},
        onMessage: (_, message) => heard.push(message),
        onDeath: (death) => deaths.push(death),
        ...options,
      });
      started.push(supervisor);
      return supervisor;
    },
  };
}

const anyPort = { host: "127.0.0.1", port: 0, copies: 2 };

function portOf(door: string | undefined): number {
  return Number(door?.split(":").at(-1));
}

/** Resolves to what the server said, or to the code of the error. */
function call(port: number): Promise<string> {
  return new Promise((resolve) => {
    let said = "";
    const socket = connect(port, "127.0.0.1");
    socket.on("data", (chunk) => {
      said += chunk;
    });
    socket.on("error", (cause: NodeJS.ErrnoException) => resolve(cause.code ?? "error"));
    socket.on("end", () => resolve(said.trim()));
  });
}

async function until(claim: () => boolean): Promise<void> {
  for (let tries = 0; !claim(); tries++) {
    assert.ok(tries < 1000, `never true: ${claim}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

test("a gate that is killed loses no connection, and its successor has the same address", async (t) => {
  const world = fixture(t);
  const supervisor = world.start([
    { name: "gate", root: world.root, config: { name: "gate", doors: { data: anyPort } } },
  ]);
  await supervisor.ready;
  const port = portOf(supervisor.doors().gate?.data);
  const [before] = Object.values(supervisor.pids());
  assert.ok(before);
  assert.equal(await call(port), "gate");

  process.kill(before, "SIGKILL");
  await until(() => world.deaths.length === 1);
  assert.deepEqual(supervisor.pids(), {});
  const killedAt = performance.now();
  // Nobody is there now: these wait in the backlog.
  const answers = await Promise.all(Array.from({ length: 50 }, () => call(port)));
  assert.deepEqual([...new Set(answers)], ["gate"]);
  assert.ok(performance.now() - killedAt < 2000, "restarted within two seconds");
  assert.equal(world.deaths[0]?.signal, "SIGKILL");
  assert.equal(world.deaths[0]?.restartMs, 100);
  await until(() => supervisor.doors().gate !== undefined);
  assert.equal(portOf(supervisor.doors().gate?.data), port);
});

test("two wishes for any port are two ports, also after a restart", async (t) => {
  const world = fixture(t);
  const doors = { data: anyPort, decoy: { ...anyPort, copies: 1 } };
  const supervisor = world.start([
    { name: "gate", root: world.root, config: { name: "g", doors } },
  ]);
  await supervisor.ready;
  const before = supervisor.doors().gate;
  assert.ok(before);
  assert.notEqual(before.data, before.decoy);
  process.kill(Number(supervisor.pids().gate), "SIGKILL");
  await until(() => world.deaths.length === 1);
  await until(() => supervisor.doors().gate !== undefined);
  assert.deepEqual(supervisor.doors().gate, before);
});

const refusals: readonly (readonly [
  claim: string,
  wish: { host: string; port: number; copies: number },
  code: string,
  message: RegExp,
])[] = [
  ["a name", { host: "localhost", port: 0, copies: 1 }, "EINVAL", /not an IP address/],
  ["an empty host", { host: "", port: 0, copies: 1 }, "EINVAL", /not an IP address/],
  ["a port beyond the last", { host: "127.0.0.1", port: 65_536, copies: 1 }, "EINVAL", /port/],
  ["no copies", { host: "127.0.0.1", port: 0, copies: 0 }, "EINVAL", /copies/],
  ["a thousand copies", { host: "127.0.0.1", port: 0, copies: 1000 }, "EINVAL", /copies/],
  [
    "a stranger's address",
    { host: "203.0.113.9", port: 0, copies: 1 },
    "EADDRNOTAVAIL",
    /not an address of this machine/,
  ],
];

for (const [claim, wish, code, message] of refusals) {
  test(`${claim} is not listened on`, async (t) => {
    const world = fixture(t);
    const supervisor = world.start([
      { name: "gate", root: world.root, config: { name: "g", doors: { data: wish } } },
    ]);
    await supervisor.ready;
    const [answer] = world.heard as { kind: string; code: string; message: string }[];
    assert.equal(answer?.code, code);
    assert.match(answer?.message ?? "", message);
    assert.deepEqual(supervisor.doors().gate, {});
  });
}

test("an address in use is said plainly, whoever uses it", async (t) => {
  const world = fixture(t);
  const server = createServer();
  t.after(() => server.close());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  const taken = { host: "127.0.0.1", port, copies: 1 };
  const supervisor = world.start([
    { name: "one", root: world.root, config: { name: "one", doors: { data: taken } } },
  ]);
  await supervisor.ready;
  const [byStranger] = world.heard as { kind: string; code: string; message: string }[];
  assert.equal(byStranger?.code, "EADDRINUSE");
  assert.match(byStranger?.message ?? "", /in use by another program.*ss -ltnp/);
});

test("one child cannot have another child's address", async (t) => {
  const world = fixture(t);
  const first = world.start([
    { name: "one", root: world.root, config: { name: "one", doors: { data: anyPort } } },
  ]);
  await first.ready;
  const port = portOf(first.doors().one?.data);
  const second = world.start([
    {
      name: "two",
      root: world.root,
      config: { name: "two", doors: { data: { ...anyPort, port } } },
    },
  ]);
  await second.ready;
  assert.deepEqual(second.doors().two, {});
  assert.equal(await call(port), "one");
});

test("a child that says its configuration is wrong is not started again", async (t) => {
  const world = fixture(t);
  const supervisor = world.start([{ name: "gate", root: world.root, config: { exit: 2 } }]);
  await assert.rejects(supervisor.ready, /gate could not start \(code 2\)/);
  assert.equal(world.deaths[0]?.restartMs, undefined);
});

test("a child that keeps dying is started again ever more slowly", async (t) => {
  const world = fixture(t);
  world.start([{ name: "gate", root: world.root, config: { exit: 1 } }]);
  await until(() => world.deaths.length === 3);
  assert.deepEqual(
    world.deaths.map((death) => death.restartMs),
    [100, 200, 400],
  );
});

test("a child that is never ready is given up where the tries are counted", async (t) => {
  const world = fixture(t, { firstTries: 2 });
  const supervisor = world.start([{ name: "gate", root: world.root, config: { exit: 1 } }]);
  await assert.rejects(supervisor.ready, /could not start/);
  assert.deepEqual(
    world.deaths.map((death) => death.restartMs),
    [100, undefined],
  );
});

test("close drains, and does not start again what it ended", async (t) => {
  const world = fixture(t);
  const supervisor = world.start([
    { name: "gate", root: world.root, config: { name: "g", doors: { data: anyPort } } },
  ]);
  await supervisor.ready;
  const port = portOf(supervisor.doors().gate?.data);
  await Promise.all([supervisor.close(), supervisor.close()]);
  assert.deepEqual(world.deaths, []);
  assert.deepEqual(supervisor.pids(), {});
  assert.equal(await call(port), "ECONNREFUSED", "the descriptors are closed too");
});

test("a child that does not drain is killed when its time is up", async (t) => {
  const world = fixture(t, { drainMs: 100 });
  const supervisor = world.start([{ name: "gate", root: world.root, config: { stubborn: true } }]);
  await supervisor.ready;
  const pid = Number(supervisor.pids().gate);
  await supervisor.close();
  assert.throws(() => process.kill(pid, 0), { code: "ESRCH" });
});

test("messages go both ways, and a configuration of any size arrives", async (t) => {
  const world = fixture(t);
  const long = "x".repeat(1_000_000);
  const supervisor = world.start([{ name: "gate", root: world.root, config: { long } }]);
  await supervisor.ready;
  assert.ok(supervisor.send("gate", { kind: "echo", text: "hello" }));
  assert.ok(!supervisor.send("nobody", { kind: "echo" }));
  await until(() => world.heard.length === 1);
  assert.deepEqual(world.heard, [{ kind: "echoed", text: "hello", long: long.length }]);
});

test("a supervisor that is killed takes its children down", async (t) => {
  const world = fixture(t);
  const file = join(world.folder, "supervisor.ts");
  writeFileSync(
    file,
    `import { startSupervisor } from ${here("./start-supervisor.ts")};
     const supervisor = startSupervisor({
       children: [{ name: "gate", root: new URL("root.ts", import.meta.url), config: { name: "g", doors: {} } }],
       log: { info() {}, warn() {}, error() {} },
     });
     await supervisor.ready;
     console.log(supervisor.pids().gate);`,
  );
  const parent = spawn(process.execPath, [file], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => parent.kill("SIGKILL"));
  const [line] = (await once(parent.stdout, "data")) as [Buffer];
  const pid = Number(String(line));
  process.kill(pid, 0);
  parent.kill("SIGKILL");
  await until(() => {
    try {
      process.kill(pid, 0);
      return false;
    } catch {
      return true;
    }
  });
});
