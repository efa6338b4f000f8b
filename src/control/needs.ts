import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Hit } from "../model/hit.ts";
import type { HitFilter } from "../model/hit-filter.ts";
import type { IssuedRecord, Role, RotationState, TokenRecord } from "../model/issued.ts";
import type { Plane, Principal } from "../model/principal.ts";
import type { Revocation, SignedSnapshot, Snapshot } from "../model/snapshot.ts";
import type { Warning } from "../model/warning.ts";

/**
 * All that the control plane needs from the rooms beside it; `cli/roots/control.ts` passes it in.
 */
export type Needs = {
  readonly clock: Clock;
  readonly log: Log;
  readonly sign: SignSnapshot;
  readonly feed: FeedNeeds;
  readonly record: RecordHit;
  /** Whether a hit could be written now. Asked before anything is changed, so that nothing changes unrecorded. */
  readonly canRecord: () => boolean;
  readonly queryHits: (filter: HitFilter) => Promise<HitPage>;
  readonly verifyHits: () => Promise<HitVerdict>;
  /** Warnings that stand now, the newest first. */
  readonly warnings: () => readonly Warning[];
  readonly authorities: AuthorityNeeds;
  /** Makes a single-use enrolment token and stores its hash (`identity/issue`). */
  readonly createToken: (request: {
    readonly principal: Principal;
    readonly role?: Role;
    readonly from?: readonly string[];
    readonly createdBy: string;
    readonly ttlMs?: number;
  }) => Promise<{ readonly token: string; readonly record: TokenRecord }>;
};

/** Signs the exact bytes of a snapshot with the key that signs nothing else (`identity`). */
export type SignSnapshot = (payload: string) => SignedSnapshot | Promise<SignedSnapshot>;

export type FeedNeeds = {
  /** Hands a snapshot that is already stored to every connected gate. Must not throw for a gate that is gone. */
  readonly publish: (signed: SignedSnapshot, snapshot: Snapshot) => void;
  /**
   * Sends a revocation ahead of the snapshot that carries it, and resolves once every enrolled gate has confirmed it or
   * after `withinMs`. Never rejects.
   */
  readonly revokeNow: (revocation: Revocation, withinMs: number) => Promise<Confirmations>;
  /** Every gate that is enrolled and not revoked, connected or not. */
  readonly gates: () => readonly GateState[];
  /** Resolves once every enrolled gate has confirmed this snapshot or a newer one, or after `withinMs`. Never rejects. */
  readonly confirmed: (
    target: Pick<Snapshot, "epoch" | "version">,
    withinMs: number,
  ) => Promise<Confirmations>;
};

/** Names of gates. `missing` holds those that are enrolled and did not confirm in time, connected or not. */
export type Confirmations = {
  readonly confirmed: readonly string[];
  readonly missing: readonly string[];
};

/** What is known of a gate. */
export type GateState = {
  /** `g1`, without its kind. */
  readonly name: string;
  readonly connected: boolean;
  /** Epoch ms of the present connection. */
  readonly connectedSince?: number;
  /** Epoch ms when a byte of it last came; absent: not since control started. */
  readonly lastSeen?: number;
  /** `ip:port` it is connected from. */
  readonly address?: string;
  readonly versions?: { readonly sallyport: string; readonly node: string };
  /** The snapshot it serves by; null: none that we know of. */
  readonly running: Pick<Snapshot, "epoch" | "version" | "digest"> | null;
  /** Epoch ms since when it serves it, whatever became of the connection; absent: it has not said. */
  readonly runningSince?: number;
  /** The last snapshot it refused, until it acknowledges a newer one. */
  readonly problem?: {
    readonly at: number;
    readonly code: string;
    readonly message: string;
    readonly epoch: number | null;
    readonly version: number | null;
  };
  /** Where callers reach it. */
  readonly addresses: readonly string[];
  readonly servedNames: readonly string[];
  readonly counters: Readonly<Record<string, unknown>>;
};

/**
 * Writes one hit and returns its id once `write(2)` took it; undefined when it could not be written: the answer must then be
 * a 503. `essential`: what must not wait for a full disk (`revoke`, `rollback`, `ca.rotate`), taken from the reserve.
 */
export type RecordHit = (
  hit: Omit<Hit, "id">,
  options?: { essential?: boolean },
) => string | undefined;

export type HitPage = {
  /** By time, the newest first. */
  readonly hits: readonly Hit[];
  /** Gates that could not be asked: what they saw is missing here. */
  readonly absent: readonly string[];
};

/** What was found in every hit log that could be walked. */
export type HitVerdict = {
  /** Says nothing of gates in `absent`. */
  readonly ok: boolean;
  readonly chains: readonly {
    readonly chain: string;
    /** Absent: control's own. */
    readonly gate?: string;
    readonly ok: boolean;
    /** `worker g1 0`. */
    readonly writer?: string;
    readonly kind?: string;
    readonly lines: number;
    /** Sequences of the first and last line that are there; 0: none. */
    readonly first: number;
    readonly last: number;
    /** Hits that the writer itself said it could not write. */
    readonly lost: number;
    /** Lines at the end of a write that a power failure tore. */
    readonly torn: number;
    /** The beginning was deleted by retention. */
    readonly pruned: boolean;
  }[];
  readonly problems: readonly {
    readonly kind: string;
    readonly chain: string;
    readonly gate?: string;
    /** Inside the hit log's directory. */
    readonly file?: string;
    /** 1-based. */
    readonly line?: number;
    readonly says: string;
  }[];
  /** Gates that could not be asked. */
  readonly absent: readonly string[];
};

export type AuthorityNeeds = {
  /** One entry a plane. */
  readonly status: () => readonly AuthorityStatus[];
  /** Whether no root that is trusted now signed it, though it is ours: its holder cannot renew it. */
  readonly isOfRetiredRoot: (leaf: Pick<IssuedRecord, "plane" | "certPem">) => boolean;
  /**
   * One step of a rotation, plane by plane, once connected gates have followed or had their time: some 15 s at most. Throws an
   * `Error` with the `code` `wrong_step` or `too_early`, a sentence, and in `taken` the planes that took it before that, when
   * it may not be taken now; `force` excuses `too_early`.
   */
  readonly rotate: (
    planes: readonly Plane[],
    step: RotationStep,
    options: { readonly force: boolean },
  ) => Promise<{
    readonly authorities: readonly AuthorityStatus[];
    /** Gates that did not manage in time, or are away, sorted. */
    readonly behind: readonly string[];
  }>;
};

/** One authority, and where it is in its rotation. */
export type AuthorityStatus = RotationState & { readonly plane: Plane };

export type RotationStep = "prepare" | "activate" | "retire";
