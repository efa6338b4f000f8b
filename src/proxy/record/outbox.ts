import type { Recorder } from "../needs.ts";

/** Something that may leave only after its record is with the kernel. */
export type Pending = {
  /** Adds its line to the recorder's batch. */
  record(): void;
  /** The batch was written: the bytes may go. */
  release(): void;
  /** The batch was not written: nothing that depends on it may go. */
  withhold(): void;
};

/**
 * Holds back every response until its hit is written. One batch per turn of the event loop: all sockets that were readable
 * in this turn share one `write(2)`. Fails closed: what could not be recorded is withheld.
 */
export class Outbox {
  readonly #recorder: Recorder;
  #pending: Pending[] = [];
  #scheduled = false;

  constructor(recorder: Recorder) {
    this.#recorder = recorder;
  }

  /** Queues; runs in this turn's check phase, after every readable socket was read. */
  put(pending: Pending): void {
    this.#pending.push(pending);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#run);
  }

  /** A record that holds nothing back: a refused handshake, the end of a stream. */
  note(record: () => void): void {
    this.put({ record, release() {}, withhold() {} });
  }

  /** Writes what is queued now, for the end of the worker. */
  flush(): void {
    this.#run();
  }

  readonly #run = (): void => {
    this.#scheduled = false;
    const batch = this.#pending;
    if (batch.length === 0) return;
    this.#pending = [];
    for (const pending of batch) pending.record();
    const written = this.#recorder.flush();
    for (const pending of batch) {
      if (written) pending.release();
      else pending.withhold();
    }
  };
}
