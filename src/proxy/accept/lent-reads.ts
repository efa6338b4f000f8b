import { Socket } from "node:net";

/**
 * Reading without a new buffer for each read. Node does it for sockets that it connects (`onread`), and not for those that a TLS server
 * accepted, though the machinery is the same: what `onread` would set is set here. On a Node that keeps it elsewhere, "data" is heard.
 */

/** One for all callers of a thread: a read is heard to its end before there is another. TLS hands out at most 16 KiB at a time. */
export const lentBytes: Buffer = Buffer.allocUnsafeSlow(16_384);

type Hear = (bytes: Buffer) => void;
type Inside = Record<symbol, unknown> & { _handle?: { useUserBuffer?: (to: Buffer) => void } };

const inside = symbolsOf(new Socket());

/**
 * Has `hear` called with whatever the socket brings from now on, instead of whoever heard it before. `bytes` is only lent for the call.
 * A socket that was paused in one may still bring what had been read already: a few TLS records.
 */
export function readLent(socket: Socket, hear: Hear): void {
  socket.removeAllListeners("data");
  if (!lend(socket as unknown as Inside, hear)) socket.on("data", hear);
  socket.resume();
}

/** Whether this socket is read without a buffer of its own. */
export function isLent(socket: Socket): boolean {
  return inside !== undefined && (socket as unknown as Inside)[inside.buffer] === lentBytes;
}

function lend(socket: Inside, hear: Hear): boolean {
  const handle = socket._handle;
  if (inside === undefined || typeof handle?.useUserBuffer !== "function") return false;
  socket[inside.callback] = (count: number): boolean => {
    hear(lentBytes.subarray(0, count));
    return true;
  };
  if (socket[inside.buffer] === lentBytes) return true;
  socket[inside.buffer] = lentBytes;
  handle.useUserBuffer(lentBytes);
  return true;
}

function symbolsOf(socket: Socket): { buffer: symbol; callback: symbol } | undefined {
  const named = (name: string): symbol | undefined =>
    Object.getOwnPropertySymbols(socket).find(({ description }) => description === name);
  const [buffer, callback] = [named("kBuffer"), named("kBufferCb")];
  return buffer && callback && { buffer, callback };
}
