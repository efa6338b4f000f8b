import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { type Message, readMessage } from "../harness/http-text.ts";
import { below, pick } from "./random.ts";

/** What the service does with a request; the last segment of its path says which. */
export const scripts = {
  /** The whole answer arrives, whatever the way. */
  good: ["length", "chunked", "close", "split", "interim", "empty", "large", "slow", "tiny"],
  /** Something is wrong with it, or it comes too soon. */
  bad: [
    "short",
    "reset",
    "hangup",
    "junk",
    "twice",
    "both",
    "switching",
    "endless-interim",
    "huge-head",
    "bad-chunk",
    "early",
    "early-close",
    "spoof",
    "never",
    "folded",
  ],
} as const;

/** No caller may ever read it: it stands in what no request asked for. */
export const poison = "POISON";

export type FuzzUpstream = {
  readonly port: number;
  /** `caller path` of every head it was sent, in order. */
  readonly seen: readonly string[];
  /** What a strict reader has against what it was sent. */
  readonly complaints: readonly string[];
  readonly open: ReadonlySet<Socket>;
  readonly connections: number;
  close(): Promise<void>;
};

/** A service that reads strictly, by its own rules, and answers as the path and the seed say. */
export async function startFuzzUpstream(random: () => number): Promise<FuzzUpstream> {
  const seen: string[] = [];
  const complaints: string[] = [];
  const open = new Set<Socket>();
  let connections = 0;
  const server = createServer((socket) => {
    connections++;
    open.add(socket);
    socket.on("close", () => open.delete(socket));
    socket.on("error", () => undefined);
    let bytes: Buffer = Buffer.alloc(0);
    let isHeadRead = false;
    let answering = Promise.resolve();
    socket.on("data", (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      for (;;) {
        if (!isHeadRead) {
          const end = bytes.indexOf("\r\n\r\n");
          if (end < 0) return;
          isHeadRead = true;
          const head = bytes.toString("latin1", 0, end + 4);
          const wrong = complaint(head);
          if (wrong !== undefined) complaints.push(`${wrong}: ${JSON.stringify(head)}`);
          const [, method = "", path = ""] = /^(\S+) (\S+) /.exec(head) ?? [];
          const caller = /^sallyport-caller: (.*)\r$/im.exec(head)?.[1] ?? "nobody";
          seen.push(`${caller} ${path}`);
          if (scriptOf(path).startsWith("early")) {
            answering = answering.then(() => answer(socket, method, path, random));
          }
        }
        let read: { message: Message; length: number } | undefined;
        try {
          read = readMessage(bytes);
        } catch (cause) {
          complaints.push(`a body that cannot be read: ${cause}`);
          socket.destroy();
          return;
        }
        if (read === undefined) return;
        isHeadRead = false;
        bytes = bytes.subarray(read.length);
        const [method = "", path = ""] = read.message.start.split(" ");
        if (scriptOf(path).startsWith("early")) continue;
        answering = answering.then(() => answer(socket, method, path, random));
      }
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    seen,
    complaints,
    open,
    get connections() {
      return connections;
    },
    async close() {
      for (const socket of open) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

function scriptOf(path: string): string {
  return /([a-z-]+)$/.exec(path.split("?")[0] ?? "")?.[1] ?? "length";
}

/** Everything that a gate must have seen to. Undefined: nothing to complain of. */
function complaint(head: string): string | undefined {
  const [start = "", ...lines] = head.slice(0, -4).split("\r\n");
  if (!/^[A-Z0-9!#$%&'*+.^_`|~-]{1,32} \/[\x21-\x22\x24-\x7e]* HTTP\/1\.1$/.test(start))
    return "the request line";
  const count = (name: string): number =>
    lines.filter((line) => line.slice(0, line.indexOf(":")).toLowerCase() === name).length;
  for (const line of lines)
    if (
      !/^[A-Za-z0-9!#$%&'*+.^`|~-]+: (?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?$/.test(
        line,
      )
    )
      return `the line ${JSON.stringify(line)}`;
  if (!lines.includes("Host: orders")) return "Host is not the service's";
  if (count("host") !== 1) return "Host more than once";
  if (count("sallyport-caller") !== 1) return "not one Sallyport-Caller";
  if (count("content-length") + count("transfer-encoding") > 1) return "two lengths";
  for (const name of ["connection", "keep-alive", "upgrade", "x-forwarded-for", "proxy-connection"])
    if (count(name) > 0) return `${name} crossed the gate`;
  const path = start.split(" ")[1] ?? "";
  const caller = /^Sallyport-Caller: spiffe:\/\/test\.internal\/service\/(web|app)$/m.exec(
    lines.join("\n"),
  )?.[1];
  if (caller === undefined) return "Sallyport-Caller names no caller of this service";
  if (!path.startsWith("/s/") && !path.startsWith(`/${caller}/`))
    return `${caller} may not ask for this path`;
  if (/\/\.{1,2}(\/|$)|\/\/|^\/s\/secret(\/|$)/.test(path.split("?")[0] ?? "")) return "the path";
  return undefined;
}

async function answer(
  socket: Socket,
  method: string,
  path: string,
  random: () => number,
): Promise<void> {
  const script = scriptOf(path);
  const token = /[wa]\d+x\d+z/.exec(path)?.[0] ?? "none";
  const say = (text: string): void => {
    if (!socket.destroyed) socket.write(text, "latin1");
  };
  const echo = `X-Echo: ${token}\r\n`;
  const body = `${token} `.repeat(1 + below(random, 20));
  const bodiless = method === "HEAD";
  const plain = (text = body, fields = ""): string =>
    `HTTP/1.1 200 OK\r\n${echo}${fields}Content-Length: ${text.length}\r\n\r\n${bodiless ? "" : text}`;
  const chunks = (size: number): string => {
    let text = "";
    for (let at = 0; at < body.length; at += size) {
      const part = body.slice(at, at + size);
      text += `${part.length.toString(16)}\r\n${part}\r\n`;
    }
    return text;
  };
  const chunked = (size: number, end = "0\r\n\r\n"): string =>
    `HTTP/1.1 200 OK\r\n${echo}Transfer-Encoding: chunked\r\n\r\n${bodiless ? "" : chunks(size) + end}`;
  switch (script) {
    case "chunked":
      return say(
        chunked(1 + below(random, 40), pick(random, ["0\r\n\r\n", "0\r\nX-T: 1\r\n\r\n"])),
      );
    case "tiny":
      return say(chunked(1));
    case "close":
      say(`HTTP/1.1 200 OK\r\n${echo}${bodiless ? "Connection: close\r\n\r\n" : `\r\n${body}`}`);
      socket.end();
      return;
    case "split": {
      const text = random() < 0.5 ? plain() : chunked(7);
      for (let at = 0; at < text.length; ) {
        const size = 1 + below(random, 60);
        say(text.slice(at, at + size));
        at += size;
        await new Promise(setImmediate);
      }
      return;
    }
    case "interim":
      say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
      if (random() < 0.5) await pause(2);
      return say(plain());
    case "empty":
      return say(`HTTP/1.1 ${pick(random, ["204 No Content", "304 Not Modified"])}\r\n${echo}\r\n`);
    case "large":
      return say(plain(`${token} `.repeat(20_000)));
    case "slow":
      await pause(below(random, 15));
      return say(plain());
    case "short":
      say(plain().slice(0, -3));
      socket.end();
      return;
    case "reset":
      say(plain().slice(0, below(random, 60)));
      await pause(1);
      socket.resetAndDestroy();
      return;
    case "hangup":
      socket.end();
      return;
    case "junk":
      return say(`${plain()}${poison}`);
    case "twice":
      // In one piece: what comes after the connection was given to the next request cannot be told from its answer.
      return say(
        `${plain()}HTTP/1.1 200 OK\r\nX-Echo: ${poison}\r\nContent-Length: 6\r\n\r\n${poison}`,
      );
    case "both":
      return say(
        `HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${poison}`,
      );
    case "switching":
      return say(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n${poison}`);
    case "endless-interim":
      return say("HTTP/1.1 102 Processing\r\n\r\n".repeat(30));
    case "huge-head":
      return say(`HTTP/1.1 200 OK\r\nX: ${"a".repeat(100_000)}\r\nContent-Length: 0\r\n\r\n`);
    case "bad-chunk":
      return say(`HTTP/1.1 200 OK\r\n${echo}Transfer-Encoding: chunked\r\n\r\n-1\r\n${poison}`);
    case "folded":
      return say(`HTTP/1.1 200 OK\r\nX: 1\r\n\tContent-Length: 99\r\nContent-Length: 0\r\n\r\n`);
    case "spoof":
      return say(plain(body, "Sallyport-Hit: forged-1\r\nConnection: x-echoed\r\nX-Echoed: 1\r\n"));
    case "early-close":
      // Unannounced, it could meet a request that is already on its way: that one is refused, and never sent twice.
      say(plain(body, "Connection: close\r\n"));
      socket.end();
      return;
    case "never":
      return;
    default:
      return say(plain());
  }
}
