/** An early warning: something in the hits, or in the gate's own state, that a person should look at. */
export type Warning = {
  /** Stable for the same matter, so that it is told once: `decoy:10.0.0.7`. */
  readonly id: string;
  /** Epoch ms of the latest occurrence. */
  readonly at: number;
  /** The detector: `decoy`, `unsafe-bind`, `stale-snapshot`, `token-reuse`. */
  readonly detector: string;
  readonly severity: "info" | "warning" | "critical";
  readonly says: string;
  /** Ids of the hits it was raised from, at most 20. */
  readonly hits: readonly string[];
  readonly count: number;
  readonly gate?: string;
};
