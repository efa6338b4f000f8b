import { Refusal, type RefusalCode } from "../../model/refusal.ts";
import { latin1 } from "../../wire/http1/octets.ts";
import type { RequestHead } from "../../wire/http1/request-parser.ts";
import type { ResponseHead } from "../../wire/http1/response-parser.ts";
import type { Permit } from "../authorize/permit.ts";
import { bounds } from "../bounds.ts";
import type { Pending } from "../record/outbox.ts";
import { Gathered } from "./gathered.ts";
import { type Fate, fate, requestFate, responseFate } from "./hygiene.ts";
import type { Origins, Taken } from "./origins.ts";
import { requestHead } from "./request-head.ts";
import { type Framing, framingFor, responseHead } from "./response-head.ts";
import type { ResponseSink } from "./upstream-connection.ts";

/** What an exchange needs of the connection that asked: its session. */
export type Client = {
  /** Queues `exchange` behind its record. */
  hold(exchange: Exchange): void;
  /** Writes to the client; false: wait for `Exchange.onClientDrain`. */
  write(data: Buffer | string): boolean;
  together(write: () => void): void;
  /** No more of the request's body, until `resumeRequest`. */
  pauseRequest(): void;
  /** The request's body may flow again. */
  resumeRequest(): void;
  /** Whether the response must say that the connection ends. */
  mustClose(): boolean;
  /** The response is complete, or can never be. `keepAlive`: the next request may be read. */
  done(exchange: Exchange, keepAlive: boolean): void;
  /** Nothing was sent to the client yet: tell it no. */
  refuse(refusal: Refusal, exchange: Exchange): void;
  /** Adds the exchange's first line to the batch, complete if it has ended; returns the hit's id. */
  lineOpen(exchange: Exchange): string;
  /** Adds a later line of the same hit. */
  lineClose(exchange: Exchange): void;
  /** Has `record` called in the batch of this turn. */
  note(record: () => void): void;
  /** The response could not be recorded; true when the service may be served without. */
  mayGoUnrecorded(exchange: Exchange): boolean;
};

type Times = { readonly clockMs: number; readonly startedMs: number };

const crlf = "\r\n";
const lastChunk = "0\r\n\r\n";
/** Responses up to this size leave in one write with their head. */
const joinBytes = 32_768;
/** Up to this they are cheaper as a piece of the head's text. */
const textBytes = 4_096;

/**
 * One request on its way through: owns the upstream connection while it has one, and gives it back or closes it, whatever
 * happens. The client's socket belongs to the session. No byte of the response leaves before `record` and `release`.
 */
export class Exchange implements ResponseSink, Pending {
  readonly permit: Permit;
  readonly head: RequestHead;
  readonly canary: string | undefined;
  readonly times: Times;
  readonly #client: Client;
  readonly #text: string;
  #cancelTake: (() => void) | undefined;
  #taken: Taken | undefined;
  /** The request's body while there is no connection for it. */
  #waitingBody: Buffer[] | undefined;
  // Most exchanges have nothing to gather.
  #gatheredIn: Gathered | undefined;
  #gatheredOut: Gathered | undefined;
  #requestDone = false;
  // Both are read off the clock by `sweep`, not here: a request would pay for a dozen looks that nobody needs.
  #requestEndedMs: number | undefined;
  #activeMs: number;
  /** Whether anything moved since `sweep` last looked. */
  #hasMoved = false;
  #over = false;

  status = 0;
  bytesIn = 0;
  bytesOut = 0;
  /** Why it went wrong after it began, for the record. */
  code: RefusalCode | "client_gone" | undefined;
  upstream: string | undefined;
  /** Id of the first line in the hit log; undefined until there is one. */
  hit: string | undefined;

  #framing: Framing = "none";
  #keepAlive = false;
  #out = "";
  /** The response's body while its record is not written: a small one as text, so that it leaves with the head in one piece. */
  #outText = "";
  #outBody: Buffer[] | undefined;
  #outBytes = 0;
  #informational: string | undefined;
  #responseBegun = false;
  /** The answer began before the question was sent. */
  #isEarly = false;
  #responseDone = false;
  #held = false;
  #released = false;
  /** Whether a line in the log says how it ended. */
  #endRecorded = false;

  constructor(
    head: RequestHead,
    permit: Permit,
    from: { client: Client; via: string; times: Times },
  ) {
    const out = requestHead(head, permit, from.via);
    this.#text = out.text;
    this.canary = out.canary;
    this.head = head;
    this.permit = permit;
    this.times = from.times;
    this.#client = from.client;
    this.#activeMs = from.times.startedMs;
  }

  /** Finds a connection and sends the head. Only now does anything reach the upstream. */
  start(origins: Origins): void {
    const cancel = origins.take(
      this.permit.target.port,
      this.permit.caller.name,
      (taken) => this.#begin(taken),
      (refusal) => this.#refuse(refusal),
    );
    if (this.#taken === undefined && !this.#over) this.#cancelTake = cancel;
  }

  /** A part of the request's body. False: read no more until `Client.resumeRequest`. */
  requestBody(chunk: Buffer): boolean {
    this.bytesIn += chunk.length;
    this.#hasMoved = true;
    if (this.#over) return true;
    if (chunk.length >= Gathered.smallBytes || this.head.body !== "chunked") {
      this.#flushRequest();
      return this.#passRequest(Buffer.from(chunk)); // it is only lent
    }
    this.#gatheredIn ??= new Gathered();
    if (this.#gatheredIn.isEmpty) queueMicrotask(() => this.#flushRequest());
    else if (!this.#gatheredIn.hasRoom) this.#flushRequest();
    this.#gatheredIn.add(chunk);
    return true;
  }

  /** Passes small parts on together: at the end of the read that brought them, and before what must not overtake them. */
  #flushRequest(): void {
    if (this.#gatheredIn === undefined || this.#gatheredIn.isEmpty) return;
    const joined = this.#gatheredIn.take();
    if (!this.#over && !this.#passRequest(joined)) this.#client.pauseRequest();
  }

  #passRequest(chunk: Buffer): boolean {
    const taken = this.#taken;
    if (taken !== undefined) return this.#sendBody(taken, chunk);
    this.#waitingBody ??= [];
    this.#waitingBody.push(chunk);
    return false;
  }

  requestEnd(trailers: readonly string[] | undefined): void {
    this.#flushRequest();
    this.#requestDone = true;
    this.#hasMoved = true;
    if (this.#taken !== undefined) this.#sendEnd(this.#taken, trailers);
    else this.#trailers = trailers;
    this.#maybeDone();
  }
  #trailers: readonly string[] | undefined;

  onClientDrain(): void {
    this.#hasMoved = true;
    this.#taken?.connection.resume();
  }

  /** The client is gone or may not go on: nothing more is sent to it. Safe to call twice. */
  abort(code: RefusalCode | "client_gone"): void {
    if (this.#over) return;
    this.code = code;
    this.#over = true;
    this.#drop();
    if (!this.#held) this.#noteEnd();
  }

  /** Ends what takes too long. Called a few times a second. */
  sweep(nowMs: number): void {
    const { responseHeadMs, idleMs } = this.permit.target.port.timeouts;
    if (this.#hasMoved) this.#activeMs = nowMs;
    this.#hasMoved = false;
    if (!this.#responseBegun && this.#requestDone) {
      this.#requestEndedMs ??= nowMs;
      if (nowMs - this.#requestEndedMs > responseHeadMs)
        this.onFailed("upstream_timeout", `no response head in ${responseHeadMs} ms`);
    } else if (nowMs - this.#activeMs > idleMs) {
      this.onFailed(
        this.#requestDone ? "upstream_timeout" : "idle_timeout",
        `nothing moved in ${idleMs} ms`,
      );
    }
  }

  get finished(): boolean {
    return this.#responseDone;
  }

  // What the upstream says.

  onInformational(head: ResponseHead): void {
    this.#hasMoved = true;
    // HTTP/1.0 knows no interim responses (RFC 9110 section 15.2); 101 would need an upgrade that we never ask for.
    if (head.status === 101)
      return this.onFailed("upstream_broken", "101 to a request without Upgrade");
    if (this.head.minor === 0) return;
    this.status = head.status;
    this.#informational =
      (this.#informational ?? "") + responseHead(head, "none", undefined) + crlf;
    this.#hold();
  }

  onResponseHead(head: ResponseHead): void {
    this.#hasMoved = true;
    this.#responseBegun = true;
    this.#isEarly = !this.#requestDone || this.#taken?.connection.isSending === true;
    this.status = head.status;
    this.#framing = framingFor(head, this.head.minor);
    // An answer before the end of the question: the rest of the question will not be read.
    this.#keepAlive =
      this.head.keepAlive &&
      this.#requestDone &&
      this.#framing !== "close" &&
      !this.#client.mustClose();
    const connection = this.#keepAlive
      ? this.head.minor === 0
        ? "keep-alive"
        : undefined
      : "close";
    this.#out = responseHead(head, this.#framing, connection);
    this.#hold();
  }

  onResponseBody(chunk: Buffer): void {
    this.#hasMoved = true;
    this.bytesOut += chunk.length;
    if (this.#framing === "none") return;
    if (chunk.length >= Gathered.smallBytes || this.#framing === "length") {
      this.#flushResponse();
      this.#passResponse(chunk);
      return;
    }
    this.#gatheredOut ??= new Gathered();
    if (this.#gatheredOut.isEmpty) queueMicrotask(() => this.#flushResponse());
    else if (!this.#gatheredOut.hasRoom) this.#flushResponse();
    this.#gatheredOut.add(chunk);
  }

  #flushResponse(): void {
    if (this.#gatheredOut === undefined || this.#gatheredOut.isEmpty) return;
    const joined = this.#gatheredOut.take();
    if (!this.#over) this.#passResponse(joined);
  }

  /** The chunk is only lent. */
  #passResponse(chunk: Buffer): void {
    if (this.#released) {
      if (!this.#sendChunk(Buffer.from(chunk))) this.#taken?.connection.pause();
      return;
    }
    this.#outBytes += chunk.length;
    if (this.#outBody === undefined && this.#outBytes <= textBytes) {
      this.#outText += latin1(chunk, 0, chunk.length);
      return;
    }
    this.#outBody ??= [];
    this.#outBody.push(Buffer.from(chunk));
    if (this.#outBytes > bounds.pendingBytes) this.#taken?.connection.pause();
  }

  onResponseEnd(trailers: readonly string[] | undefined): void {
    // Let go of first: a client whose socket is full stops the connection of its own answer, not that of whoever is next.
    const taken = this.#taken;
    this.#taken = undefined;
    this.#flushResponse();
    this.#responseDone = true;
    this.#responseTrailers = trailers;
    if (taken !== undefined) {
      // A service that answered before it had the whole question may take the rest of it for the next one, whoever asks that.
      if (this.#requestDone && !this.#isEarly) taken.origin.give(taken.connection);
      else taken.connection.destroy();
    }
    if (this.#released) this.#sendLast();
    this.#maybeDone();
  }
  #responseTrailers: readonly string[] | undefined;

  onFailed(code: RefusalCode, detail: string): void {
    if (this.#over || this.#responseDone) return;
    if (!this.#responseBegun) return this.#refuse(new Refusal(code, detail));
    // Part of the response is out: only the end of the connection can say that it is cut short.
    this.code = code === "upstream_down" ? "upstream_broken" : code;
    this.#over = true;
    this.#drop();
    if (this.#held) return; // `release` will see it
    this.#noteEnd();
    this.#client.done(this, false);
  }

  onDrain(): void {
    this.#hasMoved = true;
    this.#client.resumeRequest();
  }

  // What the outbox says.

  record(): void {
    if (this.hit === undefined) this.hit = this.#client.lineOpen(this);
    else this.#client.lineClose(this); // an interim response went first
    if (this.#responseDone || this.#over) this.#endRecorded = true;
  }

  release(): void {
    this.#held = false;
    this.#send(this.hit);
  }

  withhold(): void {
    this.#held = false;
    this.hit = undefined; // it names nothing
    if (this.#over || this.#client.mayGoUnrecorded(this)) return this.#send(undefined);
    if (this.#released) {
      // The head is out and recorded; only a later part of the response is not.
      this.#over = true;
      this.#drop();
      this.#client.done(this, false);
      return;
    }
    this.#refuse(new Refusal("audit_unavailable", "the hit log cannot be written"));
  }

  #hold(): void {
    if (this.#held) return;
    this.#held = true;
    this.#client.hold(this);
  }

  #send(hit: string | undefined): void {
    if (this.#over) {
      this.#client.done(this, false);
      return;
    }
    if (this.#informational !== undefined) {
      this.#client.write(this.#informational);
      this.#informational = undefined;
    }
    if (!this.#responseBegun) return;
    const wasReleased = this.#released;
    this.#released = true;
    if (wasReleased) return;
    const id = hit === undefined ? "" : `Sallyport-Hit: ${hit}\r\n`;
    const text = `${this.#out}${id}\r\n`;
    this.#sendFirst(text);
    if (this.#responseDone) {
      this.#maybeDone();
      return;
    }
    this.#taken?.connection.resume();
  }

  /** Head and whatever of the body is here, in one write where it is small. */
  #sendFirst(head: string): void {
    const framed = this.#framing === "chunked";
    const first = this.#outText;
    const bytes = this.#outBytes - first.length;
    const body = this.#outBody;
    this.#outBody = undefined;
    this.#outText = "";
    let text = head;
    if (first !== "") text += framed ? `${first.length.toString(16)}\r\n${first}\r\n` : first;
    if (body === undefined) {
      if (framed && this.#responseDone) text += this.#lastChunk();
      this.#client.write(text);
      return;
    }
    if (!framed && bytes <= joinBytes) {
      const whole = Buffer.allocUnsafe(text.length + bytes);
      let at = whole.write(text, "latin1");
      for (const chunk of body) at += chunk.copy(whole, at);
      this.#client.write(whole);
      return;
    }
    this.#client.together(() => {
      this.#client.write(text);
      for (const chunk of body) this.#sendChunk(chunk);
      if (this.#responseDone) this.#sendLast();
    });
  }

  #sendChunk(chunk: Buffer): boolean {
    if (this.#framing !== "chunked") return this.#client.write(chunk);
    let more = true;
    this.#client.together(() => {
      this.#client.write(`${chunk.length.toString(16)}\r\n`);
      this.#client.write(chunk);
      more = this.#client.write(crlf);
    });
    return more;
  }

  #sendLast(): void {
    if (this.#framing === "chunked") this.#client.write(this.#lastChunk());
  }

  #lastChunk(): string {
    const trailers = this.#responseTrailers;
    return trailers === undefined ? lastChunk : `0\r\n${fieldLines(trailers, responseFate)}\r\n`;
  }

  #begin(taken: Taken): void {
    this.#cancelTake = undefined;
    if (this.#over) {
      taken.origin.give(taken.connection);
      return;
    }
    this.#taken = taken;
    this.upstream = taken.connection.address;
    this.#hasMoved = true;
    if (this.head.body === "chunked" || this.head.contentLength > 0)
      taken.connection.bodyOf = this.permit.caller.name;
    taken.connection.begin(this.head.method, this);
    const waiting = this.#waitingBody;
    this.#waitingBody = undefined;
    if (waiting === undefined && (!this.#requestDone || this.head.body !== "chunked")) {
      taken.connection.writeHead(this.#text);
    } else {
      taken.connection.together(() => {
        taken.connection.writeHead(this.#text);
        for (const chunk of waiting ?? []) this.#sendBody(taken, chunk);
        if (this.#requestDone) this.#sendEnd(taken, this.#trailers);
      });
    }
    if (!this.#requestDone) this.#client.resumeRequest();
  }

  #sendBody(taken: Taken, chunk: Buffer): boolean {
    const { connection } = taken;
    if (this.head.body !== "chunked") return connection.write(chunk);
    let more = true;
    connection.together(() => {
      connection.writeHead(`${chunk.length.toString(16)}\r\n`);
      connection.write(chunk);
      more = connection.writeHead(crlf);
    });
    return more;
  }

  #sendEnd(taken: Taken, trailers: readonly string[] | undefined): void {
    if (this.head.body !== "chunked") return;
    taken.connection.writeHead(
      trailers === undefined ? lastChunk : `0\r\n${fieldLines(trailers, requestFate)}\r\n`,
    );
  }

  /** Both halves are through: the connection may serve its next request. */
  #maybeDone(): void {
    if (!this.#responseDone || !this.#released || this.#over) return;
    this.#over = true;
    this.#noteEnd();
    this.#client.done(this, this.#keepAlive && this.#requestDone);
  }

  /** Sees to it that the log says how it ended, once. */
  #noteEnd(): void {
    if (this.#endRecorded) return;
    this.#endRecorded = true;
    this.#client.note(() => {
      if (this.hit === undefined) this.hit = this.#client.lineOpen(this);
      else this.#client.lineClose(this);
    });
  }

  #refuse(refusal: Refusal): void {
    if (this.#over) return;
    this.#over = true;
    this.#drop();
    this.#client.refuse(refusal, this);
  }

  #drop(): void {
    this.#cancelTake?.();
    this.#cancelTake = undefined;
    const taken = this.#taken;
    this.#taken = undefined;
    taken?.connection.destroy();
    this.#waitingBody = undefined;
    this.#outBody = undefined;
  }
}

/** Trailers as field lines: what may not cross in a head may not cross behind a body either. */
function fieldLines(fields: readonly string[], fateOf: (name: string) => Fate): string {
  let text = "";
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string;
    if (fateOf(name) === fate.keep) text += `${name}: ${fields[i + 1]}\r\n`;
  }
  return text;
}
