import type { ChainHead } from "../model/chain-head.ts";
import type { Hit } from "../model/hit.ts";

/** A hit before it has a name. */
export type NewHit = Omit<Hit, "id">;

/**
 * One writer of the hit log: the process's or worker's own chains, one for peers that proved an identity and
 * one, with its own budget, for strangers. Used from one thread, synchronously.
 */
export type Recorder = {
  /**
   * Adds a line to the batch and returns its id. A hit without `caller`, or of one that is no longer let in, goes to the strangers' chain; over that budget it is
   * counted in a `sum` line, and the id is that line's. Nothing is on disk yet.
   */
  add(hit: NewHit): string;
  /**
   * Writes the batch with one `write(2)` a chain, chained and checked. True: every line is with the kernel and the responses
   * that carry their ids may leave. Fails closed: false means that nothing of this batch can be relied on.
   */
  flush(): boolean;
  /** Records what must not wait for a full disk (`revoke`, `rollback`, `ca rotate`) from the preallocated reserve. Flushes. */
  addEssential(hit: NewHit): string;
  /** True after a failed flush until a write succeeds again; `probe` tries. */
  readonly failing: boolean;
  /** Tries to write again after a failure (called once a second by the owner's timer); true when the log is writable. */
  probe(): boolean;
  /** `fdatasync`, pending sums, retention: called once a second by the owner's timer. */
  tick(): void;
  /** The current heads, for anchoring elsewhere. */
  heads(): readonly ChainHead[];
  /** Flushes, syncs, closes. Safe to call twice. */
  close(): void;
};
