import { readFileSync } from "node:fs";
import { flushCompileCache } from "node:module";
import { ListenFailed } from "./hold-descriptors.ts";
import type { Descriptor, Doors, FromChild } from "./messages.ts";

/** One listening descriptor that came from the supervisor. Its `fd` belongs to whoever listens on it: never close it here. */
export type ListenOn = { readonly fd: number };

/** A root's end of the channel to the supervisor. */
export type SupervisorLink = {
  /**
   * Asks for `copies` descriptors of one address, which the bind guard has passed, each for one `listen({ fd })`. `port` is
   * the bound one. Rejects with `ListenFailed`, whose message is for people.
   */
  listen(
    host: string,
    port: number,
    copies: number,
  ): Promise<{
    readonly host: string;
    readonly port: number;
    readonly copies: readonly ListenOn[];
  }>;
  /** Gives an address up: the supervisor closes its end. */
  release(host: string, port: number): void;
  /** Says that the doors are open. */
  ready(doors: Doors): void;
  /** Anything that is between roots: passed to `onMessage` of whoever started the supervisor. */
  send(message: { readonly kind: string }): void;
  /** Hears messages of one kind, `token` for instance; the last one that came before is heard at once. One hearer a kind. */
  on(kind: string, hear: (message: Readonly<Record<string, unknown>>) => void): void;
};

/**
 * Connects a root with its supervisor. `onDrain` is called once, for the drain message, SIGTERM or SIGINT, whichever comes
 * first. When the supervisor dies the process ends at once with code 1: nobody would be left to stop it.
 */
export function linkToSupervisor(onDrain: () => void): SupervisorLink {
  if (!process.send) throw new Error("this module is started by sallyport, not by hand");
  const wishes = new Map<number, Wish>();
  const hearers = new Map<string, (message: Readonly<Record<string, unknown>>) => void>();
  // What came before anybody asked, the last of each kind: a root hears of its token whenever it is ready to listen.
  const early = new Map<string, Readonly<Record<string, unknown>>>();
  let nextId = 1;
  let isDraining = false;

  const drain = (): void => {
    if (isDraining) return;
    isDraining = true;
    onDrain();
  };
  process.on("SIGTERM", drain);
  process.on("SIGINT", drain);
  process.on("disconnect", () => process.exit(1));
  process.on("message", (message: Record<string, unknown>, handle?: unknown) => {
    if (message.kind === "drain") return drain();
    if (message.kind === "descriptor") return take(message, handle as Descriptor | undefined);
    if (message.kind === "listen-failed") return fail(message);
    const kind = String(message.kind);
    const hear = hearers.get(kind);
    if (hear) hear(message);
    else if (early.size < earlyKindsMax) early.set(kind, message);
  });

  return {
    listen(host, port, copies) {
      const id = nextId++;
      return new Promise((resolve, reject) => {
        wishes.set(id, { copies, got: [], resolve, reject });
        tell({ kind: "listen", id, host, port, copies });
      });
    },
    release: (host, port) => tell({ kind: "release", host, port }),
    ready(doors) {
      tell({ kind: "ready", doors });
      // Node keeps compiled code when a process ends by itself. One that is killed needs it most.
      setImmediate(flushCompileCache);
    },
    send: tell,
    on(kind, hear) {
      hearers.set(kind, hear);
      const message = early.get(kind);
      early.delete(kind);
      if (message) hear(message);
    },
  };

  function tell(message: FromChild): void {
    process.send?.(message, undefined, undefined, () => {}); // a lost supervisor is noticed by `disconnect`
  }

  function take(message: Record<string, unknown>, handle: Descriptor | undefined): void {
    const wish = wishes.get(Number(message.id));
    if (!wish) return;
    if (handle?.fd === undefined || handle.fd < 0) {
      wishes.delete(Number(message.id));
      wish.reject(new ListenFailed("EBADF", "the listening descriptor did not arrive"));
      return;
    }
    wish.got.push({ fd: handle.fd });
    if (wish.got.length < wish.copies) return;
    wishes.delete(Number(message.id));
    wish.resolve({ host: String(message.host), port: Number(message.port), copies: wish.got });
  }

  function fail(message: Record<string, unknown>): void {
    const wish = wishes.get(Number(message.id));
    wishes.delete(Number(message.id));
    wish?.reject(new ListenFailed(String(message.code), String(message.message)));
  }
}

const earlyKindsMax = 16;

/** The root's configuration: the one argument, or standard input where it is too long for one. */
export function readRootConfig<T>(): T {
  const [, , argument = ""] = process.argv;
  return JSON.parse(argument === "-" ? readFileSync(0, "utf8") : argument) as T;
}

type Wish = {
  readonly copies: number;
  readonly got: ListenOn[];
  readonly resolve: (taken: { host: string; port: number; copies: readonly ListenOn[] }) => void;
  readonly reject: (cause: ListenFailed) => void;
};
