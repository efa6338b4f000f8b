import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Hit } from "../model/hit.ts";
import type { Plane, Principal } from "../model/principal.ts";
import type { Revocation, SignedSnapshot, Snapshot } from "../model/snapshot.ts";
import type { Warning } from "../model/warning.ts";

/**
 * All that the control plane needs from the rooms beside it; `cli/roots/control.ts` passes it in. The records that issuing
 * keeps are declared here again, because organs do not import each other: the root compiles only while both sides agree.
 */
export type Needs = {
  readonly clock: Clock;
  readonly log: Log;
  readonly sign: SignSnapshot;
  readonly feed: FeedNeeds;
  readonly record: RecordHit;
  /** Whether a hit could be written now. Asked before anything is changed, so that nothing changes unrecorded. */
  readonly canRecord: () => boolean;
  readonly queryHits: (query: HitQuery) => Promise<HitPage>;
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
  /** Epoch ms at which it said so. */
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

/** Every field narrows; absent ones do not. */
export type HitQuery = {
  readonly id?: string;
  /** Epoch ms, inclusive. */
  readonly sinceMs?: number;
  /** Epoch ms, exclusive. */
  readonly untilMs?: number;
  readonly plane?: Hit["plane"];
  readonly kind?: Hit["kind"];
  readonly decision?: Hit["decision"];
  readonly code?: string;
  readonly caller?: string;
  readonly service?: string;
  readonly peer?: string;
  readonly rule?: string;
  readonly path?: string;
  /** 1 to 10,000. */
  readonly limit: number;
};

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
  /**
   * One step of a rotation of one plane. Throws an `Error` with the `code` `wrong_step` or `too_early` and a sentence when it
   * may not be taken now; `force` excuses `too_early`.
   */
  readonly rotate: (
    plane: Plane,
    step: RotationStep,
    options: { readonly force: boolean },
  ) => Promise<AuthorityStatus>;
};

export type RotationStep = "prepare" | "activate" | "retire";

/** `steady`: one root. `prepared`: the next one is trusted. `activated`: it signs, the old one is still trusted. */
export type AuthorityStatus = {
  readonly plane: Plane;
  readonly step: "steady" | "prepared" | "activated";
  readonly active: RootFacts;
  /** While `prepared`. */
  readonly next?: RootFacts;
  /** While `activated`. */
  readonly previous?: RootFacts;
  /** Epoch ms from which the next step needs no force. Absent when steady. */
  readonly readyAtMs?: number;
};

export type RootFacts = {
  readonly id: string;
  /** SHA-256 of the SPKI, base64url. */
  readonly fingerprint: string;
  readonly createdMs: number;
  readonly notAfterMs: number;
};

/** What a principal of the control plane may do. */
export type Role = "admin" | "deployer" | "enroller" | "auditor";

/** A single-use right to enrol as one principal. The secret itself is never stored. */
export type TokenRecord = {
  /** SHA-256 of the secret, lower-case hex. */
  readonly hash: string;
  readonly principal: Principal;
  readonly role?: Role;
  /** Short form: `admin/first`. */
  readonly createdBy: string;
  readonly createdMs: number;
  readonly expiresMs: number;
  /** CIDRs the enrolment must come from; empty: anywhere that reaches the join door. */
  readonly from: readonly string[];
  /** SHA-256 of the SPKI that spent it, base64url. */
  readonly spentBy?: string;
  readonly spentMs?: number;
};

/** A leaf that was issued. */
export type IssuedRecord = {
  readonly plane: Plane;
  /** Lower-case hex. */
  readonly serial: string;
  readonly principal: Principal;
  /** Serial of the first leaf of the line. */
  readonly lineage: string;
  /** Serial this one was renewed from. */
  readonly predecessor?: string;
  /** Hash of the token that paid for it. */
  readonly token?: string;
  /** SHA-256 of the SPKI, base64url. */
  readonly publicKey: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** The leaf itself, which is public. */
  readonly certPem: string;
  /** Epoch ms at which it was issued. */
  readonly at: number;
  readonly via: "token" | "renewal" | "grace" | "init";
};
