import type { Socket } from "node:net";
import { bounds } from "../bounds.ts";
import { readLent } from "./lent-reads.ts";

/**
 * Ends a connection so that the peer sees what was written last: half-close, read and discard what still comes, then destroy. A plain
 * destroy resets the connection while the peer is sending, and its kernel throws our answer away. Takes ownership of the socket:
 * whoever read it hears nothing more.
 */
export function closeInOrder(socket: Socket): void {
  if (socket.destroyed) return;
  let left: number = bounds.discardBytes;
  const end = (): void => {
    clearTimeout(timer);
    socket.destroy();
  };
  const timer = setTimeout(end, bounds.discardMs);
  socket.once("close", () => clearTimeout(timer));
  socket.on("error", end);
  readLent(socket, (chunk) => {
    left -= chunk.length;
    if (left < 0) end();
  });
  // Both ends have said that they are done: nothing more can be lost.
  socket.once("end", () => {
    if (socket.writableFinished) end();
    else socket.once("finish", end);
  });
  socket.end();
}
