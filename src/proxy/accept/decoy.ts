import type { Socket } from "node:net";
import { formatHostPort } from "../../base/address.ts";
import type { Needs } from "../needs.ts";
import type { Outbox } from "../record/outbox.ts";

const waitMs = 2_000;
const keepBytes = 64;
/** Decoys that are listened to at a time. Beyond it they are closed at once: a flood must not use up descriptors that callers need. */
const waitingMost = 256;
let waiting = 0;

/**
 * A port nobody has a reason to touch. Takes ownership of the socket: waits shortly for the first bytes, says nothing, closes, and
 * leaves a hit, from which the early warning comes.
 */
export function receiveOnDecoy(socket: Socket, needs: Needs, outbox: Outbox): void {
  const atMs = needs.clock();
  const peer = formatHostPort(socket.remoteAddress ?? "", socket.remotePort ?? 0);
  const local = formatHostPort(socket.localAddress ?? "", socket.localPort ?? 0);
  let first = "";
  let over = false;
  const end = (): void => {
    if (over) return;
    over = true;
    waiting--;
    clearTimeout(timer);
    socket.destroy();
    outbox.note(() =>
      needs.recorder.add({
        at: atMs,
        plane: "decoy",
        kind: "connection",
        decision: "refused",
        code: "decoy",
        peer,
        local,
        gate: needs.gate,
        status: 0,
        ...(first && { detail: `first bytes: ${first}` }),
      }),
    );
  };
  waiting++;
  const timer = setTimeout(end, waiting > waitingMost ? 0 : waitMs);
  socket.on("error", end);
  socket.once("close", end);
  socket.once("end", end);
  socket.once("data", (chunk: Buffer) => {
    first = printable(chunk.subarray(0, keepBytes));
    end();
  });
}

/** Visible ASCII as it is, every other byte as `\xNN`. */
function printable(bytes: Buffer): string {
  let text = "";
  for (const byte of bytes)
    text +=
      byte >= 0x20 && byte < 0x7f && byte !== 0x5c
        ? String.fromCharCode(byte)
        : `\\x${byte.toString(16).padStart(2, "0")}`;
  return text;
}
