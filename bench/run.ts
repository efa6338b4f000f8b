import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { Credentials } from "../src/base/credentials.ts";
import type { Assignment, Peer } from "./job.ts";
import type { Measured, Order } from "./load.ts";
import { type Gate, startGate } from "./peers/gate.ts";
import { startHaproxy } from "./peers/haproxy.ts";
import { startNginx } from "./peers/nginx.ts";
import { startNodeUndici } from "./peers/node-undici.ts";
import { cores, end, forkModule, pin, pinner, versionOf } from "./processes.ts";
import { chart, type Machine, type Report, summarize, table, withNumbers } from "./report.ts";

const usage = `npm run bench -- [--rounds 5] [--seconds 4] [--connections 64] [--only sallyport,haproxy,node,nginx] [--dry]

CPU time per proxied request of the gate and of its peers, one beside the other. See bench/README.md.

  --rounds N        how often each of them is measured, in turn (1 to 50)
  --seconds N       length of one measurement (1 to 60), after a second to warm up
  --connections N   connections of the load, each with one request under way (1 to 256)
  --only NAMES      leave out the others
  --dry             print, and leave README.md and chart.svg as they are
`;

const options = readOptions();
const peerStarters: Readonly<Record<string, (given: Assignment) => Promise<Peer | undefined>>> = {
  haproxy: startHaproxy,
  node: startNodeUndici,
  nginx: startNginx,
};
/** Before the first round each peer is warmed up this long: what V8 compiles, it compiles then. */
const firstWarmUpMs = 3_000;
const warmUpMs = 1_000;
/** Nothing of this should hang; if it does, it ends here. */
const overtimeMs = 60_000;

const dir = mkdtempSync(join(tmpdir(), "sallyport-bench-"));
const children: ChildProcess[] = [];
const peers: Peer[] = [];
let isLeaving = false;
for (const signal of ["SIGINT", "SIGTERM"] as const)
  process.once(signal, () => void leave().then(() => process.exit(1)));

try {
  await bench();
} catch (cause) {
  note(cause instanceof Error ? cause.message : String(cause));
  process.exitCode = 1;
} finally {
  await leave();
}

async function bench(): Promise<void> {
  refuseUnfitMachine();
  pin(process.pid, cores.others);
  const origin = await forkModule<{ port: number }>("./origin.ts");
  children.push(origin.child);
  const load = await forkModule<{ ready: true }>("./load.ts");
  children.push(load.child);
  note("starting control and a gate …");
  const gate = await startGate(place("sallyport"), origin.first.port);
  peers.push(gate);
  await startOthers(gate, origin.first.port);

  const measured = peers.filter((peer) => isWanted(peer === gate ? "sallyport" : nameOf(peer)));
  if (measured.length === 0) throw new Error("nothing is left to measure");
  const perRoundMs = measured.length * (options.seconds * 1_000 + warmUpMs + 500);
  const expectedMs = options.rounds * perRoundMs + measured.length * (firstWarmUpMs + 500);
  const watchdog = setTimeout(() => {
    note("this takes far longer than it should: giving up");
    void leave().then(() => process.exit(1));
  }, expectedMs + overtimeMs);
  note(
    `${measured.length} proxies, ${options.rounds} rounds, about ${Math.ceil(expectedMs / 1_000)} s`,
  );

  const machine = { before: loadavg()[0] ?? 0, steal: stealTicks() };
  for (const peer of measured)
    await measure(load.child, peer, gate.caller, { warmUpMs: firstWarmUpMs, windowMs: 500 });
  const rounds: {
    readonly name: string;
    readonly version: string;
    readonly windows: Measured[];
  }[] = measured.map(({ name, version }) => ({ name, version, windows: [] }));
  for (let round = 1; round <= options.rounds; round++) {
    for (const [i, peer] of measured.entries()) {
      const window = await measure(load.child, peer, gate.caller, {
        warmUpMs,
        windowMs: options.seconds * 1_000,
      });
      rounds[i]?.windows.push(window);
      const us = ((window.userMs + window.systemMs) * 1_000) / window.requests;
      note(
        `round ${round}  ${peer.name.padEnd(20)} ${us.toFixed(1).padStart(7)} µs a request, ${Math.round((window.requests * 1_000) / window.wallMs)} a second`,
      );
    }
  }
  clearTimeout(watchdog);
  const report: Report = {
    at: new Date().toISOString(),
    options,
    machine: describeMachine(machine),
    peers: rounds,
  };
  const numbers = table(report);
  process.stdout.write(`\n${numbers}\n`);
  const out = new URL("./out/", import.meta.url);
  mkdirSync(out, { recursive: true });
  const whole = { ...report, summary: summarize(report) };
  writeFileSync(
    new URL(`${report.at.replaceAll(":", "-")}.json`, out),
    `${JSON.stringify(whole, null, 2)}\n`,
  );
  if (options.dry) return;
  const readme = new URL("./README.md", import.meta.url);
  writeFileSync(readme, withNumbers(readFileSync(readme, "utf8"), numbers));
  writeFileSync(new URL("./chart.svg", import.meta.url), chart(report));
}

async function startOthers(gate: Gate, originPort: number): Promise<void> {
  for (const [name, start] of Object.entries(peerStarters)) {
    if (!isWanted(name)) continue;
    const { server, callerSerial, callerUri } = gate;
    const given = { dir: place(name), originPort, server, callerSerial, callerUri };
    const peer = await start(given);
    if (peer === undefined) note(`${name} is not installed: left out`);
    else peers.push(peer);
  }
}

/** One window. Throws when an answer was not the one expected, or when the access log lacks a request. */
async function measure(
  load: ChildProcess,
  peer: Peer,
  caller: Credentials,
  times: Pick<Order, "warmUpMs" | "windowMs">,
): Promise<Measured> {
  const linesBefore = peer.logLines();
  const order: Order = {
    pid: peer.pid,
    port: peer.port,
    caller,
    connections: options.connections,
    ...times,
  };
  load.send(order);
  const [answer] = (await once(load, "message")) as [Measured | { failed: string }];
  if ("failed" in answer) throw new Error(`${peer.name}: ${answer.failed}`);
  if (answer.errors > 0)
    throw new Error(`${peer.name}: ${answer.errors} errors, the first: ${answer.firstError}`);
  const logged = peer.logLines() - linesBefore;
  if (logged < answer.requests)
    throw new Error(`${peer.name} logged ${logged} of ${answer.requests} requests`);
  return answer;
}

async function leave(): Promise<void> {
  if (isLeaving) return;
  isLeaving = true;
  await Promise.allSettled(peers.map((peer) => peer.close()));
  await Promise.allSettled(children.map((child) => end(child)));
  rmSync(dir, { recursive: true, force: true });
}

function place(name: string): string {
  const at = join(dir, name);
  mkdirSync(at, { mode: 0o700 });
  return at;
}

function isWanted(name: string): boolean {
  return options.only.length === 0 || options.only.includes(name);
}

function nameOf(peer: Peer): string {
  return peer.name.split(":", 1)[0] ?? peer.name;
}

function refuseUnfitMachine(): void {
  if (process.platform !== "linux")
    throw new Error("the bench reads CPU times from /proc and pins with taskset: it needs Linux");
  if (cpus().length < 2)
    throw new Error("the bench needs two cores: one for the proxy, one for everything else");
  if (versionOf(pinner, ["--version"], /(\S+)\s*$/) === undefined)
    throw new Error(`the bench pins with ${pinner}: install util-linux`);
}

function describeMachine(before: { before: number; steal: number }): Machine {
  return {
    cores: cpus().length,
    model: cpus()[0]?.model ?? "unknown",
    kernel: release(),
    node: process.versions.node,
    openssl: process.versions.openssl,
    loadBefore: before.before,
    loadAfter: loadavg()[0] ?? 0,
    stolenMs: (stealTicks() - before.steal) * 10,
  };
}

/** Time that the hypervisor gave to others, in ticks of 10 ms. */
function stealTicks(): number {
  const [first = ""] = readFileSync("/proc/stat", "latin1").split("\n", 1);
  return Number(first.trim().split(/\s+/)[8] ?? 0);
}

function readOptions() {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "5" },
      seconds: { type: "string", default: "4" },
      connections: { type: "string", default: "64" },
      only: { type: "string", default: "" },
      dry: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(usage);
    process.exit(0);
  }
  const only = values.only.split(",").filter((name) => name !== "");
  const known = ["sallyport", "haproxy", "node", "nginx"];
  const unknown = only.filter((name) => !known.includes(name));
  const numbers = {
    rounds: wholeNumber(values.rounds, 50),
    seconds: wholeNumber(values.seconds, 60),
    connections: wholeNumber(values.connections, 256),
  };
  if (unknown.length > 0 || Object.values(numbers).includes(0)) {
    process.stderr.write(usage);
    process.exit(2);
  }
  return { ...numbers, only, dry: values.dry };
}

/** 1 to `most`, else 0. */
function wholeNumber(text: string, most: number): number {
  const number = Number(text);
  return Number.isInteger(number) && number >= 1 && number <= most ? number : 0;
}

function note(text: string): void {
  process.stderr.write(`${text}\n`);
}
