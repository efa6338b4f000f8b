/** Where a chain of a hit log stands or stood: kept elsewhere, it is an anchor that a log is held against. */
export type ChainHead = {
  readonly chain: string;
  /** Of the last line written. */
  readonly sequence: number;
  /** Hash over everything up to it, lower-case hex. */
  readonly head: string;
};
