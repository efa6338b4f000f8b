import type { ChainHead } from "../model/chain-head.ts";
import type { Hit } from "../model/hit.ts";
import type { HitFilter } from "../model/hit-filter.ts";
import type { Plane } from "../model/principal.ts";
import type { Revocation, SignedSnapshot, Snapshot } from "../model/snapshot.ts";
import type { Warning } from "../model/warning.ts";

/** A snapshot by its place and its content. */
export type Running = Pick<Snapshot, "epoch" | "version" | "digest">;

/** What a gate found in its own hit log, held against the heads that control kept of it. */
export type LogVerdict = {
  readonly ok: boolean;
  readonly chains: readonly ChainVerdict[];
  readonly problems: readonly {
    readonly kind: string;
    readonly chain: string;
    readonly file?: string;
    /** 1-based. */
    readonly line?: number;
    readonly says: string;
  }[];
};

/** One chain of a hit log, after it was walked. */
export type ChainVerdict = {
  readonly chain: string;
  readonly ok: boolean;
  /** `gate g1 w0`. */
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
};

/** The bidirectional byte stream of an established feed: a `TLSSocket` in life. */
export type FeedSocket = import("node:stream").Duplex;

/** Who is on the other end, as the join door verified it. */
export type FeedPeer = {
  /** Name of the gate: `front` of `gate/front`. */
  readonly name: string;
  /** Serial of its control leaf, lower-case hex. */
  readonly serial: string;
  /** End of that leaf: the connection does not outlive it. Epoch ms. */
  readonly notAfterMs: number;
  /** Where it came from, `ip:port`. */
  readonly address: string;
};

/**
 * The roots that control trusts now, by the SHA-256 of their SPKI, base64url; complete, and said anew at each change and to each
 * gate that connects. It can only take away: what is trusted beyond a gate's own bundle comes with a renewal alone.
 */
export type Roots = { readonly [plane in Plane]: PlaneRoots };

export type PlaneRoots = {
  /** Signs leaves now. */
  readonly active: string;
  readonly trusted: readonly string[];
};

/** What a gate has come to, once every worker goes by it. */
export type HeldRoots = { readonly [plane in Plane]: HeldPlaneRoots };

export type HeldPlaneRoots = {
  /** Whose leaves it lets in. */
  readonly trusted: readonly string[];
  /** The trusted root that its own leaf leads to; null: to none. */
  readonly leaf: string | null;
};

/** What the control side of the feed asks of its process. */
export type PublishNeeds = {
  /** The snapshot in force; undefined before the first `apply`. */
  readonly latest: () => SignedSnapshot | undefined;
  /** Names of every gate that is enrolled and not revoked: absent ones are named, never forgotten. */
  readonly enrolled: () => readonly string[];
  /** Every announcement of a new snapshot key, oldest first. */
  readonly keys: () => readonly KeyAnnouncement[];
  /** Control's own chain heads, anchored at every gate once a second. */
  readonly heads: () => readonly ChainHead[];
  /** Whether a gate that has just connected was given its leaf before an authority last changed. Default: none was. */
  readonly isOutdated?: (gate: FeedPeer) => boolean;
  /** The roots of both authorities now. Default: gates are told of none. */
  readonly roots?: () => Roots;
  /** A gate has said which roots it goes by. */
  readonly onRoots?: (gate: string, held: HeldRoots) => void;
  /** `kept`: to be called when they are stored; absent: the gate does not ask. */
  readonly onHeads: (gate: string, heads: readonly ChainHead[], kept?: () => void) => void;
  readonly onWarning: (gate: string, warning: Warning) => void;
};

/** What the gate side of the feed asks of its process. */
export type SubscribeNeeds = {
  /**
   * Compiles and serves a verified snapshot. Returns what is wrong with it, in a sentence, when it cannot be served: then the
   * old one stays in force and the control plane is told. May be asynchronous; never called twice at once. The same version may
   * come again with more revocations: the list it carries is always complete, and replaces the one before.
   */
  readonly onSnapshot: (
    snapshot: Snapshot,
    digest: string,
  ) => string | undefined | Promise<string | undefined>;
  /** Cuts what is revoked, ahead of any snapshot; `done` is called once no worker admits it any more. */
  readonly onRevocation: (revocation: Revocation, done: () => void) => void;
  /** Control has changed an authority: both leaves should be renewed now. */
  readonly onRenew?: () => void;
  /** From here on no leaf of another root is let in; what the gate lacks it asks for. Said again with each connection. */
  readonly onRoots?: (roots: Roots) => void;
  /** Which roots the gate goes by; undefined: they are still on their way to the workers. Looked at once a second. */
  readonly heldRoots?: () => HeldRoots | undefined;
  /** Pages of matching hits, newest first. Closed early when nobody wants more. */
  readonly onQuery: (filter: HitFilter) => AsyncIterable<readonly Hit[]>;
  /** Walks this gate's whole hit log and holds it against heads that lay elsewhere. Not called twice at once. */
  readonly onVerify: (anchors: readonly ChainHead[]) => Promise<LogVerdict>;
  /** The control plane's heads, to be kept beside this gate's own log. */
  readonly onControlHeads: (heads: readonly ChainHead[]) => void;
  /** This gate's heads now. */
  readonly heads: () => readonly ChainHead[];
  /** Heads of chains that nobody continues: sent beside the others until control says that it has them. Default: none. */
  readonly left?: {
    /** At most 256. */
    heads(): readonly ChainHead[];
    kept(heads: readonly ChainHead[]): void;
  };
  /** Counters and gauges for `sallyport status`: plain JSON, at most 64 KiB. */
  readonly status: () => object;
  /** Where callers reach this gate, `host:port`, and the DNS names that it holds leaves for. */
  readonly serving: () => {
    readonly addresses: readonly string[];
    readonly servedNames: readonly string[];
  };
};

/** A new snapshot key, announced under the one before it. */
export type KeyAnnouncement = {
  /** SubjectPublicKeyInfo of the Ed25519 key, DER in base64url. */
  readonly successor: string;
  /** SHA-256 of the announcing key's SPKI, base64url. */
  readonly by: string;
  /** Ed25519 by the announcing key over `successorStatement(successor)`, base64url. */
  readonly signature: string;
};
