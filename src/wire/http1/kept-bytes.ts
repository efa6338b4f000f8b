const nothing = Buffer.alloc(0);

/** The start of a head that has not arrived whole. Grows by doubling, so that a head fed byte by byte costs a constant each. */
export class KeptBytes {
  bytes: Buffer = nothing;
  length = 0;

  append(chunk: Buffer, from: number, to: number): void {
    const needed = this.length + to - from;
    if (needed > this.bytes.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(512, needed, this.bytes.length * 2));
      this.bytes.copy(larger, 0, 0, this.length);
      this.bytes = larger;
    }
    chunk.copy(this.bytes, this.length, from, to);
    this.length = needed;
  }

  /** Gives the memory back: most connections never need it again. */
  clear(): void {
    this.bytes = nothing;
    this.length = 0;
  }
}
