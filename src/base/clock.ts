/** Epoch milliseconds. Handed in everywhere, so that a test can turn time by hand. */
export type Clock = () => number;

/** A number in [0, 1). Handed in for jitter and choice; secrets come from `node:crypto` instead. */
export type Random = () => number;
