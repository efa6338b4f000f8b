import { createPrivateKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { setImmediate as turn } from "node:timers/promises";
import type { Clock, Random } from "../../base/clock.ts";
import type { Running } from "../../base/lifecycle.ts";
import type { Log } from "../../base/log.ts";
import {
  CredentialsUnusable,
  readCredentials,
  type StoredCredentials,
} from "../credentials/credential-directory.ts";
import { writeFileDurably } from "../durable-files.ts";
import { JoinUnreachable, joinRequest } from "../enroll/join-request.ts";
import { leafOf } from "../leaf-facts.ts";
import { joinTrust } from "../renew/renew.ts";

/** A leaf for one name in SNI, and the key that it was issued for. */
export type NameLeaf = { readonly keyPem: string; readonly chainPem: string };

/** A gate's leaves for the names of services: asked for in batches, kept over a restart, renewed each in its own time. */
export type NameLeaves = Running & {
  /** Those at hand and wanted. The same map until something changes; read, never written. */
  all(): ReadonlyMap<string, NameLeaf>;
  /** Names that are wanted and have no leaf that is valid now. */
  missing(): number;
  /** What is wanted has changed. */
  look(): void;
  /** Asks for what is due, and resolves when that is over: all there, or refused, or `withinMs` have passed. Never rejects. */
  settled(withinMs: number): Promise<void>;
};

export type NameLeavesOptions = {
  /** Credentials of the gate's data plane: its present key is what new leaves are issued for. */
  readonly dir: string;
  /** Where leaves and their keys are kept. Mode 0600. */
  readonly file: string;
  readonly clock: Clock;
  /** Milliseconds since anything; never goes back. */
  readonly monotonic: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Return the same array until it changes. */
  readonly wanted: () => readonly string[];
  readonly withTrust?: (held: StoredCredentials) => StoredCredentials;
  /** A batch has arrived: to be served from now on. */
  readonly onArrived: (names: ReadonlyMap<string, NameLeaf>) => void | Promise<void>;
};

/** What one call asks for at most; `identity/issue` refuses more. At some 5 ms a leaf a call stays far within its deadline. */
export const namesPerCall = 64;

const restMsRange = [1_000, 30_000] as const;
const lookAgainMs = 5_000;
/** Between batches that are in no hurry. */
const renewalsApartMs = 1_000;
const saveEveryMs = 5_000;
/** Control did not give a name: the register has moved on there, and its snapshot is on the way here. */
const setAsideMs = 5_000;

type Held = {
  readonly leaf: NameLeaf;
  readonly notAfterMs: number;
  readonly dueMs: number;
  /** The issuing certificates of this leaf, and of the gate's own when it was asked for. */
  readonly issuers: readonly [own: string, atAsking: string];
};

/**
 * Starts with what was kept and asks for what is lacking: names without a leaf first, then those under an issuing certificate that was
 * replaced, then those near their end, each of which is due at a moment of its own between a half and two thirds of its life. A batch
 * that fails costs nothing that arrived before it. Never throws: what cannot be read is asked for again.
 */
export function startNameLeaves(options: NameLeavesOptions): NameLeaves {
  const { clock, file, log, monotonic, random } = options;
  const stopping = new AbortController();
  const held = readKept(file, random);
  /** What workers are sent: the leaves of `held`, and nothing else about them. */
  const leaves = new Map([...held].map(([name, { leaf }]) => [name, leaf]));
  const asideUntilMs = new Map<string, number>();
  let timer: NodeJS.Timeout | undefined;
  let failures = 0;
  let restUntilMs = 0;
  let isDirty = false;
  let savedMs = Number.NEGATIVE_INFINITY;
  let working: Promise<void> | undefined;
  let isAgain = false;

  function run(): Promise<void> {
    clearTimeout(timer);
    if (working) {
      isAgain = true;
      return working;
    }
    working = pass()
      .catch((cause) => {
        fail(cause);
        return lookAgainMs;
      })
      .then((waitMs) => {
        working = undefined;
        if (stopping.signal.aborted) return;
        const soonMs = Math.max(0, restUntilMs - monotonic());
        timer = setTimeout(() => void run(), isAgain ? soonMs : Math.max(soonMs, waitMs));
        isAgain = false;
      });
    return working;
  }

  /** Asks until nothing is urgent. Returns when to look again, ms. */
  async function pass(): Promise<number> {
    let waitMs: number = lookAgainMs;
    while (!stopping.signal.aborted && monotonic() >= restUntilMs) {
      const stored = await readCredentials(options.dir);
      const own = options.withTrust?.(stored) ?? stored;
      const { names, isUrgent } = due(issuerOf(own.chainPem));
      if (names.length === 0) break;
      try {
        await ask(names, own);
        failures = 0;
      } catch (cause) {
        fail(cause);
        break;
      }
      if (!isUrgent) {
        waitMs = renewalsApartMs;
        break;
      }
      if (monotonic() - savedMs > saveEveryMs) await save();
    }
    forgetUnwanted();
    await save();
    return waitMs;
  }

  function due(issuer: string): { names: readonly string[]; isUrgent: boolean } {
    const now = clock();
    const nowMonotonic = monotonic();
    const absent: string[] = [];
    const replaced: string[] = [];
    const old: string[] = [];
    for (const name of options.wanted()) {
      if (absent.length === namesPerCall) break;
      if ((asideUntilMs.get(name) ?? 0) > nowMonotonic) continue;
      const one = held.get(name);
      if (!one || one.notAfterMs <= now) absent.push(name);
      else if (!one.issuers.includes(issuer)) replaced.push(name);
      else if (one.dueMs <= now) old.push(name);
    }
    const names = [...absent, ...replaced, ...old].slice(0, namesPerCall);
    return { names, isUrgent: absent.length + replaced.length > 0 };
  }

  async function ask(names: readonly string[], own: StoredCredentials): Promise<void> {
    const { identity } = own;
    if (!identity)
      throw new CredentialsUnusable(
        `${options.dir} holds no identity.json, so nobody knows where to ask`,
        "enrol again with a new token",
      );
    const answer = await joinRequest({
      join: identity.join,
      trust: joinTrust(own, identity),
      nowMs: clock(),
      method: "POST",
      path: "/join/v1/renew",
      signal: stopping.signal,
      body: { names },
    });
    const chains = chainsIn(answer);
    const key = createPrivateKey(own.keyPem);
    const arrived = new Map<string, NameLeaf>();
    const facts: [string, Held][] = [];
    for (const name of names) {
      const chainPem = Object.hasOwn(chains, name) ? chains[name]?.chain : undefined;
      if (chainPem === undefined) asideUntilMs.set(name, monotonic() + setAsideMs);
      else {
        const { leaf, notBeforeMs, notAfterMs } = leafOf(chainPem);
        if (!leaf.checkPrivateKey(key) || leaf.checkHost(name) === undefined)
          throw new JoinUnreachable("the join door answered with a leaf for something else");
        asideUntilMs.delete(name);
        const one = { keyPem: own.keyPem, chainPem };
        arrived.set(name, one);
        const dueMs = dueAt(notBeforeMs, notAfterMs, random);
        const issuers = [issuerOf(chainPem), issuerOf(own.chainPem)] as const;
        facts.push([name, { leaf: one, notAfterMs, dueMs, issuers }]);
      }
    }
    if (arrived.size === 0) return;
    for (const [name, one] of facts) {
      held.set(name, one);
      leaves.set(name, one.leaf);
    }
    isDirty = true;
    await options.onArrived(arrived);
  }

  function fail(cause: unknown): void {
    if (stopping.signal.aborted) return;
    const [least, most] = restMsRange;
    const restMs = Math.min(most, least * 2 ** Math.min(failures, 10)) * (1 / 2 + random() / 2);
    failures += 1;
    restUntilMs = monotonic() + Math.max(least, restMs);
    log.warn(
      { missing: missing(), again: `${Math.ceil((restUntilMs - monotonic()) / 1_000)} s` },
      `certificates for names of services could not be had: ${(cause as Error).message}`,
    );
  }

  function missing(): number {
    const now = clock();
    let count = 0;
    for (const name of options.wanted()) if (!((held.get(name)?.notAfterMs ?? 0) > now)) count++;
    return count;
  }

  function forgetUnwanted(): void {
    const wanted = new Set(options.wanted());
    if (wanted.size === 0) return; // no register yet
    for (const name of held.keys()) {
      if (wanted.has(name)) continue;
      held.delete(name);
      leaves.delete(name);
      isDirty = true;
    }
    for (const name of asideUntilMs.keys()) if (!wanted.has(name)) asideUntilMs.delete(name);
  }

  async function save(): Promise<void> {
    savedMs = monotonic();
    if (!isDirty) return;
    isDirty = false;
    try {
      const text = keptText(held);
      await turn();
      await writeFileDurably(file, text);
    } catch (cause) {
      isDirty = true;
      log.error({ err: cause }, "the certificates for names of services could not be kept");
    }
  }

  void run();

  return {
    all: () => leaves,
    missing,
    look() {
      // Whoever calls has just heard of control: it is there.
      restUntilMs = Math.min(restUntilMs, monotonic() + restMsRange[0]);
      void run();
    },
    async settled(withinMs) {
      let patience: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => {
        patience = setTimeout(resolve, withinMs);
      });
      // A pass that is under way may have begun with the old leaf.
      await Promise.race([Promise.resolve(working).then(run), late]);
      clearTimeout(patience);
    },
    async close() {
      stopping.abort();
      clearTimeout(timer);
      await working;
      clearTimeout(timer);
    },
  };
}

/** Each at a moment of its own, so that names that were issued together are not renewed together. */
function dueAt(notBeforeMs: number, notAfterMs: number, random: Random): number {
  return notBeforeMs + (notAfterMs - notBeforeMs) * (2 / 3 - random() / 6);
}

function issuerOf(chainPem: string): string {
  return (
    chainPem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g)?.[1] ?? ""
  ).replace(/\s+/g, "");
}

function chainsIn(answer: unknown): Readonly<Record<string, { readonly chain: string }>> {
  const { names } = Object(answer) as { names?: Readonly<Record<string, { chain: string }>> };
  const isWhole =
    typeof names === "object" &&
    names !== null &&
    Object.values(names).every((one) => typeof one?.chain === "string");
  if (!isWhole) throw new JoinUnreachable("the answer of the join door is not whole");
  return names;
}

/** Keys and issuing certificates are few and stand once; each leaf refers to them by number. */
type Kept = {
  readonly version: 1;
  readonly texts: readonly string[];
  /** Leaf, then numbers in `texts`: its key, its issuing certificates, those of the gate's own when it was asked for. */
  readonly names: Readonly<Record<string, readonly [string, number, number, number]>>;
};

function keptText(held: ReadonlyMap<string, Held>): string {
  const numbers = new Map<string, number>();
  const numberOf = (text: string) => {
    const known = numbers.get(text) ?? numbers.size;
    numbers.set(text, known);
    return known;
  };
  const names = Object.create(null);
  for (const [name, { issuers, leaf }] of held) {
    const end = leaf.chainPem.indexOf("-----BEGIN", 1);
    names[name] = [
      leaf.chainPem.slice(0, end),
      numberOf(leaf.keyPem),
      numberOf(leaf.chainPem.slice(end)),
      numberOf(issuers[1]),
    ];
  }
  const kept: Kept = { version: 1, texts: [...numbers.keys()], names };
  return JSON.stringify(kept);
}

function readKept(file: string, random: Random): Map<string, Held> {
  const held = new Map<string, Held>();
  try {
    const { texts, names, version } = JSON.parse(readFileSync(file, "utf8")) as Kept;
    if (version !== 1) return held;
    for (const [name, [leafPem, key, rest, asking]] of Object.entries(names)) {
      const [keyPem, issuing, atAsking] = [texts[key], texts[rest], texts[asking]];
      if (!keyPem || !issuing || atAsking === undefined) continue;
      const leaf = { keyPem, chainPem: leafPem + issuing };
      const { notBeforeMs, notAfterMs } = leafOf(leafPem);
      const dueMs = dueAt(notBeforeMs, notAfterMs, random);
      held.set(name, { leaf, notAfterMs, dueMs, issuers: [issuerOf(leaf.chainPem), atAsking] });
    }
    return held;
  } catch {
    return new Map();
  }
}
