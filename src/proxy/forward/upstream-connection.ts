import type { Socket } from "node:net";
import type { RefusalCode } from "../../model/refusal.ts";
import {
  type ResponseEvents,
  type ResponseHead,
  ResponseParser,
} from "../../wire/http1/response-parser.ts";
import { bounds } from "../bounds.ts";

/** Who listens to a response. Each call comes from inside a read; none comes after `onFailed`. */
export type ResponseSink = {
  onInformational(head: ResponseHead): void;
  onResponseHead(head: ResponseHead): void;
  /** `chunk` is only valid during the call: whoever keeps it copies it. */
  onResponseBody(chunk: Buffer): void;
  onResponseEnd(trailers: readonly string[] | undefined): void;
  /** The connection is gone; nothing more comes. */
  onFailed(code: RefusalCode, detail: string): void;
  /** What was written has left; more may be. */
  onDrain(): void;
};

/** What a connection tells the pool it belongs to. */
export type Home = {
  /** It closed, whoever closed it. */
  onGone(connection: UpstreamConnection): void;
};

/**
 * One HTTP/1.1 connection to an upstream, carrying one exchange at a time. Owns its socket: `destroy`, a failure or the peer's
 * end releases it. An answer nobody asked for ends the connection, so that it can never be taken for the next one's.
 */
export class UpstreamConnection {
  readonly #socket: Socket;
  readonly #home: Home;
  readonly #parser: ResponseParser;
  #sink: ResponseSink | undefined;
  #gone = false;
  #reusable = true;
  #paused = false;
  /** Seconds that the upstream said it would keep the connection, if it did. */
  keepAliveSeconds: number | undefined;
  /** Pool's business: when it may no longer be used, monotonic ms. */
  idleUntilMs = 0;
  /** Caller whose request body it has carried. */
  bodyOf: string | undefined;
  /** Address that was dialled, for the record. */
  readonly address: string;

  constructor(socket: Socket, address: string, home: Home) {
    this.#socket = socket;
    this.#home = home;
    this.address = address;
    const events: ResponseEvents = {
      onInformational: (head) => this.#sink?.onInformational(head),
      onHead: (head) => {
        if (!head.keepAlive) this.#reusable = false;
        this.keepAliveSeconds = head.keepAliveTimeoutSeconds;
        this.#sink?.onResponseHead(head);
      },
      onBody: (chunk) => this.#sink?.onResponseBody(chunk),
      onEnd: (trailers) => {
        const sink = this.#sink;
        this.#sink = undefined;
        // A slow client may have paused it in the middle of its last bytes: at rest it must hear the far side, and so must the next one.
        this.resume();
        sink?.onResponseEnd(trailers);
      },
      onError: (error) => this.#fail("upstream_broken", error.detail),
    };
    this.#parser = new ResponseParser(events, { headBytesMax: bounds.responseHeadBytes });
    socket.on("drain", () => this.#sink?.onDrain());
    socket.on("end", () => {
      this.#reusable = false;
      this.#parser.end(); // a response that runs until the close ends here; any other one is cut short
      this.#fail("upstream_down", "the service closed the connection");
    });
    socket.on("error", (error: NodeJS.ErrnoException) =>
      this.#fail("upstream_down", error.code ?? error.message),
    );
    socket.on("close", () => this.#fail("upstream_down", "closed"));
  }

  /** Bytes from the socket; called by whoever reads it. */
  receive(bytes: Buffer): void {
    if (this.#sink === undefined && !this.#gone) {
      // An unasked answer, or bytes behind the end of one: response splitting, seen from here.
      this.destroy();
      return;
    }
    this.#parser.push(bytes);
  }

  get alive(): boolean {
    return !this.#gone && !this.#socket.destroyed;
  }

  /** Whether the next exchange may use it: the last one ended cleanly and nobody said it would close. */
  get reusable(): boolean {
    return (
      this.#reusable && this.alive && this.#sink === undefined && this.#parser.state === "idle"
    );
  }

  /**
   * A service that disagrees with us about where a body ends takes the rest of it for a request, and its answer for that of whoever asks
   * next. So a connection that has carried a caller's body carries nobody else's requests: callers can only poison themselves.
   */
  mayCarry(caller: string): boolean {
    return this.bodyOf === undefined || this.bodyOf === caller;
  }

  /** Whether something that was written has not left yet. */
  get isSending(): boolean {
    return this.#socket.writableLength > 0;
  }

  /** Starts an exchange: `sink` hears the answer to what is written next. */
  begin(method: string, sink: ResponseSink): void {
    this.#sink = sink;
    this.#parser.expect(method);
  }

  /** Head of a request, built as a string of single-byte characters. Returns false when the caller should wait for `onDrain`. */
  writeHead(head: string): boolean {
    return this.#socket.write(head, "latin1");
  }

  write(chunk: Buffer): boolean {
    return this.#socket.write(chunk);
  }

  /** Several writes as one packet. */
  together(write: () => void): void {
    this.#socket.cork();
    write();
    this.#socket.uncork();
  }

  pause(): void {
    this.#paused = true;
    this.#socket.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#socket.resume();
  }

  /** Serves nobody any more, once the exchange under way is through. */
  retire(): void {
    this.#reusable = false;
    if (this.#sink === undefined) this.destroy();
  }

  /** Lets go of the exchange and closes: its remaining bytes belong to nobody. */
  destroy(): void {
    this.#sink = undefined;
    this.#leave();
  }

  #fail(code: RefusalCode, detail: string): void {
    if (this.#gone) return;
    const sink = this.#sink;
    this.#sink = undefined;
    this.#leave();
    sink?.onFailed(code, detail);
  }

  #leave(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#socket.destroy();
    this.#home.onGone(this);
  }
}
