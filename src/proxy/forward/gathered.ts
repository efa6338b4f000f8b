const mostBytes = 16_384;

/**
 * Joins the small parts of a body that one read brought. A chunk of a byte would otherwise cost three writes, on a TLS socket three
 * records: 3 MB of such chunks took a worker two seconds.
 */
export class Gathered {
  /** Parts below this are worth joining. */
  static readonly smallBytes = 1_024;
  #bytes: Buffer | undefined;
  #length = 0;

  get isEmpty(): boolean {
    return this.#length === 0;
  }

  /** Whether another small part finds room. */
  get hasRoom(): boolean {
    return this.#length + Gathered.smallBytes <= mostBytes;
  }

  /** Copies the part. */
  add(part: Buffer): void {
    if (this.#bytes === undefined) {
      // Most often it stays alone.
      this.#bytes = Buffer.from(part);
    } else {
      if (this.#bytes.length < mostBytes) {
        const larger = Buffer.allocUnsafe(mostBytes);
        this.#bytes.copy(larger);
        this.#bytes = larger;
      }
      part.copy(this.#bytes, this.#length);
    }
    this.#length += part.length;
  }

  /** What was gathered, to keep; then it is empty. */
  take(): Buffer {
    const taken = (this.#bytes ?? Buffer.alloc(0)).subarray(0, this.#length);
    this.#bytes = undefined;
    this.#length = 0;
    return taken;
  }
}
