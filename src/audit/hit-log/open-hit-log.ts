import { chmodSync } from "node:fs";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { ChainHead } from "../../model/chain-head.ts";
import type { NewHit, Recorder } from "../recorder.ts";
import { ChainWriter, quietly } from "./chain-writer.ts";
import { Reserve } from "./reserve.ts";
import { openRetention, type Retention } from "./retention.ts";
import type { Writer } from "./segment.ts";
import { StrangerBudget } from "./stranger-budget.ts";

export type HitLogSettings = {
  /** Made with mode 0700 when it is not there. All writers of a process share it. */
  readonly dir: string;
  readonly writer: Writer;
  readonly clock: Clock;
  /** `crypto.randomBytes`, handed in: names chains. */
  readonly randomBytes: (size: number) => Uint8Array;
  readonly limits?: Partial<HitLogLimits>;
  readonly log: Log;
};

export type HitLogLimits = {
  /** A segment is closed before it grows beyond this. Default 64 MiB. */
  readonly segmentBytes: number;
  /** Of all chains of known callers in the directory. Default 4 GiB. */
  readonly keepBytes: number;
  /** Default 90 days. */
  readonly keepMs: number;
  /** Of all chains of strangers in the directory: they evict each other, never a caller's line. Default 512 MiB. */
  readonly strangersKeepBytes: number;
  /** Lines for one source and reason before they are counted. Default 20. */
  readonly strangersPerSecond: number;
  /** Set aside for essential hits, at most an eighth of the free space; 0: none. Default 1 MiB, for a worker 0. */
  readonly reserveBytes: number;
};

const mebibyte = 1024 * 1024;

const hitLogDefaults: HitLogLimits = {
  segmentBytes: 64 * mebibyte,
  keepBytes: 4096 * mebibyte,
  keepMs: 90 * 86_400_000,
  strangersKeepBytes: 512 * mebibyte,
  strangersPerSecond: 20,
  reserveBytes: mebibyte,
};

/**
 * Opens one writer's chains. Never throws: where the directory cannot be written, the recorder is `failing` after its first
 * flush. Retention is the work of writers that are no worker; a directory needs one of them.
 */
export function openHitLog(settings: HitLogSettings): Recorder {
  const { clock, dir, log, writer } = settings;
  const isWorker = writer.process === "worker";
  const limits = {
    ...hitLogDefaults,
    ...(isWorker ? { reserveBytes: 0 } : {}),
    ...settings.limits,
  };
  const common = { dir, writer, clock, log };
  const chain = (kind: "known" | "strangers"): ChainWriter =>
    new ChainWriter({
      ...common,
      chain: chainName(settings.randomBytes),
      kind,
      segmentBytes: limits.segmentBytes,
    });
  const known = chain("known");
  const strangers = chain("strangers");
  const reserve = new Reserve({
    ...common,
    chain: chainName(settings.randomBytes),
    bytes: limits.reserveBytes,
  });
  quietly(() => chmodSync(dir, 0o700));
  reserve.prepare();
  return new HitLog({
    known,
    strangers,
    reserve,
    clock,
    log,
    budget: new StrangerBudget(limits.strangersPerSecond, (hit) => strangers.add(hit)),
    retention: isWorker ? undefined : openRetention({ ...common, limits }),
  });
}

type Parts = {
  readonly known: ChainWriter;
  readonly strangers: ChainWriter;
  readonly reserve: Reserve;
  readonly budget: StrangerBudget;
  readonly retention: Retention | undefined;
  readonly clock: Clock;
  readonly log: Log;
};

class HitLog implements Recorder {
  readonly #known: ChainWriter;
  readonly #strangers: ChainWriter;
  readonly #parts: Parts;
  #isClosed = false;

  constructor(parts: Parts) {
    this.#known = parts.known;
    this.#strangers = parts.strangers;
    this.#parts = parts;
  }

  get failing(): boolean {
    return this.#known.failing || this.#strangers.failing;
  }

  add(hit: NewHit): string {
    return isStranger(hit)
      ? this.#parts.budget.add(hit, this.#parts.clock())
      : this.#known.add(hit);
  }

  flush(): boolean {
    const isKnownWhole = this.#known.flush();
    return this.#strangers.flush() && isKnownWhole;
  }

  addEssential(hit: NewHit): string {
    this.#strangers.write();
    const id = this.#known.addAlone(hit) ?? this.#parts.reserve.write(hit);
    if (id !== undefined) return id;
    this.#parts.log.error(
      { action: hit.action, caller: hit.caller },
      "an essential action could not be recorded",
    );
    return this.#known.giveUp(hit);
  }

  probe(): boolean {
    const isKnownUp = this.#known.probe();
    const isStrangerUp = this.#strangers.probe();
    return isKnownUp && isStrangerUp;
  }

  tick(): void {
    if (this.#isClosed) return;
    const { budget, clock, reserve, retention } = this.#parts;
    this.probe();
    if (!this.#strangers.failing) budget.settle(clock());
    this.#known.write();
    this.#strangers.write();
    this.#known.tick();
    this.#strangers.tick();
    if (this.failing) return;
    reserve.prepare();
    reserve.drain();
    retention?.tick(this.#ownChains(), (pruned) => this.addEssential(pruned));
  }

  heads(): readonly ChainHead[] {
    return [this.#known.head(), this.#strangers.head(), this.#parts.reserve.head()].filter(
      (head) => head !== undefined,
    );
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.probe();
    this.#parts.budget.finish();
    this.#known.close();
    this.#strangers.close();
    this.#parts.reserve.close();
  }

  #ownChains(): ReadonlySet<string> {
    const { known, strangers, reserve } = this.#parts;
    return new Set([known.settings.chain, strangers.settings.chain, reserve.chain]);
  }
}

/**
 * Whoever proved no identity, or one that is no longer let in: neither may evict what callers did. What the process itself reports, and
 * what the join door granted, is no stranger's.
 */
function isStranger(hit: NewHit): boolean {
  if (hit.caller !== undefined)
    return hit.kind === "connection" && (hit.code === "revoked" || hit.code === "not_registered");
  return hit.kind !== "process" && !(hit.kind === "action" && hit.decision === "allowed");
}

/** Ten characters of lower-case base32, 50 bits: no two chains of one fleet meet by chance. */
function chainName(randomBytes: (size: number) => Uint8Array): string {
  const letters = "abcdefghijklmnopqrstuvwxyz234567";
  return Array.from(randomBytes(10), (byte) => letters[byte & 31]).join("");
}
