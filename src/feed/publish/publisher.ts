import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { ChainHead } from "../../model/chain-head.ts";
import type { Hit } from "../../model/hit.ts";
import type { HitFilter } from "../../model/hit-filter.ts";
import type { Revocation, SignedSnapshot } from "../../model/snapshot.ts";
import type {
  FeedPeer,
  FeedSocket,
  HeldRoots,
  KeyAnnouncement,
  LogVerdict,
  PublishNeeds,
  Running,
} from "../needs.ts";
import type { SnapshotProblem } from "../protocol.ts";

/** Control's end of every feed. */
export type Publisher = {
  /**
   * Takes ownership of an upgraded connection whose peer was verified. A newer connection of the same gate replaces the older.
   */
  attach(socket: FeedSocket, peer: FeedPeer): void;
  /** Sends to every connected gate; one that is slow gets only the latest. */
  publish(signed: SignedSnapshot): void;
  /** Sends ahead of any snapshot. Disconnects a gate that is itself revoked. */
  revoke(revocation: Revocation): RevocationWatch;
  /** Waits until every enrolled gate serves this snapshot or a newer one, at most `waitMs`. Both lists sorted. */
  confirmed(target: Pick<Running, "epoch" | "version">, waitMs: number): Promise<Confirmation>;
  /** Announces a new snapshot key to the connected gates; `keys()` must return it from now on. */
  announce(announcement: KeyAnnouncement): void;
  /** Tells every connected gate that an authority has changed. One that is away is judged by `isOutdated` when it comes. */
  renewAll(): void;
  /** Tells every connected gate which roots are trusted now; one that lacks something renews at once. */
  tellRoots(): void;
  /**
   * Waits until what every connected gate says of its roots satisfies, at most `waitMs`. Resolves to those whose last word does
   * not, sorted; `held` is undefined for a gate that has said nothing on this connection.
   */
  unlike(
    satisfies: (held: HeldRoots | undefined) => boolean,
    waitMs: number,
  ): Promise<readonly string[]>;
  /** Every enrolled gate by name, connected or not. */
  gates(): readonly GateStatus[];
  /** Asks the named gates (default: every enrolled one) for hits and merges their pages, newest first. */
  query(filter: HitFilter, gates?: readonly string[]): HitSearch;
  /**
   * Has one gate walk its hit log and hold it against these heads, which were kept elsewhere; beyond 16,384 the first ones. What
   * comes back is the gate's own word. Rejects, with the reason, when the gate is away or gives no verdict.
   */
  verify(gate: string, anchors: readonly ChainHead[]): Promise<LogVerdict>;
  /** Says goodbye and closes every feed. Safe to call twice. */
  close(): Promise<void>;
};

export type RevocationWatch = {
  /** Waits until every enrolled gate confirmed, at most `waitMs`. Both lists sorted. */
  confirmed(waitMs: number): Promise<Confirmation>;
};

export type Confirmation = {
  readonly confirmed: readonly string[];
  /** Absent, or connected and silent: the revoked may still be served there. */
  readonly missing: readonly string[];
};

export type HitSearch = {
  /** Pages of at most 500. Stop iterating and the gates stop reading. */
  readonly pages: AsyncIterable<readonly Hit[]>;
  /** Gates that were not reached, or went silent before the end, and why. Complete once `pages` ended. */
  absent(): readonly { readonly gate: string; readonly why: string }[];
};

export type GateStatus = {
  readonly name: string;
  readonly connected: boolean;
  /** Epoch ms of the present connection. */
  readonly connectedSince?: number;
  /** Epoch ms when a byte of it last came; absent: not since control started. */
  readonly lastSeen?: number;
  readonly address?: string;
  readonly boot?: string;
  readonly versions?: { readonly sallyport: string; readonly node: string };
  /** What it serves; null: nothing yet. */
  readonly running: Running | null;
  /** Since when it serves it, epoch ms, whatever became of the connection; absent: it has not said. */
  readonly runningSince?: number;
  /** The last snapshot it refused, until it acknowledges a newer one. */
  readonly problem?: {
    readonly at: number;
    readonly code: SnapshotProblem;
    readonly message: string;
    readonly epoch: number | null;
    readonly version: number | null;
  };
  readonly addresses: readonly string[];
  readonly servedNames: readonly string[];
  readonly counters: Readonly<Record<string, unknown>>;
};

export type PublisherOptions = PublishNeeds & {
  readonly clock: Clock;
  readonly log: Log;
  /** Overrides for tests. */
  readonly timings?: Partial<PublisherTimings>;
};

export type PublisherTimings = {
  /** From `attach` to `hello`. Default 5 s. */
  readonly helloMs: number;
  /** Default 3 s. */
  readonly pingMs: number;
  /** Silence after which a gate counts as gone. Default 9 s. */
  readonly silenceMs: number;
  /** How long one page of a query may take. Default 10 s. */
  readonly pageMs: number;
  /** How long all pages of one gate may take together. Default 60 s. */
  readonly queryMs: number;
  /** How long a gate may walk its hit log. Default 10 min: a full one has 4 GiB. */
  readonly verifyMs: number;
  /** How long the socket of a gate may refuse bytes. Default 60 s: a large register over a slow line. */
  readonly stallMs: number;
  /** How often control's heads are sent. Default 1 s. */
  readonly headsMs: number;
};
