import { connect as connectTcp, type Socket } from "node:net";
import { type ConnectionOptions, connect as connectTls } from "node:tls";
import { formatHostPort } from "../../base/address.ts";
import type { Endpoint } from "../../base/guard.ts";

/** What came back for some bytes on a connection of its own. */
export type Said = {
  /** Undefined: nothing that looks like HTTP. */
  readonly status: number | undefined;
  readonly headers: ReadonlyMap<string, string>;
  readonly body: string;
  /** Our end, `ip:port`: how the hit log knows the connection. */
  readonly local: string;
  /** Why there was no answer: `closed`, `handshake refused`, `silence`. */
  readonly ended: string | undefined;
};

/** A connection that stays open between questions. */
export type Talk = {
  readonly local: string;
  /** Sends bytes and waits for one response, for the end, or for silence. */
  ask(bytes: string): Promise<Said>;
  /** Resolves when the far end has ended it; false after `withinMs`. */
  ended(withinMs: number): Promise<boolean>;
  close(): void;
};

const silenceMs = 3_000;
const nothing: ReadonlyMap<string, string> = new Map();

/** Opens a connection: TLS where `tls` is given. Rejects with an `Error` that says how the handshake ended. */
export async function talkTo(to: Endpoint, tls?: ConnectionOptions): Promise<Talk> {
  const socket: Socket = tls
    ? connectTls({ host: to.host, port: to.port, ...tls })
    : connectTcp(to.port, to.host);
  let closed = false;
  let failure: string | undefined;
  let received = Buffer.alloc(0);
  let wake: () => void = () => undefined;
  socket.on("data", (chunk: Buffer) => {
    received = Buffer.concat([received, chunk]);
    wake();
  });
  socket.on("error", (error: NodeJS.ErrnoException) => {
    failure = error.code ?? error.message;
    wake();
  });
  for (const event of ["end", "close"])
    socket.on(event, () => {
      closed = true;
      wake();
    });
  let local = "";
  const waitFor = async (done: () => boolean, withinMs: number): Promise<boolean> => {
    const deadline = performance.now() + withinMs;
    while (!done()) {
      const left = deadline - performance.now();
      if (left <= 0) return false;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return true;
  };
  let open = false;
  socket.once("connect", () => {
    local = formatHostPort(socket.localAddress ?? "", socket.localPort ?? 0);
  });
  socket.once(tls ? "secureConnect" : "connect", () => {
    open = true;
    wake();
  });
  await waitFor(() => open || closed || failure !== undefined, silenceMs);
  return {
    local,
    async ask(bytes) {
      received = Buffer.alloc(0);
      if (!open)
        return { status: undefined, headers: nothing, body: "", local, ended: "handshake refused" };
      if (!socket.destroyed) socket.write(bytes, "latin1");
      const answered = await waitFor(
        () => parse(received, closed) !== undefined || closed,
        silenceMs,
      );
      const answer = parse(received, closed);
      if (answer !== undefined) return { ...answer, local, ended: undefined };
      return {
        status: undefined,
        headers: nothing,
        body: "",
        local,
        ended: answered ? "closed" : "silence",
      };
    },
    ended: (withinMs) => waitFor(() => closed || failure !== undefined, withinMs),
    close: () => void socket.destroy(),
  };
}

/** One connection, one question. */
export async function speak(to: Endpoint, bytes: string, tls?: ConnectionOptions): Promise<Said> {
  const talk = await talkTo(to, tls);
  try {
    return await talk.ask(bytes);
  } finally {
    talk.close();
  }
}

/** A whole response, or undefined while it is not. */
function parse(
  bytes: Buffer,
  closed: boolean,
): Pick<Said, "status" | "headers" | "body"> | undefined {
  const text = bytes.toString("latin1");
  const end = text.indexOf("\r\n\r\n");
  if (end < 0) return undefined;
  const [line = "", ...fields] = text.slice(0, end).split("\r\n");
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(line)?.[1]);
  if (!status) return undefined;
  const headers = new Map(
    fields.map((field) => {
      const colon = field.indexOf(":");
      return [field.slice(0, colon).toLowerCase(), field.slice(colon + 1).trim()];
    }),
  );
  const body = text.slice(end + 4);
  const length = headers.get("content-length");
  const whole =
    length !== undefined
      ? body.length >= Number(length)
      : headers.get("transfer-encoding") === "chunked"
        ? body.endsWith("0\r\n\r\n")
        : closed;
  return whole ? { status, headers, body } : undefined;
}
