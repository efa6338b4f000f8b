import type { WireError } from "../wire-error.ts";
import { BodyReader } from "./body-reader.ts";
import { FAILED, FieldLines, MORE } from "./field-lines.ts";
import {
  type ConnectionOptions,
  isChunked,
  parseLength,
  readConnection,
  readKeepAliveTimeout,
  staysOpen,
} from "./field-values.ts";
import { type FieldId, field, recognize } from "./fields.ts";
import { HeadFields, valueAt } from "./head-fields.ts";
import { Intake } from "./intake.ts";
import { KeptBytes } from "./kept-bytes.ts";
import { CR, LF, latin1, SP, showOctet, valueOctets } from "./octets.ts";

export type ResponseLimits = {
  /** Status line, fields and the empty line, in bytes; also the trailers, counted apart. Default 32768. */
  readonly headBytesMax: number;
  /** Fields of a head, and of trailers. Default 100. */
  readonly headersMax: number;
  /** Interim (1xx) responses before the final one. Default 8. */
  readonly informationalMax: number;
};

export type ResponseHead = {
  /** 100 to 999. */
  readonly status: number;
  /** The reason phrase, often empty. One unit is one octet. */
  readonly reason: string;
  readonly minor: 0 | 1;
  readonly fields: HeadFields;
  /** Whether the connection may carry another request after this response, as far as the upstream is concerned. */
  readonly keepAlive: boolean;
  /** What `Keep-Alive: timeout=` says, in seconds. */
  readonly keepAliveTimeoutSeconds: number | undefined;
  /** `close`: the body ends with the connection. `none`: to HEAD, and with 1xx, 204 and 304. */
  readonly body: "none" | "length" | "chunked" | "close";
  /** What `Content-Length` says, also where no body follows (HEAD, 304); 0 when it is absent. */
  readonly contentLength: number;
  readonly hasContentLength: boolean;
  /** Lower-case names nominated by `Connection`, without `close` and `keep-alive`: they end here. */
  readonly connectionNames: readonly string[];
};

export type { WireError };

/** All are called synchronously, from `push`, `resume` or `end`. */
export interface ResponseEvents {
  /** A 1xx; the final response is still to come. Never a 101. */
  onInformational(head: ResponseHead): void;
  onHead(head: ResponseHead): void;
  /** Decoded body bytes, never empty: a slice of the input, so copy what must outlive the call if the input is reused. */
  onBody(chunk: Buffer): void;
  /** The response is complete. `trailers` is flat (name, value, …), undefined when there are none. */
  onEnd(trailers: readonly string[] | undefined): void;
  /** Once, always `upstream_broken`; nothing is read and no event comes afterwards. */
  onError(error: WireError): void;
}

const IDLE = 0;
const EXPECTING = 1;
const VERSION = 2;
const STATUS = 3;
const REASON = 4;
const LINE_LF = 5;
const FIELDS = 6;
const BODY = 7;
const ENDING = 8;

const noNames: readonly string[] = Object.freeze([]);

const defaultLimits: ResponseLimits = Object.freeze({
  headBytesMax: 32_768,
  headersMax: 100,
  informationalMax: 8,
});

/**
 * Reads the responses of one upstream connection, one request at a time (RFC 9112). As strict as the request parser about where a
 * message ends, because a response read in two ways poisons the next caller's; field names may have underscores, and the space
 * after the status may be missing before an empty reason. Every error is `upstream_broken`.
 */
export class ResponseParser extends Intake {
  readonly #events: ResponseEvents;
  readonly #headBytesMax: number;
  readonly #informationalMax: number;
  readonly #lines: FieldLines;
  readonly #body: BodyReader;
  readonly #kept = new KeptBytes();
  #state: number = IDLE;
  #method = "";
  #informational = 0;
  /** An interim response said `close`, which also goes for the final one. */
  #closing = false;
  #stray = false;
  // Offset from the first octet of the head.
  #lineTo = 0;

  constructor(events: ResponseEvents, limits: Partial<ResponseLimits> = {}) {
    super();
    const { headBytesMax, headersMax, informationalMax } = { ...defaultLimits, ...limits };
    this.#events = events;
    this.#headBytesMax = headBytesMax;
    this.#informationalMax = informationalMax;
    this.#lines = new FieldLines(headersMax, true);
    this.#body = new BodyReader(headBytesMax, headersMax, true);
  }

  /** A request was sent, or is about to be: the next response answers it. Throws unless `state` is `idle`: that is our bug. */
  expect(method: string): void {
    if (this.state !== "idle")
      throw new Error("a request is sent before the last one was answered");
    this.#method = method;
    this.#informational = 0;
    this.#closing = false;
    this.#state = EXPECTING;
  }

  /** `idle`: nothing is expected. `waiting`: a response is, and no byte of it has come. */
  get state(): "idle" | "waiting" | "head" | "body" | "failed" {
    if (this.failed || this.#stray) return "failed";
    if (this.#state === IDLE) return "idle";
    if (this.#state === EXPECTING) return "waiting";
    return this.#state >= BODY ? "body" : "head";
  }

  protected override consume(chunk: Buffer, from: number): number {
    switch (this.#state) {
      case IDLE:
        return this.#refuse("bytes that no request asked for", from);
      case BODY:
        return this.#readBody(chunk, from);
      case EXPECTING:
        this.#state = VERSION;
        return this.#readHead(chunk, from);
      default:
        return this.#readHead(chunk, from);
    }
  }

  protected override settle(more: boolean): boolean {
    if (this.#state !== ENDING) return false;
    this.#state = IDLE;
    // Bytes that are already here cannot answer a request that is yet to be sent, so `onEnd` must not be able to send one. They are
    // refused when they are read, which may be after a pause.
    this.#stray = more;
    const { trailers } = this.#body;
    this.#events.onEnd(trailers);
    return true;
  }

  protected override finish(): void {
    if (this.#state === IDLE) return;
    if (this.#state === BODY && this.#body.endsWithConnection) {
      this.#state = IDLE;
      this.#events.onEnd(undefined);
      return;
    }
    const where = this.#state === EXPECTING ? "before it answered" : "in the middle of a response";
    this.#refuse(`the service closed the connection ${where}`, 0);
  }

  protected override onFailure(error: WireError): void {
    this.#kept.clear();
    this.#events.onError(error);
  }

  #readBody(chunk: Buffer, from: number): number {
    const body = this.#body;
    const at = body.read(chunk, from);
    if (at === FAILED) return this.#refuse(body.detail, body.at);
    if (body.done) this.#state = ENDING;
    if (body.piece !== undefined) this.#events.onBody(body.piece);
    return at;
  }

  #readHead(chunk: Buffer, from: number): number {
    const kept = this.#kept;
    const already = kept.length;
    const to = Math.min(chunk.length, from + this.#headBytesMax - already);
    if (already > 0) kept.append(chunk, from, to);
    const bytes = already > 0 ? kept.bytes : chunk;
    const base = already > 0 ? 0 : from;
    // Offsets in `bytes` plus this are offsets in `chunk`.
    const shift = already > 0 ? from - already : 0;
    let at = base + already;
    if (this.#state !== FIELDS) {
      at = this.#readLine(bytes, base, at, to - shift, shift);
      if (at === FAILED) return chunk.length;
    }
    if (this.#state === FIELDS) {
      const lines = this.#lines;
      const end = lines.scan(bytes, base, at, to - shift);
      if (end === FAILED) return this.#refuse(lines.detail, lines.at + shift);
      if (end !== MORE) {
        const head = this.#understand(bytes, base, end, end + shift);
        if (head === undefined) return chunk.length;
        kept.clear();
        this.#tell(head, end + shift);
        return end + shift;
      }
    }
    if (to - shift - base === this.#headBytesMax)
      return this.#refuse(`a head over ${this.#headBytesMax} bytes`, to);
    if (already === 0) kept.append(chunk, from, to);
    return to;
  }

  #tell(head: ResponseHead, after: number): void {
    if (head.status < 200) {
      this.#informational += 1;
      if (this.#informational > this.#informationalMax) {
        this.#refuse(`more than ${this.#informationalMax} interim responses`, after);
        return;
      }
      this.#closing ||= !head.keepAlive;
      this.#state = EXPECTING;
      this.#events.onInformational(head);
      return;
    }
    const body = this.#body;
    if (head.body === "chunked") body.startChunked();
    else if (head.body === "close") body.startUntilClose();
    else body.startLength(head.body === "length" ? head.contentLength : 0);
    this.#state = body.done ? ENDING : BODY;
    this.#events.onHead(head);
  }

  /** The status line, up to and with its LF. Returns where it came, or FAILED. */
  #readLine(bytes: Buffer, base: number, from: number, to: number, shift: number): number {
    let at = from;
    while (at < to) {
      const octet = bytes[at] as number;
      const step = at - base;
      switch (this.#state) {
        case VERSION:
          if (!isVersionOctet(step, octet))
            return this.#refuseLine(
              "an answer that does not start with HTTP/1.0 or HTTP/1.1",
              at + shift,
            );
          if (step === 8) this.#state = STATUS;
          break;
        case STATUS:
          if (step < 12) {
            if (octet < 0x30 || octet > 0x39 || (step === 9 && octet === 0x30))
              return this.#refuseLine("a status that is not three digits", at + shift);
          } else if (octet === SP) {
            this.#state = REASON;
          } else if (octet === CR) {
            this.#lineTo = step;
            this.#state = LINE_LF;
          } else {
            return this.#refuseLine("a status that is not three digits", at + shift);
          }
          break;
        case REASON:
          if (octet === CR) {
            this.#lineTo = step;
            this.#state = LINE_LF;
          } else if (valueOctets[octet] !== 1) {
            return this.#refuseLine(`the octet ${showOctet(octet)} in the reason`, at + shift);
          }
          break;
        default:
          if (octet !== LF)
            return this.#refuseLine("a CR without LF in the status line", at + shift);
          this.#lines.reset();
          this.#state = FIELDS;
          return at + 1;
      }
      at += 1;
    }
    return at;
  }

  /** The head's meaning. Undefined after a refusal. */
  #understand(bytes: Buffer, base: number, end: number, after: number): ResponseHead | undefined {
    const text = latin1(bytes, base, end);
    const { marks, count } = this.#lines;
    const minor = text.charCodeAt(7) === 0x31 ? 1 : 0;
    const status = Number(text.slice(9, 12));
    const ids: FieldId[] = [];
    let length = -1;
    let chunked = false;
    let keepAliveTimeoutSeconds: number | undefined;
    let connection: ConnectionOptions | undefined;
    for (let which = 0; which < count * 4; which += 4) {
      const nameFrom = marks[which] as number;
      const nameTo = marks[which + 1] as number;
      const id = recognize(bytes, base + nameFrom, base + nameTo);
      ids.push(id);
      switch (id) {
        case field.contentLength:
          if (length >= 0) return this.#no("Content-Length twice", after);
          length = parseLength(valueAt(text, marks, which));
          if (length < 0) return this.#no("the Content-Length is not one plain number", after);
          break;
        case field.transferEncoding:
          if (chunked) return this.#no("Transfer-Encoding twice", after);
          if (!isChunked(valueAt(text, marks, which)))
            return this.#no("the Transfer-Encoding is not chunked alone", after);
          chunked = true;
          break;
        case field.connection: {
          connection ??= { close: false, keepAlive: false, names: [] };
          const wrong = readConnection(valueAt(text, marks, which), connection);
          if (wrong !== undefined) return this.#no(wrong, after);
          break;
        }
        case field.keepAlive:
          keepAliveTimeoutSeconds ??= readKeepAliveTimeout(valueAt(text, marks, which));
          break;
        default: // says nothing about framing or the connection
      }
    }
    const wrong = judgeFraming(status, minor, chunked, length);
    if (wrong !== undefined) return this.#no(wrong, after);
    const body = this.#bodyKind(status, chunked, length);
    const stays = connection === undefined ? minor === 1 : staysOpen(connection, minor);
    return {
      status,
      reason: text.slice(13, Math.max(13, this.#lineTo)),
      minor,
      fields: new HeadFields(text, marks.slice(0, count * 4), ids),
      keepAlive: stays && body !== "close" && !this.#closing,
      keepAliveTimeoutSeconds,
      body,
      contentLength: Math.max(length, 0),
      hasContentLength: length >= 0,
      connectionNames: connection === undefined ? noNames : connection.names,
    };
  }

  /** RFC 9112, section 6.3. */
  #bodyKind(status: number, chunked: boolean, length: number): ResponseHead["body"] {
    if (this.#method === "HEAD" || status < 200 || status === 204 || status === 304) return "none";
    if (chunked) return "chunked";
    return length >= 0 ? "length" : "close";
  }

  #refuse(detail: string, at: number): number {
    this.fail("upstream_broken", detail, at);
    return at;
  }

  #refuseLine(detail: string, at: number): number {
    this.fail("upstream_broken", detail, at);
    return FAILED;
  }

  #no(detail: string, at: number): undefined {
    this.fail("upstream_broken", detail, at);
    return undefined;
  }
}

/** What a response may not say about its length, whatever the request was. Undefined when all is well. Fails closed. */
function judgeFraming(
  status: number,
  minor: 0 | 1,
  chunked: boolean,
  length: number,
): string | undefined {
  if (chunked && length >= 0) return "Content-Length with Transfer-Encoding";
  if (chunked && minor === 0) return "Transfer-Encoding in HTTP/1.0";
  if (status === 101) return "101, and no upgrade was asked for";
  if ((status < 200 || status === 204) && (chunked || length > 0))
    return `a body announced with status ${status}`;
  return undefined;
}

/** Whether `octet` can be number `step` of `HTTP/1.x ` with x 0 or 1. */
function isVersionOctet(step: number, octet: number): boolean {
  if (step === 7) return octet === 0x30 || octet === 0x31;
  return octet === "HTTP/1.1 ".charCodeAt(step);
}
