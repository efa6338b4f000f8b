import type { Clock } from "../base/clock.ts";
import { lineCutter } from "./lines.ts";
import type { FeedSocket } from "./needs.ts";

/**
 * Takes ownership of an established connection and moves lines over it. Nothing is queued here: whenever the socket can take
 * more, `next` is asked for the line that matters most by then, so a slow peer costs its owner one line and no more.
 * `onClose` is called exactly once, with a sentence; no `onLine` follows it.
 */
export function openLink(socket: FeedSocket, options: LinkOptions): Link {
  const { clock, next, onLine, onClose } = options;
  let heardMs = clock();
  let blockedSinceMs: number | undefined;
  let closed = false;
  let farewell: NodeJS.Timeout | undefined;

  const finish = (why: string): void => {
    if (closed) return;
    closed = true;
    socket.destroy();
    onClose(why);
  };
  const cutter = lineCutter(options.lineBytesMax, (line) => {
    if (!closed) onLine(line);
  });
  const pump = (): void => {
    if (closed || farewell || blockedSinceMs !== undefined) return;
    for (let line = next(); line !== undefined; line = next()) {
      if (!socket.write(line)) {
        blockedSinceMs = clock();
        return;
      }
    }
  };

  socket.on("data", (chunk: Buffer) => {
    if (closed) return;
    heardMs = clock();
    try {
      cutter.push(chunk);
    } catch (cause) {
      finish(cause instanceof Error ? cause.message : String(cause));
    }
  });
  socket.on("drain", () => {
    blockedSinceMs = undefined;
    pump();
  });
  socket.on("end", () =>
    finish(
      cutter.unfinishedBytes > 0 ? "the peer closed in the middle of a line" : "the peer closed",
    ),
  );
  socket.on("error", (cause) => finish(`the connection broke: ${cause.message}`));
  socket.on("close", () => {
    clearTimeout(farewell);
    finish("the connection closed");
  });
  if (options.head && options.head.length > 0) socket.unshift(options.head);

  return {
    kick: pump,
    close(why, lastLine) {
      if (closed || farewell) return;
      // What is still buffered goes first; a peer that does not take it must not hold up whoever closes.
      farewell = setTimeout(() => finish(why), farewellMs);
      socket.end(lastLine, () => finish(why));
    },
    destroy: finish,
    get heardMs() {
      return heardMs;
    },
    get blockedSinceMs() {
      return blockedSinceMs;
    },
  };
}

const farewellMs = 500;

export type LinkOptions = {
  readonly clock: Clock;
  readonly lineBytesMax: number;
  /** The next line to send, complete with its `\n`; undefined: nothing now, `kick` will tell. */
  readonly next: () => string | undefined;
  /** May throw: that closes the link. */
  readonly onLine: (line: string) => void;
  readonly onClose: (why: string) => void;
  /** Bytes that came with the upgrade. */
  readonly head?: Buffer;
};

export type Link = {
  /** Something may be waiting in `next`. */
  kick(): void;
  /** Sends a last line where the peer takes it, then closes. */
  close(why: string, lastLine: string): void;
  destroy(why: string): void;
  /** When a byte last came, epoch ms. */
  readonly heardMs: number;
  /** Since when the socket takes no more; undefined: it does. */
  readonly blockedSinceMs: number | undefined;
};
