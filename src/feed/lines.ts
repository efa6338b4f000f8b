import { BadMessage } from "./protocol.ts";

/**
 * Cuts bytes into lines, wherever the network cut them. `push` calls `onLine` without the `\n` for each complete line, in order.
 * Throws a `BadMessage` on a line over `bytesMax` (before more of it is kept) and on bytes that are not UTF-8.
 */
export function lineCutter(bytesMax: number, onLine: (line: string) => void): LineCutter {
  // Fatal: replaced characters would be a message nobody sent. The mark is kept so that JSON refuses it.
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  // One buffer that grows, never a list of pieces: a peer that sends a byte at a time would have each of them cost hundreds.
  let kept = Buffer.alloc(0);
  let keptBytes = 0;
  const keep = (piece: Buffer): void => {
    const needed = keptBytes + piece.length;
    if (needed > kept.length) {
      const larger = Buffer.allocUnsafe(Math.max(needed, 2 * kept.length, 1_024));
      kept.copy(larger, 0, 0, keptBytes);
      kept = larger;
    }
    piece.copy(kept, keptBytes);
    keptBytes = needed;
  };
  const take = (last: Buffer): string => {
    let bytes = last;
    if (keptBytes > 0) {
      keep(last);
      bytes = kept.subarray(0, keptBytes);
      kept = Buffer.alloc(0);
      keptBytes = 0;
    }
    try {
      return decoder.decode(bytes);
    } catch {
      throw new BadMessage("a line of the feed is not UTF-8");
    }
  };
  return {
    push(chunk) {
      let start = 0;
      for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, start)) {
        if (keptBytes + end - start > bytesMax) throw tooLong(bytesMax);
        const line = take(chunk.subarray(start, end));
        start = end + 1;
        onLine(line);
      }
      if (keptBytes + chunk.length - start > bytesMax) throw tooLong(bytesMax);
      if (start < chunk.length) keep(chunk.subarray(start));
    },
    get unfinishedBytes() {
      return keptBytes;
    },
  };
}

export type LineCutter = {
  push(chunk: Buffer): void;
  /** Bytes of a line whose end has not come. */
  readonly unfinishedBytes: number;
};

function tooLong(bytesMax: number): BadMessage {
  return new BadMessage(`a line of the feed is longer than ${bytesMax} bytes`);
}
