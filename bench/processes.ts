import { type ChildProcess, execFileSync, fork, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readFileSync } from "node:fs";
import { type AddressInfo, connect, createServer } from "node:net";

/** Proxies run on the first, everything else on the second: nobody waits for the core of the one that is measured. */
export const cores = { proxy: 0, others: 1 } as const;

/** The program that pins: from util-linux, on every distribution. */
export const pinner = "taskset";

/** Moves all threads of a process, and what it starts from now on. Throws when taskset is missing or refuses. */
export function pin(pid: number, core: number): void {
  execFileSync(pinner, ["-a", "-c", "-p", String(core), String(pid)], { stdio: "ignore" });
}

/** Starts a module of ours with a channel; it ends when the channel closes. Resolves with its first message. */
export async function forkModule<T>(
  name: string,
  configuration?: object,
): Promise<{ child: ChildProcess; first: T }> {
  const child = fork(new URL(name, import.meta.url), [], { serialization: "advanced" });
  // Over the channel: keys must not be seen in the list of processes.
  if (configuration !== undefined) child.send(configuration);
  const first = await Promise.race([
    once(child, "message").then(([message]) => message as T),
    once(child, "exit").then(([code]) => {
      throw new Error(`${name} ended with ${code} before it was ready`);
    }),
  ]);
  return { child, first };
}

/** Starts a program in the foreground, its output in a file, and resolves once `port` takes connections. */
export async function startProgram(
  program: string,
  args: readonly string[],
  with_: { readonly port: number; readonly outputFile: string },
): Promise<ChildProcess> {
  const output = openSync(with_.outputFile, "a", 0o600);
  const child = spawn(program, args, { stdio: ["ignore", output, output] });
  closeSync(output);
  let problem: string | undefined;
  child.on("error", (error) => {
    problem = error.message;
  });
  const deadline = Date.now() + 5_000;
  while (!(await takesConnections(with_.port))) {
    if (problem !== undefined || child.exitCode !== null || Date.now() > deadline) {
      await end(child);
      throw new Error(problem ?? `${program}: ${readFileSync(with_.outputFile, "utf8")}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return child;
}

/** Asks it to end, and after three seconds does not ask any more. */
export async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const gone = once(child, "exit");
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), 3_000);
  await gone;
  clearTimeout(timer);
}

/** What the program says about its version, or undefined when it is not installed. */
export function versionOf(
  program: string,
  args: readonly string[],
  pattern: RegExp,
): string | undefined {
  const run = spawnSync(program, args, { encoding: "utf8" });
  if (run.error !== undefined) return undefined;
  return pattern.exec(`${run.stdout}${run.stderr}`)?.[1];
}

/** A port that was free a moment ago: for programs that cannot say which one they took. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

async function takesConnections(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
