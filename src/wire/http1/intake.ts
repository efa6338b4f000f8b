import type { WireError, WireErrorCode } from "../wire-error.ts";

/**
 * What the two parsers have in common: bytes come in, are read as far as possible, and wait while the listener has paused.
 * `consume` reads from one chunk and returns how far it came; it must stop when `stopped` turns true.
 */
export abstract class Intake {
  #waiting: Buffer[] = [];
  #buffered = 0;
  #before = 0;
  #paused = false;
  #running = false;
  #ended = false;
  #finished = false;
  #failed = false;

  /** Borrows the bytes for the call: what has to wait, because of a pause or a call from inside an event, is copied. */
  push(chunk: Buffer): void {
    if (this.#failed || this.#ended || chunk.length === 0) return;
    if (this.#running || this.#paused || this.#waiting.length > 0) {
      this.#waiting.push(Buffer.from(chunk));
      this.#buffered += chunk.length;
      return;
    }
    this.#run(chunk);
  }

  /** No further event comes until `resume`, not even from bytes that are already here. */
  pause(): void {
    this.#paused = true;
  }

  /** Goes on with what waited. Inside an event it takes back a `pause`. */
  resume(): void {
    this.#paused = false;
    if (!this.#running && !this.#failed) this.#run(undefined);
  }

  /** The peer sends nothing more. Judged after the bytes that still wait. Safe to call twice. */
  end(): void {
    if (this.#ended || this.#failed) return;
    this.#ended = true;
    if (!this.#running && !this.#paused) this.#run(undefined);
  }

  /** Bytes that wait because of a pause. Stop reading the socket while it is more than you want to hold. */
  get buffered(): number {
    return this.#buffered;
  }

  protected get stopped(): boolean {
    return this.#paused || this.#failed;
  }

  protected get failed(): boolean {
    return this.#failed;
  }

  /** Refuses at an offset of the chunk that is being read. Nothing is read afterwards. */
  protected fail(code: WireErrorCode, detail: string, at: number): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#waiting = [];
    this.#buffered = 0;
    this.onFailure({ code, detail, offset: this.#before + at });
  }

  /** Reads from `chunk` at `from`; returns how far it came. Called again until the chunk is used up. */
  protected abstract consume(chunk: Buffer, from: number): number;
  /** The event that needs no further byte, the end of a message. `more`: bytes are here that come after it. True when there was one. */
  protected abstract settle(more: boolean): boolean;
  /** The input is over and everything before was read. */
  protected abstract finish(): void;
  protected abstract onFailure(error: WireError): void;

  #run(first: Buffer | undefined): void {
    this.#running = true;
    let completed = false;
    try {
      let chunk = first;
      let lent = true;
      while (!this.stopped) {
        if (this.settle(chunk !== undefined || this.#waiting.length > 0)) continue;
        if (chunk === undefined) {
          chunk = this.#waiting.shift();
          lent = false;
          if (chunk === undefined) break;
          this.#buffered -= chunk.length;
        }
        chunk = this.#read(chunk);
      }
      if (chunk !== undefined && !this.#failed) {
        // What came with this call is only lent; what waited before is ours already.
        this.#waiting.unshift(lent ? Buffer.from(chunk) : chunk);
        this.#buffered += chunk.length;
      }
      if (this.#ended && !this.#finished && !this.stopped) {
        this.#finished = true;
        this.finish();
      }
      completed = true;
    } finally {
      this.#running = false;
      // A listener threw: what it has seen and what was read may differ, so nothing may follow.
      if (!completed) this.#failed = true;
    }
  }

  /** Reads one chunk; returns what is left of it, if anything. */
  #read(chunk: Buffer): Buffer | undefined {
    let at = 0;
    while (at < chunk.length && !this.stopped) {
      if (!this.settle(true)) at = this.consume(chunk, at);
    }
    this.#before += at;
    return at < chunk.length ? chunk.subarray(at) : undefined;
  }
}
