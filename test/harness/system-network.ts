import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import type { TestContext } from "node:test";
import { isAlive, mainFile, until } from "./system-world.ts";

/** Machines as network namespaces on one bridge, 10.77.0.0/24. */
export type Network = {
  /** `10.77.0.11`. */
  address(machine: string): string;
  /** Runs a program on a machine and collects what it says. */
  run(machine: string, program: string, ...args: string[]): Promise<Ran>;
  /** The command line, on a machine. */
  sallyport(machine: string, ...args: string[]): Promise<Ran>;
  /** Starts a program that stays; it is ended with the network. */
  start(machine: string, program: string, ...args: string[]): Started;
  /** Pulls a machine's cable, or puts it back. */
  cable(machine: string, state: "up" | "down"): void;
  /** `ip ...` on a machine. */
  ip(machine: string, ...args: string[]): void;
  /** Local addresses of every listening TCP socket: `10.77.0.11:7443`. */
  listening(machine: string): string[];
};

export type Ran = {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
};

export type Started = {
  readonly process: ChildProcess;
  readonly pid: number;
  /** What it has printed so far, both streams. */
  said(): string;
  stop(signal: NodeJS.Signals): Promise<number | null>;
};

/** Whether this process may make network namespaces here. */
export function mayMakeNetworks(): boolean {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return false;
  const name = `spt${process.pid}-try`;
  try {
    execFileSync("ip", ["netns", "add", name], { stdio: "ignore" });
    execFileSync("ip", ["netns", "del", name], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/** Makes the machines and a switch between them. All of it is gone when the test ends, and that is asserted. */
export function makeNetwork(t: TestContext, machines: readonly string[]): Network {
  const prefix = `spt${process.pid}`;
  const space = (machine: string): string => `${prefix}-${machine}`;
  const hub = space("hub");
  const started: Started[] = [];
  const ip = (...args: string[]): void => {
    execFileSync("ip", args, { stdio: ["ignore", "ignore", "pipe"] });
  };
  const address = (machine: string): string => `10.77.0.${10 + machines.indexOf(machine)}`;
  t.after(async () => {
    for (const one of started) await one.stop("SIGKILL");
    for (const name of [...machines.map(space), hub]) {
      const pids = (): number[] =>
        execFileSync("ip", ["netns", "pids", name], { encoding: "utf8" })
          .split("\n")
          .filter(Boolean)
          .map(Number)
          .filter(isAlive);
      // Children of what was killed end by themselves; nothing here ends them.
      await until(`no process is left in ${name}`, () => pids().length === 0, 5_000);
      ip("netns", "del", name);
    }
    const left = execFileSync("ip", ["netns", "list"], { encoding: "utf8" });
    assert.ok(!left.includes(prefix), `a namespace is left: ${left}`);
  });
  ip("netns", "add", hub);
  ip("-n", hub, "link", "add", "bridge", "type", "bridge");
  ip("-n", hub, "link", "set", "bridge", "up");
  for (const machine of machines) {
    const name = space(machine);
    ip("netns", "add", name);
    ip("-n", name, "link", "set", "lo", "up");
    ip("link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", machine, "netns", hub);
    ip("-n", hub, "link", "set", machine, "master", "bridge", "up");
    ip("-n", name, "addr", "add", `${address(machine)}/24`, "dev", "eth0");
    ip("-n", name, "link", "set", "eth0", "up");
  }

  const start: Network["start"] = (machine, program, ...args) => {
    const child = spawn("ip", ["netns", "exec", space(machine), program, ...args], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let said = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk: Buffer) => {
        said += chunk;
      });
    const ended = once(child, "close") as Promise<[number | null]>;
    const one: Started = {
      process: child,
      pid: child.pid as number,
      said: () => said,
      async stop(signal) {
        if (child.exitCode === null && child.signalCode === null) child.kill(signal);
        return (await ended)[0];
      },
    };
    started.push(one);
    return one;
  };
  const run: Network["run"] = async (machine, program, ...args) => {
    const child = spawn("ip", ["netns", "exec", space(machine), program, ...args], {
      stdio: ["ignore", "pipe", "pipe"],
    });
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
  };
  return {
    address,
    run,
    start,
    sallyport: (machine, ...args) => run(machine, process.execPath, mainFile, ...args),
    cable: (machine, state) => ip("-n", hub, "link", "set", machine, state),
    ip: (machine, ...args) => ip("-n", space(machine), ...args),
    listening: (machine) =>
      execFileSync("ip", ["netns", "exec", space(machine), "ss", "-Hltn"], { encoding: "utf8" })
        .split("\n")
        .filter(Boolean)
        .map((line) => line.trim().split(/\s+/)[3] as string),
  };
}
