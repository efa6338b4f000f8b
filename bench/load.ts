import { readFileSync } from "node:fs";
import { connect, type TLSSocket } from "node:tls";
import type { Credentials } from "../src/base/credentials.ts";
import { job } from "./job.ts";

// The load, in a process of its own, because wrk and h2load present no client certificate: N connections over mutual TLS 1.3, each
// with one request under way at any time. Reads the proxy's CPU time itself, at the very instants at which it reads its own counter.

export type Order = {
  readonly pid: number;
  readonly port: number;
  readonly caller: Credentials;
  readonly connections: number;
  readonly warmUpMs: number;
  readonly windowMs: number;
};

/** What one window saw. */
export type Measured = {
  readonly requests: number;
  /** Answers that were not the one expected, and connections that failed; over warm-up and window. */
  readonly errors: number;
  readonly firstError: string | undefined;
  readonly wallMs: number;
  /** CPU time of the proxy's whole process. */
  readonly userMs: number;
  readonly systemMs: number;
  readonly cipher: string;
};

const request = Buffer.from(
  `${job.method} ${job.path} HTTP/1.1\r\nHost: ${job.host}\r\nUser-Agent: bench/1.0\r\nAccept: application/json\r\nX-Request-Id: 0123456789abcdef\r\n\r\n`,
);
const expected = Buffer.from(job.body);
const headEnd = Buffer.from("\r\n\r\n");
/** Of /proc/PID/stat: USER_HZ is 100 on every Linux that Node runs on. */
const msPerTick = 10;

process.on("message", (order: Order) => {
  measure(order).then(
    (measured) => process.send?.(measured),
    (cause: unknown) => process.send?.({ failed: String(cause) }),
  );
});
process.on("disconnect", () => process.exit());
process.send?.({ ready: true });

async function measure(order: Order): Promise<Measured> {
  const count = { done: 0, errors: 0, firstError: undefined as string | undefined };
  let isStopping = false;
  const onError = (what: string): void => {
    if (isStopping) return;
    count.errors++;
    count.firstError ??= what;
  };
  const onAnswer = (client: Client): void => {
    count.done++;
    if (!isStopping) client.ask();
  };
  const clients = await Promise.all(
    Array.from({ length: order.connections }, () => Client.connect(order, onAnswer, onError)),
  );
  for (const client of clients) client.ask();
  await wait(order.warmUpMs);
  const start = { done: count.done, cpu: cpuOf(order.pid), at: performance.now() };
  await wait(order.windowMs);
  const end = { done: count.done, cpu: cpuOf(order.pid), at: performance.now() };
  isStopping = true;
  const cipher = clients[0]?.cipher ?? "none";
  for (const client of clients) client.close();
  return {
    requests: end.done - start.done,
    errors: count.errors,
    firstError: count.firstError,
    wallMs: end.at - start.at,
    userMs: end.cpu.userMs - start.cpu.userMs,
    systemMs: end.cpu.systemMs - start.cpu.systemMs,
    cipher,
  };
}

/** One connection: asks, reads the answer by its Content-Length, compares it, reports. */
class Client {
  readonly #socket: TLSSocket;
  readonly #onAnswer: (client: Client) => void;
  readonly #onError: (what: string) => void;
  #rest: Buffer | undefined;

  private constructor(
    socket: TLSSocket,
    onAnswer: (client: Client) => void,
    onError: (what: string) => void,
  ) {
    this.#socket = socket;
    this.#onAnswer = onAnswer;
    this.#onError = onError;
    socket.setNoDelay(true);
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    socket.on("error", (error) => onError(error.message));
    socket.on("close", () => onError("the connection was closed"));
  }

  static connect(
    order: Order,
    onAnswer: (client: Client) => void,
    onError: (what: string) => void,
  ): Promise<Client> {
    const { keyPem, chainPem, bundlePem } = order.caller;
    return new Promise((resolve, reject) => {
      const socket = connect({
        host: "127.0.0.1",
        port: order.port,
        servername: job.host,
        minVersion: "TLSv1.3",
        ALPNProtocols: ["http/1.1"],
        key: keyPem,
        cert: chainPem,
        ca: bundlePem,
      });
      socket.once("error", reject);
      socket.once("secureConnect", () => {
        socket.off("error", reject);
        resolve(new Client(socket, onAnswer, onError));
      });
    });
  }

  get cipher(): string {
    return `${this.#socket.getProtocol()} ${this.#socket.getCipher().name}`;
  }

  ask(): void {
    this.#socket.write(request);
  }

  close(): void {
    this.#socket.destroy();
  }

  #read(chunk: Buffer): void {
    const bytes = this.#rest === undefined ? chunk : Buffer.concat([this.#rest, chunk]);
    this.#rest = bytes;
    const headLength = bytes.indexOf(headEnd);
    if (headLength < 0) return;
    const head = bytes.toString("latin1", 0, headLength);
    const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
    if (!head.startsWith("HTTP/1.1 200 ") || Number(length) !== expected.length) {
      this.#onError(head.split("\r\n", 1)[0] ?? "no status line");
      this.#socket.destroy();
      return;
    }
    const from = headLength + headEnd.length;
    if (bytes.length < from + expected.length) return;
    // One request under way: nothing may follow its answer.
    if (bytes.compare(expected, 0, expected.length, from) !== 0) this.#onError("another body");
    this.#rest = undefined;
    this.#onAnswer(this);
  }
}

/** User and system time of all threads, ms. Fields 14 and 15; the name before them may hold spaces. */
function cpuOf(pid: number): { userMs: number; systemMs: number } {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return { userMs: Number(fields[11]) * msPerTick, systemMs: Number(fields[12]) * msPerTick };
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
