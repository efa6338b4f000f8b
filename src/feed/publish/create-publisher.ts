import { isNewer, type SignedSnapshot } from "../../model/snapshot.ts";
import type { HeldRoots, KeyAnnouncement } from "../needs.ts";
import { anchorsMax, encode, lineBytesMax } from "../protocol.ts";
import { createGateBook } from "./gate-book.ts";
import { type GateConnection, openGateConnection } from "./gate-connection.ts";
import type { Confirmation, Publisher, PublisherOptions, PublisherTimings } from "./publisher.ts";
import { createRevocationLedger } from "./revocation-ledger.ts";
import { searchHits } from "./search-hits.ts";

/** Serves the feed to every gate that the join door hands over. Holds one timer until it is closed. */
export function createPublisher(options: PublisherOptions): Publisher {
  const { clock, log } = options;
  const timings: PublisherTimings = { ...defaults, ...options.timings };
  const connections = new Map<string, GateConnection>();
  // Those that have not said hello, and those that were replaced, are ours to close as well.
  const everyConnection = new Set<GateConnection>();
  /** What a gate says of its roots counts for the connection it said it on. */
  const heldRoots = new Map<GateConnection, HeldRoots>();
  const book = createGateBook(clock);
  const ledger = createRevocationLedger(options.enrolled);
  /** Each looks whether what it waits for has come; true: it has, or there is no more waiting. */
  const waiting = new Set<() => void>();
  const wake = (): void => {
    for (const look of [...waiting]) look();
  };
  // By name, not by connection: one that was cut off for it may not come back for as much again.
  const paidUntilMs = new Map<string, number>();
  /** Heads and status once a second, now and then an acknowledgement; a thousand warnings at most were kept while it was away. */
  const maySay = (gate: string): boolean => {
    const now = clock();
    const known = paidUntilMs.get(gate) ?? 0;
    // More than can be owed: the clock was set back since, and no gate is to be blamed for that.
    const owesMs = known - now > saidBurst * saidEveryMs ? 0 : Math.max(0, known - now);
    const until = now + owesMs + saidEveryMs;
    // One that says too much pays for no more than it was heard.
    if (until - now > saidBurst * saidEveryMs) return false;
    paidUntilMs.set(gate, until);
    return true;
  };
  const replaced = new Map<string, { sinceMs: number; times: number }>();
  /** Two processes with one gate's leaf take the feed from each other, for as long as both run: told once a minute. */
  const noticeReplaced = (gate: string): void => {
    const now = clock();
    let lately = replaced.get(gate);
    if (!lately || now < lately.sinceMs || now - lately.sinceMs >= replacedWithinMs)
      lately = { sinceMs: now, times: 0 };
    lately.times += 1;
    replaced.set(gate, lately);
    if (lately.times !== replacedMax + 1) return;
    options.onWarning(gate, {
      id: "gate-twice",
      at: now,
      detector: "gate-twice",
      severity: "critical",
      says: `gate/${gate} was replaced by another connection of its own name more than ${replacedMax} times within a minute: two processes hold its certificate. If you did not start both, revoke it: sallyport revoke gate/${gate}`,
      hits: [],
      count: lately.times,
      gate,
    });
  };
  /** Resolves once there is nothing more to wait for, or the time is over. */
  const settled = (isDone: () => boolean, waitMs: number): Promise<void> =>
    new Promise((resolve) => {
      const settle = (): void => {
        clearTimeout(deadline);
        waiting.delete(look);
        resolve();
      };
      const look = (): void => {
        if (closing || isDone()) settle();
      };
      const deadline = setTimeout(settle, waitMs);
      waiting.add(look);
      look();
    });
  let closing: Promise<void> | undefined;
  let headsSent = "";

  const watch = setInterval(() => {
    for (const connection of connections.values()) connection.watch();
  }, timings.pingMs);
  const anchor = setInterval(() => {
    const heads = options.heads();
    const text = JSON.stringify(heads);
    if (text === headsSent) return;
    headsSent = text;
    for (const connection of connections.values()) connection.sendHeads(heads);
  }, timings.headsMs);

  return {
    attach(socket, peer) {
      if (closing) {
        socket.destroy();
        return;
      }
      const sayKept = (id: number) => (): void => {
        if (connections.get(peer.name) === connection) connection.sendHeadsKept(id);
      };
      const connection = openGateConnection(socket, peer, {
        clock,
        timings,
        maySay: () => maySay(peer.name),
        onHello(hello) {
          const before = connections.get(peer.name);
          connections.set(peer.name, connection);
          before?.close("replaced");
          if (before) noticeReplaced(peer.name);
          book.arrived(peer, hello);
          wake();
          log.info({ gate: peer.name, peer: peer.address, boot: hello.boot }, "gate connected");
          for (const announcement of options.keys()) connection.sendKey(announcement);
          // The snapshot may be older than these, and is never to undo one: they go ahead of it.
          for (const open of ledger.openFor(peer.name))
            connection.sendRevocation(open.sequence, open.revocation);
          const roots = options.roots?.();
          if (roots) connection.sendRoots(roots);
          if (options.isOutdated?.(peer)) connection.sendRenew();
          const latest = options.latest();
          if (latest) connection.sendSnapshot(lineOf(latest));
          connection.sendHeads(options.heads());
        },
        onMessage(message) {
          if (connections.get(peer.name) !== connection) return;
          switch (message.type) {
            case "revoked":
              ledger.confirm(message.sequence, peer.name);
              break;
            case "roots": {
              const { control, data } = message;
              heldRoots.set(connection, { control, data });
              options.onRoots?.(peer.name, { control, data });
              wake();
              break;
            }
            case "heads":
              options.onHeads(
                peer.name,
                message.heads,
                message.id === undefined ? undefined : sayKept(message.id),
              );
              break;
            case "warning":
              // Whose warning it is, the certificate says.
              options.onWarning(peer.name, { ...message.warning, gate: peer.name });
              break;
            case "problem":
              log.warn(
                {
                  gate: peer.name,
                  code: message.code,
                  epoch: message.epoch,
                  version: message.version,
                },
                `gate refused a snapshot: ${message.message}`,
              );
              book.heard(peer.name, message);
              break;
            default:
              book.heard(peer.name, message);
              if (message.type === "ack") wake();
          }
        },
        onClose(why) {
          if (connections.get(peer.name) === connection) connections.delete(peer.name);
          heldRoots.delete(connection);
          wake();
          book.left(peer.name, connection.heardMs());
          log.info({ gate: peer.name, peer: peer.address }, `gate disconnected: ${why}`);
        },
      });
      everyConnection.add(connection);
      void connection.closed.then(() => everyConnection.delete(connection));
    },

    publish(signed) {
      const line = lineOf(signed);
      for (const connection of connections.values()) connection.sendSnapshot(line);
    },

    revoke(revocation) {
      const entry = ledger.open(revocation);
      for (const connection of connections.values())
        connection.sendRevocation(entry.sequence, revocation);
      for (const [name, connection] of connections)
        if (revocation.principal === `gate/${name}`) connection.close("revoked");
      return entry.watch;
    },

    async confirmed(target, waitMs) {
      const standing = (): Confirmation => {
        const enrolled = [...options.enrolled()].sort();
        const serves = (name: string): boolean => {
          const running = book.running(name);
          return running !== null && !isNewer(target, running);
        };
        return {
          confirmed: enrolled.filter(serves),
          missing: enrolled.filter((name) => !serves(name)),
        };
      };
      await settled(() => standing().missing.length === 0, waitMs);
      return standing();
    },

    announce(announcement: KeyAnnouncement) {
      for (const connection of connections.values()) connection.sendKey(announcement);
    },

    renewAll() {
      for (const connection of connections.values()) connection.sendRenew();
    },

    tellRoots() {
      const roots = options.roots?.();
      if (roots) for (const connection of connections.values()) connection.sendRoots(roots);
    },

    async unlike(satisfies, waitMs) {
      const lacking = (): string[] =>
        [...connections]
          .filter(([, connection]) => !satisfies(heldRoots.get(connection)))
          .map(([name]) => name)
          .sort();
      await settled(() => lacking().length === 0, waitMs);
      return lacking();
    },

    gates: () => book.list(new Set(options.enrolled()), (name) => connections.get(name)?.heardMs()),

    query: (filter, gates) =>
      searchHits(
        filter,
        (gates ?? options.enrolled()).map((name) => [name, connections.get(name)] as const),
      ),

    async verify(gate, anchors) {
      const connection = connections.get(gate);
      if (!connection) throw new Error("not connected");
      return await connection.verify(anchors.slice(0, anchorsMax));
    },

    close() {
      closing ??= (async () => {
        clearInterval(watch);
        clearInterval(anchor);
        ledger.close();
        // `closing` is set only after this turn; whoever waits is let go then.
        queueMicrotask(wake);
        const all = [...everyConnection];
        for (const connection of all) connection.close("closing");
        await Promise.all(all.map((connection) => connection.closed));
      })();
      return closing;
    },
  };
}

/** What a gate may say of itself: 20 messages a second, 2,000 at once. */
const saidEveryMs = 50;
const saidBurst = 2_000;

/** A gate whose line broke may come back before that was noticed, now and then. */
const replacedMax = 3;
const replacedWithinMs = 60_000;

const defaults: PublisherTimings = {
  helloMs: 5_000,
  // Three pings without a byte in return are silence: a dead gate is known within ten seconds.
  pingMs: 3_000,
  silenceMs: 9_000,
  pageMs: 10_000,
  queryMs: 60_000,
  verifyMs: 600_000,
  stallMs: 60_000,
  headsMs: 1_000,
};

// A register is encoded once, however many gates wait for it.
const lines = new WeakMap<SignedSnapshot, string>();

/** Throws a `RangeError` on a snapshot that no gate would read. */
function lineOf(signed: SignedSnapshot): string {
  let line = lines.get(signed);
  if (line === undefined) {
    line = encode({ type: "snapshot", signed });
    if (Buffer.byteLength(line) > lineBytesMax.down)
      throw new RangeError("the snapshot is too large for one line of the feed (64 MiB)");
    lines.set(signed, line);
  }
  return line;
}
