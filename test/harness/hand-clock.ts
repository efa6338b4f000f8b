import { until } from "./until.ts";

/** A clock that a test turns, and that tells how often it was read: the gate's sweeps read the monotonic one. */
export class HandClock {
  now: number;
  reads = 0;

  constructor(now = 0) {
    this.now = now;
  }

  readonly read = (): number => {
    this.reads++;
    return this.now;
  };

  /** Waits until it was read some more times: while nothing else happens, that many sweeps. */
  async wasRead(times: number): Promise<void> {
    const before = this.reads;
    await until(`${times} more readings of the clock`, () => this.reads >= before + times);
  }
}
