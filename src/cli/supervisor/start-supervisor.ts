import type { Running } from "../../base/lifecycle.ts";
import { holdDescriptors } from "./hold-descriptors.ts";
import type { Doors } from "./messages.ts";
import { type House, SupervisedChild, type SupervisorOptions } from "./supervised-child.ts";

export type Supervisor = Running & {
  /** Resolves when every child has been ready once; rejects when one of them never will be. */
  readonly ready: Promise<void>;
  /** Name of a child → its doors, as it last told. */
  doors(): Readonly<Record<string, Doors>>;
  /** False when the child is not running. */
  send(name: string, message: object): boolean;
  /** Name of a child → process id, of those that run. */
  pids(): Readonly<Record<string, number>>;
  /** Ends everything at once, without draining. */
  kill(): void;
};

const drainMsDefault = 30_000;
/** The last child to be drained gets at least this, whatever the others took. */
const drainMsMin = 2000;

/**
 * Starts the roots as child processes and keeps them running: a dead one is started again after 100 ms, doubling to 5 s
 * while it keeps dying. Holds their listening descriptors, so that connections made while a child is down wait for the
 * next one. `close` drains the children in reverse order, kills those that take too long, and is safe to call twice.
 * Children end by themselves when this process does: their IPC channel closes.
 */
export function startSupervisor(options: SupervisorOptions): Supervisor {
  const descriptors = holdDescriptors(options.given);
  const children = new Map<string, SupervisedChild>();
  let closing: Promise<void> | undefined;
  const waiting = new Set(options.children.map((spec) => spec.name));
  const { promise: ready, resolve: allReady, reject: neverReady } = Promise.withResolvers<void>();
  // Whoever does not wait must not be ended by an unhandled rejection.
  ready.then(
    () => {
      for (const address of descriptors.spare())
        options.log.warn({ address }, "the service manager passed on an address that is no door");
    },
    () => {},
  );

  const house: House = {
    options,
    descriptors,
    isClosing: () => closing !== undefined,
    onHopeless: neverReady,
    onOpened: (name) => {
      waiting.delete(name);
      if (waiting.size === 0) allReady();
    },
  };
  for (const spec of options.children) {
    if (children.has(spec.name)) throw new TypeError(`two children named ${spec.name}`);
    children.set(spec.name, new SupervisedChild(spec, house));
  }
  for (const child of children.values()) child.start();

  return {
    ready,
    doors: () =>
      Object.fromEntries(
        [...children].flatMap(([name, { doors }]) => (doors ? [[name, doors]] : [])),
      ),
    send: (name, message) => children.get(name)?.send(message) ?? false,
    pids: () =>
      Object.fromEntries(
        [...children].flatMap(([name, { pid }]) => (pid === undefined ? [] : [[name, pid]])),
      ),
    kill: () => {
      for (const child of children.values()) child.kill();
      closing ??= drainAll();
    },
    close: () => {
      closing ??= drainAll();
      return closing;
    },
  };

  /** The gates before control: their last hits and chain heads still find someone to take them. */
  async function drainAll(): Promise<void> {
    neverReady(new Error("closed before it was ready"));
    const drainMs = options.drainMs ?? drainMsDefault;
    const deadline = Date.now() + drainMs;
    for (const child of [...children.values()].reverse())
      await child.drain(Math.max(Math.min(drainMsMin, drainMs), deadline - Date.now()));
    descriptors.closeAll();
  }
}
