import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { type Message, readMessage } from "./http-text.ts";

/** A request as the service behind the gate got it. */
export type Received = {
  readonly message: Message;
  readonly socket: Socket;
  readonly connection: number;
};

/** A service that says exactly what a test dictates. */
export type ScriptedUpstream = {
  readonly port: number;
  /** For a register: `127.0.0.1:PORT` or `unix:PATH`. */
  readonly address: string;
  readonly requests: readonly Received[];
  /** How many connections it was given. */
  readonly connections: number;
  /** Every byte it was sent, of all connections together. */
  readonly bytes: number;
  readonly open: ReadonlySet<Socket>;
  close(): Promise<void>;
};

/** A plain response. */
export function ok(body = "ok", fields = ""): string {
  return `HTTP/1.1 200 OK\r\n${fields}Content-Length: ${Buffer.byteLength(body, "latin1")}\r\n\r\n${body}`;
}

/**
 * Starts one. `answer` is called for each whole request with what to write, or nothing; it may write itself. `onHead` is called as soon as
 * a head is there, and when it returns true the rest of the connection is left to it.
 */
export async function scriptedUpstream(
  answer: (received: Received) => string | undefined | Promise<string | undefined> = () => ok(),
  with_: { path?: string; onHead?: (head: string, socket: Socket) => boolean } = {},
): Promise<ScriptedUpstream> {
  const requests: Received[] = [];
  const open = new Set<Socket>();
  let connections = 0;
  let bytes = 0;
  const server = createServer((socket) => {
    const connection = ++connections;
    open.add(socket);
    socket.on("close", () => open.delete(socket));
    socket.on("error", () => undefined);
    let waiting: Buffer = Buffer.alloc(0);
    let isTaken = false;
    let isHeadSeen = false;
    socket.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (isTaken) return;
      waiting = Buffer.concat([waiting, chunk]);
      for (;;) {
        const headEnd = waiting.indexOf("\r\n\r\n");
        if (!isHeadSeen && headEnd >= 0) {
          isHeadSeen = true;
          isTaken = with_.onHead?.(waiting.toString("latin1", 0, headEnd + 4), socket) ?? false;
          if (isTaken) return;
        }
        const read = readMessage(waiting);
        if (read === undefined) return;
        isHeadSeen = false;
        waiting = waiting.subarray(read.length);
        const received = { message: read.message, socket, connection };
        requests.push(received);
        void Promise.resolve(answer(received)).then((text) => {
          if (text !== undefined && !socket.destroyed) socket.write(text, "latin1");
        });
      }
    });
  });
  server.listen(with_.path === undefined ? { port: 0, host: "127.0.0.1" } : { path: with_.path });
  await once(server, "listening");
  const port = with_.path === undefined ? (server.address() as AddressInfo).port : 0;
  return {
    port,
    address: with_.path === undefined ? `127.0.0.1:${port}` : `unix:${with_.path}`,
    requests,
    get connections() {
      return connections;
    },
    get bytes() {
      return bytes;
    },
    open,
    async close() {
      for (const socket of open) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}
