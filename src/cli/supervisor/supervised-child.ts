import { type ChildProcess, fork } from "node:child_process";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import type { Log } from "../../base/log.ts";
import type { Given } from "./given-descriptors.ts";
import { type Held, type holdDescriptors, ListenFailed } from "./hold-descriptors.ts";
import { copiesMax, type Doors, type ToChild } from "./messages.ts";
import { readLines } from "./read-lines.ts";

export type ChildSpec = {
  /** Unique; prefixes its lines. */
  readonly name: string;
  /** A file of `cli/roots/`, or any other module. */
  readonly root: "control" | "gate" | URL;
  /** Plain JSON without secrets: it can be seen in the list of processes. A function is asked again at every start. */
  readonly config: object | (() => object);
};

export type Death = {
  readonly name: string;
  readonly pid: number | undefined;
  readonly code: number | null;
  readonly signal: string | null;
  /** How long it lived. */
  readonly ranMs: number;
  /** When it will be started again; undefined: never. */
  readonly restartMs: number | undefined;
};

export type SupervisorOptions = {
  readonly children: readonly ChildSpec[];
  readonly log: Log;
  /** Each time a child's process was started: it hears what is sent to it now. */
  readonly onStart?: (name: string) => void;
  /** Each time a child says that its doors are open. */
  readonly onReady?: (name: string, doors: Doors) => void;
  /** Each time a child ends without having been asked to. */
  readonly onDeath?: (death: Death) => void;
  /** Whatever a child says that is not for the supervisor itself. */
  readonly onMessage?: (name: string, message: { readonly kind: string }) => void;
  /** Each line that a child prints. Default: to standard error, after the child's name. */
  readonly onLine?: (name: string, line: string) => void;
  /** How often a child may die before it was ever ready until that is final. Default: it is tried for ever. */
  readonly firstTries?: number;
  /**
   * Where the children keep their compiled code, so that a killed one is back in half the time. What lies there is run: only whoever runs
   * the children may write to it. Default: nothing is kept.
   */
  readonly codeDir?: string;
  /** Addresses that a service manager has bound for us. Default: none. */
  readonly given?: readonly Given[];
  /** How long a child may take to drain before it is killed. Default 30 s, the time orchestrators usually give. */
  readonly drainMs?: number;
};

/** What its supervisor lends to each child. */
export type House = {
  readonly options: SupervisorOptions;
  readonly descriptors: ReturnType<typeof holdDescriptors>;
  readonly isClosing: () => boolean;
  /** The child will never be ready. */
  readonly onHopeless: (cause: Error) => void;
  readonly onOpened: (name: string) => void;
};

/** A child that ends with this code has said that its configuration cannot work: starting it again changes nothing. */
const wrongUsage = 2;
const backoffMs = { first: 100, max: 5000, forgottenAfter: 30_000 };
/** Above this the configuration goes over standard input: the kernel refuses arguments from 128 KiB on. */
const argumentBytesMax = 65_536;

/** One child over all its lives: started, heard, buried, started again. */
export class SupervisedChild {
  readonly #spec: ChildSpec;
  readonly #house: House;
  #process: ChildProcess | undefined;
  #timer: NodeJS.Timeout | undefined;
  #delayMs = backoffMs.first;
  #wasReady = false;
  #deaths = 0;
  /** What this life has asked for. */
  #used = new Set<Held>();
  #anyPort = new Map<string, number>();
  #gone = Promise.resolve();
  doors: Doors | undefined;

  constructor(spec: ChildSpec, house: House) {
    this.#spec = spec;
    this.#house = house;
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  start(): void {
    const { name, config } = this.#spec;
    const startedMs = Date.now();
    const text = JSON.stringify(typeof config === "function" ? config() : config);
    const isLong = Buffer.byteLength(text) > argumentBytesMax;
    this.#used = new Set();
    this.#anyPort = new Map();
    const child = fork(fileURLToPath(moduleOf(this.#spec.root)), [isLong ? "-" : text], {
      execArgv: [],
      // Its own process group: Ctrl-C in a terminal reaches the supervisor alone, which then drains in order.
      detached: true,
      env: childEnv(this.#house.options.codeDir),
      stdio: ["pipe", "pipe", "pipe", "ipc"],
    });
    this.#process = child;
    child.stdin?.on("error", () => {}); // one that died before it read tells so by its exit
    child.stdin?.end(isLong ? text : "");
    for (const stream of [child.stdout, child.stderr])
      if (stream)
        readLines(stream, (line) => (this.#house.options.onLine ?? printLine)(name, line));
    child.on("message", (message) => this.#hear(message));
    // Without its channel a child can neither be told to drain nor notice that we are gone. One that is ending may close it.
    child.on("disconnect", () => {
      if (!this.#house.isClosing()) setTimeout(() => child.kill("SIGKILL"), 1000).unref();
    });
    setImmediate(() => {
      if (this.#process === child) this.#house.options.onStart?.(name);
    });
    this.#gone = new Promise((resolve) => {
      let isOver = false;
      const end = (code: number | null, signal: string | null): void => {
        if (isOver) return;
        isOver = true;
        if (this.#process === child) this.#process = undefined;
        this.#bury({ name, pid: child.pid, code, signal, ranMs: Date.now() - startedMs });
        resolve();
      };
      child.on("close", end);
      // A grandchild may hold the pipes open; the last lines get a moment to arrive, not more.
      child.on("exit", (code, signal) => setTimeout(() => end(code, signal), 250).unref());
      child.on("error", (cause) => {
        this.#house.options.log.error(
          { child: name, cause: cause.message },
          "a process could not be started or reached",
        );
        if (child.pid === undefined) end(null, null);
      });
    });
  }

  send(message: object): boolean {
    const child = this.#process;
    if (!child?.connected) return false;
    child.send(message, () => {}); // a channel that closed meanwhile is noticed by its exit
    return true;
  }

  async drain(deadlineMs: number): Promise<void> {
    clearTimeout(this.#timer);
    const child = this.#process;
    if (!child) return;
    this.send({ kind: "drain" } satisfies ToChild);
    child.kill("SIGTERM");
    const timer = setTimeout(() => {
      this.#house.options.log.warn(
        { child: this.#spec.name },
        "did not drain in time and is killed",
      );
      child.kill("SIGKILL");
    }, deadlineMs);
    await this.#gone;
    clearTimeout(timer);
  }

  kill(): void {
    clearTimeout(this.#timer);
    this.#process?.kill("SIGKILL");
  }

  #bury(end: Omit<Death, "restartMs">): void {
    this.doors = undefined;
    if (this.#house.isClosing()) return;
    this.#deaths++;
    const isHopeless =
      !this.#wasReady &&
      (end.code === wrongUsage || this.#deaths >= (this.#house.options.firstTries ?? Infinity));
    if (end.ranMs >= backoffMs.forgottenAfter) this.#delayMs = backoffMs.first;
    const death: Death = { ...end, restartMs: isHopeless ? undefined : this.#delayMs };
    const how = end.signal ?? `code ${end.code}`;
    this.#house.options.onDeath?.(death);
    if (isHopeless) {
      this.#house.descriptors.releaseAllBut(end.name, new Set());
      this.#house.onHopeless(
        new Error(`${end.name} could not start (${how}); what it said stands above`),
      );
      return;
    }
    this.#house.options.log.warn(
      { child: end.name, pid: end.pid, how, ranMs: end.ranMs, restartMs: death.restartMs },
      "a process died and is started again",
    );
    this.#timer = setTimeout(() => this.start(), this.#delayMs);
    this.#delayMs = Math.min(backoffMs.max, this.#delayMs * 2);
  }

  #hear(message: unknown): void {
    if (typeof message !== "object" || message === null || !("kind" in message)) return;
    const said = message as Record<string, unknown> & { kind: unknown };
    if (typeof said.kind !== "string") return;
    if (said.kind === "listen") this.#listen(said);
    else if (said.kind === "release") {
      if (typeof said.host === "string" && typeof said.port === "number")
        this.#house.descriptors.release(this.#spec.name, { host: said.host, port: said.port });
    } else if (said.kind === "ready") this.#opened(said.doors);
    else this.#house.options.onMessage?.(this.#spec.name, said as { kind: string });
  }

  #listen(said: Record<string, unknown>): void {
    const child = this.#process;
    const { id, host, port, copies } = said;
    if (!child || typeof id !== "number" || typeof host !== "string" || typeof port !== "number")
      return;
    const count = typeof copies === "number" ? Math.trunc(copies) : 1;
    try {
      if (!(count >= 1 && count <= copiesMax))
        throw new ListenFailed("EINVAL", `${copies} copies of one descriptor`);
      const nth = this.#anyPort.get(host) ?? 0;
      const held = this.#house.descriptors.hold(this.#spec.name, { host, port }, nth);
      if (port === 0) this.#anyPort.set(host, nth + 1);
      this.#used.add(held);
      const answer = { kind: "descriptor", id, host: held.host, port: held.port } as const;
      for (let copy = 0; copy < count; copy++)
        child.send(answer satisfies ToChild, held.handle as never, () => {});
    } catch (cause) {
      if (!(cause instanceof ListenFailed)) throw cause;
      const { code, message } = cause;
      this.send({ kind: "listen-failed", id, host, port, code, message } satisfies ToChild);
    }
  }

  #opened(doors: unknown): void {
    this.doors = Object.fromEntries(
      Object.entries(doors ?? {}).filter((entry) => typeof entry[1] === "string"),
    ) as Doors;
    this.#wasReady = true;
    // What only an earlier life of it wanted would otherwise take connections that nobody serves.
    this.#house.descriptors.releaseAllBut(this.#spec.name, this.#used);
    this.#house.options.onReady?.(this.#spec.name, this.doors);
    this.#house.onOpened(this.#spec.name);
  }
}

/** `tsc` rewrites imports but not texts, so the extension is that of this file: `.ts` in a clone, `.js` when packed. */
function moduleOf(root: ChildSpec["root"]): URL {
  if (typeof root !== "string") return root;
  return new URL(`../roots/${root}${extname(import.meta.filename)}`, import.meta.url);
}

/** A token in the environment is for one command, not for every process that it starts. */
function childEnv(codeDir: string | undefined): NodeJS.ProcessEnv {
  const { SALLYPORT_TOKEN: _, ...rest } = process.env;
  return codeDir === undefined ? rest : { NODE_COMPILE_CACHE: codeDir, ...rest };
}

function printLine(name: string, line: string): void {
  process.stderr.write(`${name}: ${line}\n`);
}
