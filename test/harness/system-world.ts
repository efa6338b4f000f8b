import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { Agent, request } from "node:https";
import { type AddressInfo, connect, createServer as createTcpServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { queryHits } from "../../src/audit/hit-log/query.ts";
import { verifyLog } from "../../src/audit/hit-log/verify.ts";
import { splitHostPort } from "../../src/base/address.ts";
import type { Credentials } from "../../src/base/credentials.ts";
import { silentLog } from "../../src/base/log.ts";
import { gateName, startHere } from "../../src/cli/supervisor/start-here.ts";
import type { Supervisor } from "../../src/cli/supervisor/start-supervisor.ts";
import { type ControlClient, createControlClient } from "../../src/control/client/client.ts";
import {
  readCredentials,
  type StoredCredentials,
} from "../../src/identity/credentials/credential-directory.ts";
import { enroll } from "../../src/identity/enroll/enroll.ts";
import type { Hit } from "../../src/model/hit.ts";

export const mainFile = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
export const trustDomain = "shop.test";

/** Where the world's own doors and upstream stand: fixed ports, because control binds its own again after a restart. */
export type Ports = Readonly<Record<"control" | "join" | "ops" | "data" | "upstream", number>>;

export type Called = {
  readonly status: number;
  readonly hit: string | undefined;
  readonly body: string;
  readonly code: string | undefined;
  /** Our end of the connection. */
  readonly localPort: number;
};

/** What ends before the programs do, whatever becomes of the test: a load that ran on would keep it from ending. */
export type Closing = { readonly beforeClose: (() => unknown)[] };

/** Control, a gate, an upstream and callers: the real programs, each in its own process, in a directory that is removed. */
export type SystemWorld = Closing & {
  readonly dir: string;
  readonly stateDir: string;
  readonly adminDir: string;
  readonly gateHits: string;
  readonly controlHits: string;
  readonly ports: Ports;
  readonly supervisor: Supervisor;
  /** Every line that control and the gate printed. */
  readonly said: string[];
  /** An operator's client: the first administrator. */
  api(): Promise<ControlClient>;
  /** A service's credentials, issued through the API and the join door. */
  enrol(name: string): Promise<StoredCredentials & { readonly dir: string }>;
  /** Publishes a register, replacing what stands. Resolves to the snapshot's name. */
  apply(text: string): Promise<string>;
  /** The command line as an operator runs it. */
  cli(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }>;
  hits(filter?: Parameters<typeof queryHits>[1]): Promise<Hit[]>;
  verify(): ReturnType<typeof verifyLog>;
  /** What the gate's ops door says. */
  metrics(): Promise<Readonly<Record<string, number>>>;
};

/** The register most scenarios begin with. */
export function shopRegister(ports: Ports, more: { readonly rules?: string } = {}): string {
  return `version: 1
trustDomain: ${trustDomain}
planes:
  control: { bind: "127.0.0.1:${ports.control}" }
  join:    { bind: "127.0.0.1:${ports.join}" }
  ops:     { bind: "127.0.0.1:${ports.ops}" }
  data:    { bind: "127.0.0.1:${ports.data}" }
services:
  web:    { owner: storefront }
  intern: { owner: storefront }
  orders:
    owner: commerce
    ports:
      http: { protocol: http, upstreams: ["127.0.0.1:${ports.upstream}"] }
    allow:
${more.rules ?? '      - { id: web-reads, from: [web, intern], methods: [GET], paths: ["/orders/**"] }'}
`;
}

/** Starts everything and waits until it is ready. Stopped, and proven to be gone, when the test ends. */
export async function startSystemWorld(
  t: TestContext,
  options: {
    readonly register?: (ports: Ports) => string;
    readonly workers?: number;
    /** Environment of control and gate beside this process's own. */
    readonly env?: Readonly<Record<string, string>>;
    /** Called with the state directory before anything is started. */
    readonly prepare?: (stateDir: string) => void;
  } = {},
): Promise<SystemWorld> {
  const dir = mkdtempSync(join(tmpdir(), "sallyport-system-"));
  const stateDir = join(dir, ".sallyport");
  const adminDir = join(stateDir, "admin");
  const upstream = await startUpstream();
  const free = await freePorts(4);
  const [control = 0, joinPort = 0, ops = 0, data = 0] = free;
  const ports = { control, join: joinPort, ops, data, upstream: portOf(upstream) };
  const said: string[] = [];
  const beforeClose: Closing["beforeClose"] = [];
  options.prepare?.(stateDir);
  const file = join(dir, "sallyport.yaml");
  const text = (options.register ?? shopRegister)(ports);
  writeFileSync(file, text);
  const before = { ...process.env };
  Object.assign(process.env, options.env);
  const supervisor = startHere({
    stateDir,
    files: [{ name: join(dir, "sallyport.yaml"), text: (options.register ?? shopRegister)(ports) }],
    drainMs: 2_000,
    log: silentLog,
    workers: options.workers ?? 2,
    onLine: (name, line) => said.push(`${name}: ${line}`),
  });
  const pids = new Set<number>();
  const remember = () => {
    for (const pid of Object.values(supervisor.pids())) pids.add(pid);
  };
  t.after(async () => {
    remember();
    for (const close of beforeClose) await close();
    await supervisor.close();
    upstream.closeAllConnections();
    upstream.close();
    rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
    for (const pid of pids) assert.ok(!isAlive(pid), `process ${pid} is left`);
    for (const port of free)
      assert.ok(!(await isOpen("127.0.0.1", port)), `port ${port} is left open`);
  });
  t.after(() => {
    // Said only when something went wrong: what the processes had to say about it.
    if (!(t as { readonly passed?: boolean }).passed)
      for (const line of said.slice(-60)) t.diagnostic(line);
  });
  await supervisor.ready;
  for (const name of Object.keys(options.env ?? {}))
    if (before[name] === undefined) delete process.env[name];
    else process.env[name] = before[name];
  remember();

  const api = async (): Promise<ControlClient> => {
    const context = JSON.parse(readFileSync(join(adminDir, "context.json"), "utf8"));
    const credentials = await readCredentials(adminDir);
    const client = createControlClient({ ...context, credentials, clock: Date.now });
    beforeClose.push(() => client.close());
    return client;
  };
  const hitDirs = [join(stateDir, "gates", gateName, "hits"), join(stateDir, "control", "hits")];
  return {
    beforeClose,
    dir,
    stateDir,
    adminDir,
    gateHits: hitDirs[0] as string,
    controlHits: hitDirs[1] as string,
    ports,
    supervisor,
    said,
    api,
    async enrol(name) {
      const client = await api();
      const { body } = await client.call("POST", "/v1/tokens", { body: { service: name } });
      const out = join(dir, name);
      await enroll({ token: (body as { token: string }).token, out, clock: Date.now });
      return { ...(await readCredentials(out)), dir: out };
    },
    async apply(text) {
      const client = await api();
      const { body } = await client.call("PUT", "/v1/register", {
        query: { force: true, waitMs: 5_000 },
        body: { files: [{ name: "sallyport.yaml", text }] },
      });
      return (body as { snapshot: string }).snapshot;
    },
    cli: (...args) => runCli([...args, "--context", adminDir], dir),
    async hits(filter) {
      const found: Hit[] = [];
      for await (const hit of queryHits(hitDirs, { limit: 1_000_000, ...filter })) found.push(hit);
      return found;
    },
    verify: () => verifyLog(hitDirs),
    async metrics() {
      const text = await (await fetch(`http://127.0.0.1:${ports.ops}/metrics`)).text();
      return Object.fromEntries(
        [...text.matchAll(/^(?:sallyport_)?(\w+)(?:\{[^}]*\})? (-?[\d.e+]+)$/gm)].map(
          ([, name = "", value]) => [name, Number(value)],
        ),
      );
    },
  };
}

/** Runs the command line and collects what it says. */
export async function runCli(
  args: readonly string[],
  cwd: string,
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [mainFile, ...args], { cwd, env: process.env });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk: Buffer) => {
    stdout += chunk;
  });
  child.stderr.on("data", (chunk: Buffer) => {
    stderr += chunk;
  });
  const [code] = (await once(child, "close")) as [number | null];
  return { code, stdout, stderr };
}

/** One caller with connections that stay open. */
export type Caller = {
  call(path: string, more?: { host?: string; method?: string }): Promise<Called>;
  /** New connections from here on are made with these. */
  use(credentials: Credentials): void;
  close(): void;
};

/** Calls through the gate as a real client does: keep-alive, the gate's certificate checked against the bundle. */
export function callerOf(
  world: Closing,
  credentials: Credentials,
  more: {
    readonly port: number;
    readonly connections?: number;
    readonly address?: string;
    readonly host?: string;
  },
): Caller {
  const old = new Set<Agent>();
  const close = (): void => {
    for (const one of [agent, ...old]) one.destroy();
  };
  world.beforeClose.push(close);
  let agent = agentFor(credentials, more.connections ?? 4);
  return {
    use(next) {
      const before = agent;
      agent = agentFor(next, more.connections ?? 4);
      // What is under way goes on; what rests is of no more use.
      for (const sockets of Object.values(before.freeSockets))
        for (const socket of sockets ?? []) socket.destroy();
      old.add(before);
    },
    close,
    call: (path, { host = more.host ?? "orders", method = "GET" } = {}) =>
      new Promise((resolve, reject) => {
        const outgoing = request({
          agent,
          host: more.address ?? "127.0.0.1",
          port: more.port,
          path,
          method,
          headers: { Host: host },
        });
        outgoing.setTimeout(10_000, () => outgoing.destroy(new Error("no answer in 10 s")));
        outgoing.on("error", reject);
        outgoing.on("response", (response) => {
          let body = "";
          const localPort = response.socket.localPort ?? 0;
          response.setEncoding("utf8");
          response.on("data", (piece: string) => {
            body += piece;
          });
          response.on("error", reject);
          response.on("end", () => {
            const hit = response.headers["sallyport-hit"];
            resolve({
              status: response.statusCode ?? 0,
              hit: typeof hit === "string" ? hit : undefined,
              body,
              code: /"code":\s*"(\w+)"/.exec(body)?.[1],
              localPort,
            });
          });
        });
        outgoing.end();
      }),
  };
}

/** The check stands in the agent, not in each request: Node keeps no connection that had a check of its own. */
function agentFor(credentials: Credentials, maxSockets: number): Agent {
  return new Agent({
    keepAlive: true,
    maxSockets,
    key: credentials.keyPem,
    cert: credentials.chainPem,
    ca: credentials.bundlePem,
    minVersion: "TLSv1.3",
    checkServerIdentity: (_, peer) =>
      peer.subjectaltname?.includes(`URI:spiffe://${trustDomain}/gate/`)
        ? undefined
        : new Error(`not a gate: ${peer.subjectaltname}`),
  });
}

export type Load = {
  /** Every answer so far. */
  readonly answers: Called[];
  /** Every request without an answer so far. */
  readonly failures: Error[];
  stop(): Promise<void>;
};

/** Asks without pause on so many connections, until it is stopped. */
export function startLoad(
  world: Closing,
  caller: Caller,
  options: {
    readonly lanes?: number;
    readonly everyMs?: number;
    readonly path?: string;
    readonly host?: string;
  } = {},
): Load {
  const answers: Called[] = [];
  const failures: Error[] = [];
  let isStopped = false;
  const lane = async (): Promise<void> => {
    while (!isStopped) {
      try {
        const { path = "/orders/7", host } = options;
        answers.push(await caller.call(path, host === undefined ? {} : { host }));
        if (options.everyMs) await pause(options.everyMs);
      } catch (cause) {
        failures.push(cause as Error);
        await pause(10);
      }
    }
  };
  const lanes = Array.from({ length: options.lanes ?? 4 }, lane);
  const stop = async (): Promise<void> => {
    isStopped = true;
    await Promise.all(lanes);
  };
  world.beforeClose.unshift(() => {
    isStopped = true;
  });
  return { answers, failures, stop };
}

/** Resolves when the condition holds; rejects with its name when it does not within the time. */
export async function until(
  what: string,
  holds: () => boolean | Promise<boolean>,
  withinMs = 10_000,
): Promise<number> {
  const start = performance.now();
  for (;;) {
    if (await holds()) return performance.now() - start;
    if (performance.now() - start > withinMs) throw new Error(`not within ${withinMs} ms: ${what}`);
    await pause(10);
  }
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // A zombie has ended; its parent has not asked yet.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

export function isOpen(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, host);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

/** Ports that were free a moment ago, all different. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createTcpServer().listen(0, "127.0.0.1");
      await once(server, "listening");
      return server;
    }),
  );
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((done) => server.close(done))));
  return ports;
}

/** A service as it would be: plain HTTP on loopback, no idea of certificates. */
export async function startUpstream(address = "127.0.0.1", port = 0): Promise<Server> {
  const server = createServer((incoming, response) => {
    incoming.resume().on("end", () => {
      response.setHeader("content-type", "application/json");
      response.end(
        JSON.stringify({ path: incoming.url, caller: incoming.headers["sallyport-caller"] }),
      );
    });
  });
  server.keepAliveTimeout = 60_000;
  server.listen(port, address);
  await once(server, "listening");
  return server;
}

export function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}

/** Each of these answers is in the log, which nobody changed. */
export async function assertRecorded(
  world: Pick<SystemWorld, "hits" | "verify">,
  answers: readonly Called[],
): Promise<void> {
  const report = await world.verify();
  assert.deepEqual(report.problems, []);
  const recorded = new Set((await world.hits()).map(({ id }) => id));
  const missing = answers.filter(({ hit }) => hit === undefined || !recorded.has(hit));
  assert.deepEqual(missing.slice(0, 5), [], `${missing.length} answers are not in the log`);
}

/** The gate's data door as it told the supervisor. */
export function dataDoor(supervisor: Supervisor): { host: string; port: number } {
  const door = splitHostPort(supervisor.doors()[gateName]?.data ?? "");
  assert.ok(door, "the gate has no data door");
  return door;
}

/** Which chain of the hit log wrote it, and so which worker. */
export function chainOf(called: Called): string {
  return called.hit?.split("-")[0] ?? "";
}
