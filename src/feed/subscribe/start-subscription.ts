import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Credentials } from "../../base/credentials.ts";
import type { ChainHead } from "../../model/chain-head.ts";
import type { Warning } from "../../model/warning.ts";
import { type Link, openLink } from "../link.ts";
import type { LogVerdict, Running } from "../needs.ts";
import {
  type ByeReason,
  countersCharactersMax,
  encode,
  feedProtocol,
  lineBytesMax,
  parseDown,
  type Up,
  verdictMax,
} from "../protocol.ts";
import { answerQueries } from "./answer-queries.ts";
import { connectFeed, ownIdentity } from "./connect.ts";
import { createInForce } from "./in-force.ts";
import { openKeep } from "./keep.ts";
import type { Subscription, SubscriptionOptions, SubscriptionTimings } from "./subscription.ts";

/**
 * Resolves once the last good snapshot on disk, if there is one, was verified and handed to `onSnapshot`: a gate serves without
 * its control plane. Connecting goes on in the background and never ends before `close`. Rejects when `dir` cannot be used or
 * the pinned key is none.
 */
export async function startSubscription(options: SubscriptionOptions): Promise<Subscription> {
  const { clock, random, log } = options;
  const timings: SubscriptionTimings = { ...defaults, ...options.timings };
  if (options.join.length === 0) throw new TypeError("no join door to subscribe at");
  const stopping = new AbortController();
  const boot = randomBytes(12).toString("base64url");
  let link: Link | undefined;
  let used: Credentials | undefined;
  let usedNotAfterMs = 0;
  let join: string | undefined;
  let sinceMs = clock();
  let lastContactMs: number | undefined;
  let problem: string | undefined = "not connected yet";
  let goodbye: ByeReason | undefined;

  // What waits to be said. Of reports about snapshots, heads and status only the latest matters.
  const confirmations: number[] = [];
  const pages: string[] = [];
  const warnings: Warning[] = [];
  let report: string | undefined;
  let heads: string | undefined;
  let headsTold = "";
  /** What is to be kept of chains that nobody continues, and the id that it is asked under. */
  let left: { id: number; heads: readonly ChainHead[]; text: string } = {
    id: 0,
    heads: [],
    text: "[]",
  };
  let status: string | undefined;
  let held: string | undefined;
  let heldTold = "";
  let pong: number | undefined;
  /** This end gives the connection up in the course of things. */
  let isRoutine = false;

  /** The snapshot in force, and since when. */
  let served: { readonly of: string; readonly sinceMs: number } | undefined;

  const say = (message: Up): string => encode(message);
  const next = (): string | undefined => {
    const sequence = confirmations.shift();
    if (sequence !== undefined) return say({ type: "revoked", sequence });
    if (pong !== undefined) {
      const line = say({ type: "pong", sequence: pong });
      pong = undefined;
      return line;
    }
    if (held !== undefined) {
      const line = held;
      held = undefined;
      return line;
    }
    const single = report ?? heads ?? status;
    if (single !== undefined) {
      if (single === report) report = undefined;
      else if (single === heads) heads = undefined;
      else status = undefined;
      return single;
    }
    const warning = warnings.shift();
    return warning ? say({ type: "warning", warning }) : pages.shift();
  };

  const statusLine = (): string => {
    const snapshotSince = served && { snapshotSince: served.sinceMs };
    const counters = { ...options.status(), ...snapshotSince };
    const fits = JSON.stringify(counters).length <= countersCharactersMax;
    return say({ type: "status", ...options.serving(), counters: fits ? counters : {} });
  };
  const noteServed = ({ epoch, version, digest }: Running): void => {
    const of = `${epoch}.${version} ${digest}`;
    if (served?.of !== of) served = { of, sinceMs: clock() };
  };

  const inForce = await createInForce({
    keep: openKeep(options.dir),
    pinnedKey: options.pinnedKey,
    log,
    onSnapshot: options.onSnapshot,
    onRevocation: options.onRevocation,
    onReport(message) {
      if (message.type === "ack") noteServed(message);
      report = say(message);
      // Doors open with the first snapshot: control need not wait for the next second to know of them.
      if (link) status = statusLine();
      link?.kick();
    },
  });
  const found = inForce.running();
  if (found) noteServed(found);
  const queries = answerQueries({
    clock,
    onQuery: options.onQuery,
    send(line) {
      pages.push(line);
      link?.kick();
    },
  });

  const onLine = (line: string): void => {
    const message = parseDown(line);
    lastContactMs = clock();
    switch (message.type) {
      case "snapshot":
        inForce.takeSnapshot(message.signed);
        break;
      case "key":
        inForce.takeKey(message.announcement);
        break;
      case "revoke": {
        const mine = link;
        inForce.takeRevocation(message.revocation, () => {
          // Sequences belong to one connection: a later control process counts anew.
          if (link !== mine) return;
          confirmations.push(message.sequence);
          link?.kick();
        });
        break;
      }
      case "renew":
        options.onRenew?.();
        break;
      case "roots":
        heldTold = ""; // asked: answered, also where nothing has changed
        options.onRoots?.({ control: message.control, data: message.data });
        tellHeld();
        break;
      case "control-heads":
        options.onControlHeads(message.heads);
        break;
      case "heads-kept":
        if (message.id === left.id) options.left?.kept(left.heads);
        break;
      case "verify":
        void verify(message.id, message.anchors);
        break;
      case "ping":
        pong = message.sequence;
        link?.kick();
        break;
      case "bye":
        goodbye = message.reason;
        break;
      default:
        queries.take(message);
    }
  };

  const tellHeld = (): void => {
    const roots = options.heldRoots?.();
    const line = roots && say({ type: "roots", ...roots });
    if (line === undefined || line === heldTold) return;
    heldTold = held = line;
    link?.kick();
  };

  let isVerifying = false;
  const verify = async (id: number, anchors: readonly ChainHead[]): Promise<void> => {
    const mine = link;
    const answer = (found: { verdict: LogVerdict } | { problem: string }): void => {
      if (link !== mine) return; // whoever asked is gone, and the next one counts anew
      pages.push(say({ type: "verified", id, ...found }));
      link?.kick();
    };
    if (isVerifying) return answer({ problem: "the log is being walked already: ask again later" });
    isVerifying = true;
    try {
      answer({ verdict: cut(await options.onVerify(anchors)) });
    } catch (cause) {
      answer({ problem: explain(cause).slice(0, 1_024) });
    } finally {
      isVerifying = false;
    }
  };

  /** Holds one connection until it ends; resolves to why. */
  const hold = async (address: string): Promise<string> => {
    const credentials = options.credentials();
    const { notAfterMs } = ownIdentity(credentials);
    const { socket, head } = await connectFeed(address, {
      credentials,
      nowMs: clock(),
      timeoutMs: timings.connectMs,
      signal: stopping.signal,
    });
    used = credentials;
    usedNotAfterMs = notAfterMs;
    join = address;
    sinceMs = lastContactMs = clock();
    problem = undefined;
    goodbye = undefined;
    const hello = say({
      type: "hello",
      protocol: feedProtocol,
      gate: options.gate,
      boot,
      versions: { sallyport: options.version, node: process.versions.node },
      running: inForce.running() ?? null,
      ...options.serving(),
    });
    return new Promise((resolve) => {
      let greeting: string | undefined = hello;
      headsTold = heldTold = "";
      held = undefined;
      link = openLink(socket, {
        clock,
        head,
        lineBytesMax: lineBytesMax.down,
        next() {
          const first = greeting ?? next();
          greeting = undefined;
          return first;
        },
        onLine,
        onClose(why) {
          link = undefined;
          queries.stopAll();
          confirmations.length = pages.length = 0;
          pong = undefined;
          resolve(goodbye ? `the control plane said goodbye: ${goodbye}` : why);
        },
      });
      if (stopping.signal.aborted) link.destroy("the gate is closing");
      link.kick();
      log.info({ join: address }, "feed connected");
    });
  };

  const run = async (): Promise<void> => {
    let failures = 0;
    for (let turn = 0; !stopping.signal.aborted; turn += 1) {
      const address = options.join[turn % options.join.length] as string;
      let why: string;
      try {
        why = await hold(address);
        // One that came to nothing at once counts as a failure, or two gates of one name would chase each other.
        const held = clock() - sinceMs;
        failures = held > timings.backoffMaxMs && goodbye !== "replaced" ? 0 : failures + 1;
        if (goodbye === "replaced") failures = backoffDoublingsMax;
        // The door that worked is tried first again.
        turn -= 1;
      } catch (cause) {
        why = explain(cause);
        failures += 1;
      }
      if (stopping.signal.aborted) break;
      if (problem === undefined) sinceMs = clock();
      problem = why;
      if (isRoutine) log.info({ join: address }, `feed connects anew: ${why}`);
      else log.warn({ join: address }, `feed disconnected: ${why}`);
      isRoutine = false;
      await pause(backoffMs(failures));
    }
  };
  const backoffMs = (failures: number): number => {
    const doubled = timings.backoffMinMs * 2 ** Math.min(failures, backoffDoublingsMax);
    // Half of it by chance: a fleet that lost its control plane together must not come back together.
    return Math.min(timings.backoffMaxMs, doubled) * (0.5 + random() / 2);
  };
  const pause = (ms: number): Promise<void> =>
    sleep(ms, undefined, { signal: stopping.signal }).catch(() => {});

  const tick = setInterval(() => {
    inForce.tick();
    queries.tick();
    if (!link) return;
    const now = clock();
    if (now - link.heardMs > timings.silenceMs) {
      link.destroy("the control plane fell silent");
      return;
    }
    // The connection ends with the leaf that opened it; with a new one at hand there is no need to wait to be cut off.
    if (usedNotAfterMs - now < renewedLeadMs && options.credentials().chainPem !== used?.chainPem) {
      isRoutine = true;
      link.destroy("the gate's certificate was renewed");
      return;
    }
    const over = options.left?.heads() ?? [];
    const overText = JSON.stringify(over);
    if (overText !== left.text) left = { id: left.id + 1, heads: over, text: overText };
    const list = [...options.heads(), ...over];
    const text = JSON.stringify(list);
    if (text !== headsTold && list.length > 0) {
      headsTold = text;
      heads = say({ type: "heads", heads: list, ...(over.length > 0 && { id: left.id }) });
    }
    status = statusLine();
    link.kick();
  }, timings.tickMs);

  const running = run();
  let closing: Promise<void> | undefined;
  return {
    lastGood: inForce.lastGood,
    state: () => ({
      connected: link !== undefined,
      since: sinceMs,
      lastContactMs: link ? Math.max(link.heardMs, lastContactMs ?? 0) : lastContactMs,
      join,
      problem: problem ?? inForce.problem(),
    }),
    rootsChanged: tellHeld,
    warn(warning) {
      warnings.push(warning);
      if (warnings.length > warningsMax) warnings.shift();
      link?.kick();
    },
    close() {
      closing ??= (async () => {
        clearInterval(tick);
        stopping.abort();
        link?.destroy("the gate is closing");
        await running;
        await inForce.settled();
      })();
      return closing;
    },
  };
}

const defaults: SubscriptionTimings = {
  connectMs: 5_000,
  backoffMinMs: 100,
  backoffMaxMs: 10_000,
  // Three pings of the control plane.
  silenceMs: 9_000,
  tickMs: 1_000,
};

const backoffDoublingsMax = 16;
const warningsMax = 1_000;
// Well before the end, so that a slow handshake does not leave a gap.
const renewedLeadMs = 60_000;

/** To what one line of the feed holds: of too many chains those that are broken stay. */
function cut({ ok, chains, problems }: LogVerdict): LogVerdict {
  const broken = chains.filter((chain) => !chain.ok);
  const whole = chains.filter((chain) => chain.ok);
  return {
    ok,
    chains: [...broken, ...whole].slice(0, verdictMax.chains),
    problems: problems
      .slice(0, verdictMax.problems)
      .map(({ says, ...problem }) => ({ ...problem, says: says.slice(0, 1_024) })),
  };
}

/** Node leaves the message empty when several addresses of one name failed, and keeps the code. */
function explain(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause);
  return cause.message || String((cause as NodeJS.ErrnoException).code ?? cause.name);
}
