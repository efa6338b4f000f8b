import type { Log } from "../../base/log.ts";
import { keyId } from "../../base/signature.ts";
import {
  isNewer,
  type Revocation,
  type SignedSnapshot,
  type Snapshot,
  snapshotName,
} from "../../model/snapshot.ts";
import type { KeyAnnouncement, Running, SubscribeNeeds } from "../needs.ts";
import type { SnapshotProblem, Up } from "../protocol.ts";
import { acceptSuccessor } from "../succession.ts";
import { judgeSnapshot } from "./judge-snapshot.ts";
import type { FeedMemory, Found, Keep } from "./keep.ts";

/**
 * What is in force at this gate: the last good snapshot, the revocations that came ahead of it, the keys that may sign the
 * next. Fails closed: nothing is served that was not verified, nothing older than what was served, and a revocation once
 * heard is in every snapshot served from then on, whatever order things arrive in and however often the gate restarts.
 */
export async function createInForce(options: InForceOptions): Promise<InForce> {
  const { keep, log } = options;
  const pinned = keyId(options.pinnedKey);
  let keys: readonly string[] = [options.pinnedKey];
  let highest: Running | undefined;
  let current: { readonly signed: SignedSnapshot; readonly snapshot: Snapshot } | undefined;
  let extra: readonly Revocation[] = [];
  let problem: string | undefined;
  /** Served, but a restart would not know: the disk refused it. */
  let isUnsaved = false;

  const memory = (): FeedMemory => ({ pinned, keys, highest: highest ?? null, revocations: extra });
  const running = (): Running | undefined => {
    return current && runningOf(current.snapshot);
  };
  const reportProblem = (code: SnapshotProblem, message: string, named: Partial<Running>): void => {
    problem = message;
    options.onReport({
      type: "problem",
      epoch: named.epoch ?? null,
      version: named.version ?? null,
      digest: named.digest ?? null,
      code,
      message: message.slice(0, 4_096),
      running: running() ?? null,
    });
  };
  const acknowledge = (): void => {
    const now = running();
    if (now) options.onReport({ type: "ack", ...now });
  };

  /** Hands a verified snapshot over, every revocation known here included; resolves to what is wrong with it. */
  const serve = async (signed: SignedSnapshot, snapshot: Snapshot): Promise<string | undefined> => {
    // The same version again may only add: what was revoked under it stays revoked.
    if (current && !isNewer(snapshot, current.snapshot))
      extra = withoutListed(union(extra, current.snapshot.revocations), snapshot);
    for (;;) {
      const heard = extra;
      const whole = { ...snapshot, revocations: union(snapshot.revocations, heard) };
      let wrong: string | undefined;
      try {
        wrong = await options.onSnapshot(whole, snapshot.digest);
      } catch (cause) {
        wrong = cause instanceof Error ? cause.message : String(cause);
      }
      if (wrong !== undefined) return wrong;
      current = { signed, snapshot: whole };
      highest = runningOf(snapshot);
      // One that came while the snapshot was being compiled is not in it yet.
      if (heard === extra) break;
    }
    extra = withoutListed(extra, snapshot).filter(
      (one) => snapshot.at - one.at < revocationMemoryMs,
    );
    // Once a snapshot is served that the newest key signed, those before it are retired: one stolen later is worth nothing.
    const signer = keys.findIndex((pem) => keyId(pem) === signed.key);
    if (signer > 0) keys = keys.slice(signer);
    return undefined;
  };

  const takeInto = async (signed: SignedSnapshot): Promise<void> => {
    if (current && signed.payload === current.signed.payload) {
      if (isUnsaved) await save();
      if (!isUnsaved) acknowledge();
      return;
    }
    const judged = judgeSnapshot(signed, keys, highest);
    if (!judged.ok) {
      log.warn({ code: judged.code, ...judged.named }, `snapshot refused: ${judged.message}`);
      reportProblem(judged.code, judged.message, judged.named);
      return;
    }
    const { snapshot } = judged;
    // On disk before it is served, so that no crash in between brings an older one back.
    const staged = await attempt(() => keep.stage(signed));
    const wrong = await serve(signed, snapshot);
    if (wrong !== undefined) {
      await attempt(() => keep.discard());
      log.warn({ epoch: snapshot.epoch, version: snapshot.version }, `snapshot refused: ${wrong}`);
      reportProblem("not_served", wrong, snapshot);
      return;
    }
    log.info({ snapshot: snapshotName(snapshot), author: snapshot.author }, "snapshot in force");
    const saved =
      staged ??
      (await attempt(async () => {
        await keep.promote();
        await keep.remember(memory);
      }));
    settleSaved(saved);
  };
  /** Removing a rule must not wait for a full disk: what cannot be saved is served, told, and saved when that works again. */
  const settleSaved = (failure: string | undefined): void => {
    isUnsaved = failure !== undefined;
    if (failure === undefined) {
      problem = undefined;
      acknowledge();
      return;
    }
    const message = `served, but it cannot be saved: ${failure}`;
    log.error({}, `snapshot ${message}`);
    reportProblem("not_saved", message, running() ?? {});
  };
  const save = async (): Promise<void> => {
    const saved = current?.signed;
    const failure = await attempt(async () => {
      if (saved) {
        await keep.stage(saved);
        await keep.promote();
      }
      await keep.remember(memory);
    });
    if (failure === undefined) settleSaved(undefined);
  };

  // From disk first. Damage means that somebody meddled, and then there may be revocations that nobody here remembers.
  const found = await keep.load();
  const remembered = found.memory.kind === "found" ? found.memory.value : undefined;
  const isOurs = remembered === undefined || remembered.pinned === pinned;
  if (found.memory.kind === "damaged") {
    problem = `${found.memory.why}; nothing on disk is served until control is reached`;
    log.error({}, problem);
    // Not served, but still nothing older than it is accepted.
    for (const kept of [found.good, found.staged]) {
      if (kept.kind !== "found") continue;
      const judged = judgeSnapshot(kept.value, keys, highest);
      if (judged.ok) highest = runningOf(judged.snapshot);
    }
  } else if (isOurs) {
    if (remembered) {
      keys = remembered.keys;
      highest = remembered.highest ?? undefined;
      extra = remembered.revocations;
    }
    await restore(found.staged, "staged");
    if (!current) await restore(found.good, "good");
  } else log.info({}, "enrolled anew: what an earlier control plane sent is not used");

  async function restore(kept: Found<SignedSnapshot>, from: "staged" | "good"): Promise<void> {
    if (kept.kind === "absent") return;
    let wrong: string | undefined = kept.kind === "damaged" ? kept.why : undefined;
    if (kept.kind === "found") {
      const judged = judgeSnapshot(kept.value, keys, highest);
      wrong = judged.ok ? await serve(kept.value, judged.snapshot) : judged.message;
    }
    if (wrong !== undefined) {
      problem = `the snapshot on disk is not served: ${wrong}`;
      log.error({}, problem);
      if (from === "staged") await attempt(() => keep.discard());
      return;
    }
    problem = undefined;
    if (from === "staged") await attempt(() => keep.promote());
    log.info(
      { snapshot: current && snapshotName(current.snapshot) },
      "serving the last good snapshot",
    );
  }

  // One thing at a time and in order, but of snapshots only the newest that waits.
  const waiting: (SignedSnapshot | KeyAnnouncement | "save")[] = [];
  let working: Promise<void> | undefined;
  const work = (): void => {
    working ??= (async () => {
      for (let one = waiting.shift(); one !== undefined; one = waiting.shift())
        if (one === "save") await save();
        else await ("payload" in one ? takeInto(one) : takeKeyInto(one));
    })().finally(() => {
      working = undefined;
      if (waiting.length > 0) work();
    });
  };
  const takeKeyInto = async (announcement: KeyAnnouncement): Promise<void> => {
    const successor = acceptSuccessor(announcement, keys);
    // Every announcement is repeated on every connection; those under retired keys are old news.
    if (!successor || keys.some((pem) => keyId(pem) === keyId(successor))) return;
    keys = [...keys, successor];
    log.info({ key: keyId(successor) }, "a new snapshot key was announced under the old one");
    await attempt(() => keep.remember(memory));
  };

  return {
    takeSnapshot(signed) {
      const last = waiting.at(-1);
      if (typeof last === "object" && "payload" in last) waiting.pop();
      waiting.push(signed);
      work();
    },
    takeKey(announcement) {
      // A chain of announcements is short; a flood of them is not listened to.
      if (waiting.length < waitingMax) waiting.push(announcement);
      work();
    },
    takeRevocation(revocation, done) {
      const listed = current?.snapshot.revocations ?? [];
      extra = union(extra, [revocation]).slice(-revocationsMax);
      if (current)
        current = {
          ...current,
          snapshot: { ...current.snapshot, revocations: union(listed, [revocation]) },
        };
      // Confirmed when it is in effect and a restart would know it too, or else when at least the first is true and the disk
      // is what fails: then the gate says so itself.
      const kept = attempt(() => keep.remember(memory)).then((failure) => {
        if (failure === undefined) return;
        log.error({}, `a revocation is in effect but cannot be saved: ${failure}`);
        settleSaved(failure);
      });
      options.onRevocation(revocation, () => void kept.then(done));
    },
    running,
    lastGood: () => current?.snapshot,
    problem: () => problem,
    tick() {
      if (!isUnsaved || waiting.includes("save")) return;
      waiting.push("save");
      work();
    },
    async settled() {
      waiting.length = 0;
      await working;
      await keep.settled();
    },
  };
}

const waitingMax = 64;
const revocationsMax = 10_000;
// Twice the longest life of a leaf: what was revoked by then is expired as well.
const revocationMemoryMs = 48 * 3_600_000;

export type InForceOptions = Pick<SubscribeNeeds, "onSnapshot" | "onRevocation"> & {
  readonly keep: Keep;
  /** SPKI, PEM. */
  readonly pinnedKey: string;
  readonly log: Log;
  /** What control should know: only the latest matters. */
  readonly onReport: (message: Extract<Up, { type: "ack" | "problem" }>) => void;
};

export type InForce = {
  takeSnapshot(signed: SignedSnapshot): void;
  takeKey(announcement: KeyAnnouncement): void;
  /** `done` is called once it is in effect everywhere and remembered. */
  takeRevocation(revocation: Revocation, done: () => void): void;
  running(): Running | undefined;
  lastGood(): Snapshot | undefined;
  problem(): string | undefined;
  /** Once a second: tries again to save what could not be. */
  tick(): void;
  /** Resolves once nothing is being taken in or written. */
  settled(): Promise<void>;
};

function runningOf({ epoch, version, digest }: Snapshot): Running {
  return { epoch, version, digest };
}

function identify(one: Revocation): string {
  return `${one.principal} ${one.serial ?? ""} ${one.lineage ?? ""} ${one.at}`;
}

function union(a: readonly Revocation[], b: readonly Revocation[]): readonly Revocation[] {
  if (b.length === 0) return a;
  const known = new Set(a.map(identify));
  return [...a, ...b.filter((one) => !known.has(identify(one)))];
}

function withoutListed(list: readonly Revocation[], snapshot: Snapshot): readonly Revocation[] {
  const listed = new Set(snapshot.revocations.map(identify));
  return list.filter((one) => !listed.has(identify(one)));
}

/** What went wrong, in a sentence; undefined: nothing. */
async function attempt(work: () => Promise<void>): Promise<string | undefined> {
  try {
    await work();
    return undefined;
  } catch (cause) {
    return cause instanceof Error ? cause.message : String(cause);
  }
}
