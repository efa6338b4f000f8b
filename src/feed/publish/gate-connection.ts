import type { Clock } from "../../base/clock.ts";
import type { ChainHead } from "../../model/chain-head.ts";
import type { Hit } from "../../model/hit.ts";
import type { HitFilter } from "../../model/hit-filter.ts";
import type { Revocation } from "../../model/snapshot.ts";
import { type Link, openLink } from "../link.ts";
import type { FeedPeer, FeedSocket, KeyAnnouncement, LogVerdict, Roots } from "../needs.ts";
import {
  BadMessage,
  type ByeReason,
  encode,
  type Hello,
  lineBytesMax,
  parseUp,
  type Up,
} from "../protocol.ts";
import type { PublisherTimings } from "./publisher.ts";

/**
 * Takes ownership of one gate's connection: what waits to be sent, in the order it matters; whether the gate still lives; the
 * queries it is answering. Everything that may wait is bounded: of snapshots and heads only the latest, of revocations
 * 10,000 (a gate that far behind reads them from the snapshot of its next connection).
 */
export function openGateConnection(
  socket: FeedSocket,
  peer: FeedPeer,
  options: GateConnectionOptions,
): GateConnection {
  const { clock, timings } = options;
  let greeted = false;
  let gone = false;
  let urgent: string[] = [];
  let snapshot: string | undefined;
  let heads: string | undefined;
  let ping: string | undefined;
  let pings = 0;
  let queriesMade = 0;
  const queries = new Map<number, Query>();
  const verifications = new Map<number, Verification>();
  let resolveClosed = (): void => {};
  const closed = new Promise<void>((resolve) => {
    resolveClosed = resolve;
  });

  const link: Link = openLink(socket, {
    clock,
    lineBytesMax: lineBytesMax.up,
    next() {
      if (!greeted) return undefined;
      const line = urgent.shift() ?? ping ?? snapshot ?? heads;
      if (line === ping) ping = undefined;
      else if (line === snapshot) snapshot = undefined;
      else if (line === heads) heads = undefined;
      return line;
    },
    onLine(line) {
      const message = parseUp(line);
      if (!greeted) greet(message);
      else if (message.type === "hits.page") page(message);
      else if (message.type === "verified") verified(message);
      else if (message.type === "hello") throw new BadMessage("a second hello");
      else if (message.type === "revoked") options.onMessage(message);
      else if (message.type !== "pong") {
        if (!options.maySay()) throw new BadMessage("the gate says too much");
        options.onMessage(message);
      }
    },
    onClose(why) {
      gone = true;
      clearTimeout(helloDeadline);
      clearTimeout(leafEnd);
      for (const query of queries.values()) query.fail(new Error(why));
      queries.clear();
      for (const { fail } of verifications.values()) fail(new Error(why));
      verifications.clear();
      urgent = [];
      snapshot = undefined;
      options.onClose(why);
      resolveClosed();
    },
  });
  const helloDeadline = setTimeout(() => link.destroy("no hello in time"), timings.helloMs);
  // Node's timers hold 24.8 days, and no leaf lives that long; a longer one is asked again when it fires.
  let leafEnd: NodeJS.Timeout | undefined;
  const watchLeaf = (): void => {
    const leftMs = peer.notAfterMs - clock();
    if (leftMs <= 0) connection.close("expired");
    else leafEnd = setTimeout(watchLeaf, Math.min(leftMs, 3_600_000));
  };

  const greet = (message: Up): void => {
    if (message.type !== "hello") throw new BadMessage("the first message must be hello");
    if (message.gate !== peer.name)
      throw new BadMessage("the gate names itself otherwise than its certificate does");
    greeted = true;
    clearTimeout(helloDeadline);
    options.onHello(message);
    link.kick();
  };
  const page = (message: Extract<Up, { type: "hits.page" }>): void => {
    // Pages of a search that was given up are still under way: they are let pass.
    const query = queries.get(message.id);
    if (!query) return;
    if (message.done) queries.delete(message.id);
    query.take(message);
  };
  const verified = ({ id, verdict, problem }: Extract<Up, { type: "verified" }>): void => {
    const asked = verifications.get(id);
    verifications.delete(id);
    if (verdict) asked?.take(verdict);
    else asked?.fail(new Error(problem ?? "the gate found nothing to say"));
  };
  const send = (line: string): void => {
    if (urgent.length >= urgentMax) link.destroy("the gate is too far behind");
    urgent.push(line);
    link.kick();
  };

  const connection: GateConnection = {
    closed,
    sendSnapshot(line) {
      snapshot = line;
      link.kick();
    },
    sendRevocation(sequence, revocation) {
      send(encode({ type: "revoke", sequence, revocation }));
    },
    sendKey(announcement) {
      send(encode({ type: "key", announcement }));
    },
    sendRenew() {
      send(encode({ type: "renew" }));
    },
    sendRoots({ control, data }) {
      send(encode({ type: "roots", control, data }));
    },
    sendHeads(list) {
      if (list.length === 0) return;
      heads = encode({ type: "control-heads", heads: list });
      link.kick();
    },
    sendHeadsKept(id) {
      send(encode({ type: "heads-kept", id }));
    },
    query(filter) {
      queriesMade += 1;
      const id = queriesMade;
      const begunMs = clock();
      let first = true;
      return {
        next: () =>
          new Promise((resolve, reject) => {
            if (gone) {
              reject(new Error("not connected"));
              return;
            }
            if (clock() - begunMs > timings.queryMs) {
              reject(new Error("the gate took too long to answer in all"));
              return;
            }
            const deadline = setTimeout(() => {
              queries.delete(id);
              reject(new Error("the gate took too long to answer"));
            }, timings.pageMs);
            queries.set(id, {
              take(answer) {
                clearTimeout(deadline);
                resolve(answer);
              },
              fail(cause) {
                clearTimeout(deadline);
                reject(cause);
              },
            });
            send(encode(first ? { type: "hits.query", id, filter } : { type: "hits.more", id }));
            first = false;
          }),
        stop() {
          if (queries.delete(id)) send(encode({ type: "hits.stop", id }));
        },
      };
    },
    verify(anchors) {
      queriesMade += 1;
      const id = queriesMade;
      return new Promise((resolve, reject) => {
        if (gone) {
          reject(new Error("not connected"));
          return;
        }
        const deadline = setTimeout(() => {
          verifications.delete(id);
          reject(new Error("the gate took too long to answer"));
        }, timings.verifyMs);
        verifications.set(id, {
          take(verdict) {
            clearTimeout(deadline);
            resolve(verdict);
          },
          fail(cause) {
            clearTimeout(deadline);
            reject(cause);
          },
        });
        send(encode({ type: "verify", id, anchors }));
      });
    },
    watch() {
      const now = clock();
      if (now - link.heardMs > timings.silenceMs) link.destroy("the gate fell silent");
      else if (link.blockedSinceMs !== undefined && now - link.blockedSinceMs > timings.stallMs)
        link.destroy("the gate takes no more bytes");
      else if (greeted) {
        pings += 1;
        ping = encode({ type: "ping", sequence: pings });
        link.kick();
      }
    },
    close(reason) {
      link.close(reason, encode({ type: "bye", reason }));
    },
    heardMs: () => link.heardMs,
  };
  watchLeaf();
  return connection;
}

const urgentMax = 10_000;

type Page = { readonly hits: readonly Hit[]; readonly done: boolean; readonly problem?: string };

type Verification = { take(verdict: LogVerdict): void; fail(cause: Error): void };

type Query = { take(page: Page): void; fail(cause: Error): void };

export type GateConnection = {
  /** Resolves once the connection is gone. */
  readonly closed: Promise<void>;
  /** A complete line; replaces one that is still waiting. */
  sendSnapshot(line: string): void;
  sendRevocation(sequence: number, revocation: Revocation): void;
  sendKey(announcement: KeyAnnouncement): void;
  sendRenew(): void;
  sendRoots(roots: Roots): void;
  sendHeads(heads: readonly ChainHead[]): void;
  sendHeadsKept(id: number): void;
  /** Asks page by page: a page is only sent when it was asked for. */
  query(filter: HitFilter): HitCursor;
  /** Rejects when the connection ends, when the gate takes too long, and with what keeps it from walking its log. */
  verify(anchors: readonly ChainHead[]): Promise<LogVerdict>;
  /** Called by the publisher's timer: pings, or gives up on a gate that is silent or takes nothing. */
  watch(): void;
  close(reason: ByeReason): void;
  heardMs(): number;
};

export type HitCursor = {
  /** Rejects when the connection ends or the gate takes too long. */
  next(): Promise<Page>;
  stop(): void;
};

export type GateConnectionOptions = {
  readonly clock: Clock;
  readonly timings: PublisherTimings;
  readonly onHello: (hello: Hello) => void;
  readonly onMessage: (message: Up) => void;
  readonly onClose: (why: string) => void;
  /** Whether the gate has words left: asked for each that is of itself, not an answer. */
  readonly maySay: () => boolean;
};
