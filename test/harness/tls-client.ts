import { once } from "node:events";
import { type ConnectionOptions, connect, type TLSSocket } from "node:tls";
import type { Credentials } from "../../src/base/credentials.ts";
import { type Message, readMessage } from "./http-text.ts";
import { until } from "./until.ts";

/** A caller that writes bytes as a test dictates and keeps everything that comes back. */
export type RawClient = {
  readonly socket: TLSSocket;
  /** Latin-1 text, or bytes. */
  send(data: string | Buffer): void;
  /** Half-closes: nothing more will be asked. */
  end(): void;
  /** The next whole response, interim ones included. `bodiless`: it answers HEAD. Rejects when the connection ends before. */
  response(reading?: { bodiless?: boolean }): Promise<Message>;
  /** Resolves when the far side has ended or reset the connection. */
  readonly ended: Promise<void>;
  readonly isEnded: boolean;
  /** Whether it ended by a FIN, and not by a reset. */
  readonly isCleanEnd: boolean;
  /** What came and was not taken by `response`. */
  readonly rest: Buffer;
  /** Takes so many bytes of the rest. */
  skip(bytes: number): void;
  close(): void;
};

/** How a caller connects; without `credentials` it shows no certificate. */
export type Dial = {
  readonly port: number;
  readonly ca?: string;
  readonly credentials?: Credentials | undefined;
  readonly sni?: string;
  readonly options?: ConnectionOptions;
};

/** Resolves when the handshake is complete; rejects when it fails. The gate's certificate is not judged unless `options` says so. */
export async function dial(with_: Dial): Promise<RawClient> {
  const { credentials } = with_;
  const options: ConnectionOptions & { allowHalfOpen: boolean } = {
    host: "127.0.0.1",
    port: with_.port,
    rejectUnauthorized: false,
    ...(credentials && { key: credentials.keyPem, cert: credentials.chainPem }),
    ...(with_.sni !== undefined && { servername: with_.sni }),
    allowHalfOpen: true,
    ...with_.options,
  };
  const socket = connect(options);
  await once(socket, "secureConnect");
  return rawClient(socket);
}

/** The same on a socket that exists. */
export function rawClient(socket: TLSSocket): RawClient {
  let bytes: Buffer = Buffer.alloc(0);
  let more: Buffer[] = [];
  const all = (): Buffer => {
    if (more.length > 0) bytes = Buffer.concat([bytes, ...more]);
    more = [];
    return bytes;
  };
  let isEnded = false;
  let isCleanEnd = false;
  const ended = new Promise<void>((done) => {
    const over = (): void => {
      isEnded = true;
      done();
    };
    socket.once("end", () => {
      isCleanEnd = true;
      over();
    });
    socket.once("close", over);
  });
  socket.on("error", () => undefined);
  socket.on("data", (chunk: Buffer) => {
    more.push(chunk);
  });
  return {
    socket,
    send: (data) => void socket.write(data, "latin1"),
    end: () => void socket.end(),
    async response(reading = {}) {
      const read = await until(
        `a response; so far ${JSON.stringify(bytes.toString("latin1", 0, 300))}`,
        () => {
          const found = readMessage(all(), { ...reading, untilClose: isEnded });
          if (found === undefined && isEnded)
            throw new Error(
              `ended in the middle of ${JSON.stringify(bytes.toString("latin1", 0, 300))}`,
            );
          return found;
        },
      );
      bytes = bytes.subarray(read.length);
      return read.message;
    },
    ended,
    get isEnded() {
      return isEnded;
    },
    get isCleanEnd() {
      return isCleanEnd;
    },
    get rest() {
      return all();
    },
    skip(count) {
      bytes = all().subarray(count);
    },
    close: () => void socket.destroy(),
  };
}
