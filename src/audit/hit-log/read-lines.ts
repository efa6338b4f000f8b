import { closeSync, openSync, readSync } from "node:fs";

/** No line of ours is longer; what is, was not written by us. */
const readLineBytesMax = 64 * 1024;
const chunkBytes = 1 << 20;

export type Line = {
  /** Valid until the next line is asked for. */
  readonly buffer: Buffer;
  readonly start: number;
  /** Without the line break. */
  readonly end: number;
  /** 1-based. */
  readonly number: number;
  /** False for what follows the last line break. */
  readonly isWhole: boolean;
};

/**
 * Every line of a file from its beginning, in constant memory. In a reserve, a NUL byte is the end; elsewhere it is rubbish like
 * any other. A line that is too long comes in pieces, each as a line that is not whole.
 */
export function* readLines(path: string, isReserve = false): Generator<Line> {
  const fd = openSync(path, "r");
  try {
    const buffer = Buffer.allocUnsafe(chunkBytes + readLineBytesMax);
    let kept = 0;
    let number = 0;
    for (;;) {
      const count = readSync(fd, buffer, kept, chunkBytes, null);
      let filled = kept + count;
      const nul = isReserve ? buffer.subarray(kept, filled).indexOf(0) : -1;
      if (nul >= 0) filled = kept + nul;
      let start = 0;
      for (;;) {
        const end = buffer.indexOf(10, start);
        if (end < 0 || end >= filled) break;
        yield { buffer, start, end, number: ++number, isWhole: true };
        start = end + 1;
      }
      const isLast = count === 0 || nul >= 0;
      if (filled > start && (isLast || filled - start >= readLineBytesMax)) {
        yield { buffer, start, end: filled, number: ++number, isWhole: false };
        start = filled;
      }
      if (isLast) return;
      buffer.copy(buffer, 0, start, filled);
      kept = filled - start;
    }
  } finally {
    closeSync(fd);
  }
}
