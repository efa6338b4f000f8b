import type { WireError, WireErrorCode } from "../wire-error.ts";
import { BodyReader } from "./body-reader.ts";
import { FAILED, FieldLines, MORE } from "./field-lines.ts";
import {
  type ConnectionOptions,
  isChunked,
  isHost,
  parseLength,
  readConnection,
  staysOpen,
} from "./field-values.ts";
import { type FieldId, field, recognize, recognizeUnderscored, singleInRequest } from "./fields.ts";
import { HeadFields, valueAt } from "./head-fields.ts";
import { Intake } from "./intake.ts";
import { KeptBytes } from "./kept-bytes.ts";
import { CR, LF, latin1, SP, showOctet, targetOctets, tokenOctets } from "./octets.ts";

export type Limits = {
  /** Request line, fields and the empty line, in bytes; also the trailers, counted apart. Default 32768. */
  readonly headBytesMax: number;
  /** Fields of a head, and of trailers. Default 100. */
  readonly headersMax: number;
  /**
   * Lets `_` into field names, but never one that reads like a known name, such as `Sallyport_Caller`: to CGI and WSGI the two are
   * one. Trailers never have them. Default false.
   */
  readonly underscoreHeaders: boolean;
};

export type RequestHead = {
  /** As sent; a token of at most 32. Never `CONNECT`. */
  readonly method: string;
  /** As sent: origin-form, absolute-form (`http:` and `https:`), or `*`. */
  readonly target: string;
  /** The target in origin-form: path and query as sent, from the first `/`; `*` for `OPTIONS *`. Not canonical: see `policy/path`. */
  readonly path: string;
  /** HTTP/1.0 or HTTP/1.1. */
  readonly minor: 0 | 1;
  readonly fields: HeadFields;
  /** The `Host` value as sent, port included, or the authority of an absolute target; checked. Undefined only in HTTP/1.0. */
  readonly host: string | undefined;
  /** Whether the client wants to send another request on this connection. */
  readonly keepAlive: boolean;
  readonly body: "none" | "length" | "chunked";
  /** 0 unless `body` is "length". */
  readonly contentLength: number;
  /** The client waits for a 100 before it sends the body. */
  readonly expectContinue: boolean;
  /** A field name has an underscore. Only with `underscoreHeaders`; else such a head is refused. */
  readonly underscored: boolean;
  /** An `Upgrade` or `HTTP2-Settings` field is there. */
  readonly upgrade: boolean;
  /** Lower-case names nominated by `Connection`, without `close` and `keep-alive`: they end here. */
  readonly connectionNames: readonly string[];
};

export type { WireError };

/** All are called synchronously, from `push`, `resume` or `end`. */
export interface RequestEvents {
  onHead(head: RequestHead): void;
  /** Decoded body bytes, never empty: a slice of the input, so copy what must outlive the call if the input is reused. */
  onBody(chunk: Buffer): void;
  /** The message is complete. `trailers` is flat (name, value, …), undefined when there are none. */
  onEnd(trailers: readonly string[] | undefined): void;
  /** Once; nothing is read and no event comes afterwards. */
  onError(error: WireError): void;
}

const IDLE = 0;
const SKIP_LF = 1;
const METHOD = 2;
const TARGET = 3;
const VERSION = 4;
const LINE_LF = 5;
const FIELDS = 6;
const BODY = 7;
const ENDING = 8;

const methodLengthMax = 32;
const noNames: readonly string[] = Object.freeze([]);

export const defaultLimits: Limits = Object.freeze({
  headBytesMax: 32_768,
  headersMax: 100,
  underscoreHeaders: false,
});

/**
 * Reads requests one after another (RFC 9112). Strict: a message that two readers could understand differently is refused, never
 * repaired. The events are the same however the bytes are cut. Push style; `pause` holds events and bytes back.
 */
export class RequestParser extends Intake {
  readonly #events: RequestEvents;
  readonly #headBytesMax: number;
  readonly #lines: FieldLines;
  readonly #body: BodyReader;
  readonly #kept = new KeptBytes();
  #state: number = IDLE;
  #skippedLine = false;
  // Offsets from the first octet of the head.
  #methodTo = 0;
  #targetTo = 0;
  #versionTo = 0;
  #targetKinds = 0;

  constructor(events: RequestEvents, limits: Partial<Limits> = {}) {
    super();
    const { headBytesMax, headersMax, underscoreHeaders } = { ...defaultLimits, ...limits };
    this.#events = events;
    this.#headBytesMax = headBytesMax;
    this.#lines = new FieldLines(headersMax, underscoreHeaders);
    this.#body = new BodyReader(headBytesMax, headersMax, false);
  }

  /** `idle`: between messages, and nothing of the next one has come. */
  get state(): "idle" | "head" | "body" | "failed" {
    if (this.failed) return "failed";
    if (this.#state === IDLE) return "idle";
    return this.#state >= BODY ? "body" : "head";
  }

  protected consume(chunk: Buffer, from: number): number {
    switch (this.#state) {
      case IDLE: {
        const octet = chunk[from] as number;
        // One empty line is forgiven (RFC 9112, section 2.2): old clients send it after a body.
        if (octet === CR && !this.#skippedLine) {
          this.#state = SKIP_LF;
          return from + 1;
        }
        this.#state = METHOD;
        return this.#readHead(chunk, from);
      }
      case SKIP_LF:
        if (chunk[from] !== LF) return this.#refuse("bad_request", "a CR without LF", from);
        this.#state = IDLE;
        this.#skippedLine = true;
        return from + 1;
      case BODY:
        return this.#readBody(chunk, from);
      default:
        return this.#readHead(chunk, from);
    }
  }

  protected override settle(): boolean {
    if (this.#state !== ENDING) return false;
    this.#state = IDLE;
    this.#skippedLine = false;
    const { trailers } = this.#body;
    this.#events.onEnd(trailers);
    return true;
  }

  protected finish(): void {
    if (this.#state !== IDLE)
      this.fail("bad_request", "the connection ended in the middle of a request", 0);
  }

  protected onFailure(error: WireError): void {
    this.#kept.clear();
    this.#events.onError(error);
  }

  #readBody(chunk: Buffer, from: number): number {
    const body = this.#body;
    const at = body.read(chunk, from);
    if (at === FAILED) return this.#refuse(body.code, body.detail, body.at);
    if (body.done) this.#state = ENDING;
    if (body.piece !== undefined) this.#events.onBody(body.piece);
    return at;
  }

  #readHead(chunk: Buffer, from: number): number {
    const kept = this.#kept;
    const already = kept.length;
    const to = Math.min(chunk.length, from + this.#headBytesMax - already);
    if (already > 0) kept.append(chunk, from, to);
    // A head that comes whole is read where it lies; only one that was cut is copied together.
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
      if (end === FAILED) return this.#refuse(lines.code, lines.detail, lines.at + shift);
      if (end !== MORE) {
        const head = this.#understand(bytes, base, end, end + shift);
        if (head === undefined) return chunk.length;
        kept.clear();
        this.#events.onHead(head);
        return end + shift;
      }
    }
    if (to - shift - base === this.#headBytesMax)
      return this.#refuse("head_too_large", `a head over ${this.#headBytesMax} bytes`, to);
    if (already === 0) kept.append(chunk, from, to);
    return to;
  }

  /** The request line, up to and with its LF. Returns where it came, or FAILED. */
  #readLine(bytes: Buffer, base: number, from: number, to: number, shift: number): number {
    let at = from;
    while (at < to) {
      const octet = bytes[at] as number;
      switch (this.#state) {
        case METHOD: {
          while (at < to && tokenOctets[bytes[at] as number] === 1) at += 1;
          const length = at - base;
          if (length > methodLengthMax)
            return this.#refuseLine("bad_request", "a method over 32 bytes", base + 32 + shift);
          if (at === to) break;
          if (bytes[at] !== SP || length === 0)
            return this.#refuseLine(
              "bad_request",
              `the octet ${showOctet(bytes[at])} in the method`,
              at + shift,
            );
          this.#methodTo = length;
          this.#targetKinds = 0;
          this.#state = TARGET;
          at += 1;
          break;
        }
        case TARGET: {
          let kinds = this.#targetKinds;
          let kind = 1;
          while (at < to) {
            kind = targetOctets[bytes[at] as number] as number;
            if (kind === 0) break;
            kinds |= kind;
            at += 1;
          }
          this.#targetKinds = kinds;
          if (at === to) break;
          if (at - base === this.#methodTo + 1)
            return this.#refuseLine("bad_request", "an empty request target", at + shift);
          if (bytes[at] === CR || bytes[at] === LF)
            return this.#refuseLine("bad_request", "a request line without a version", at + shift);
          if (bytes[at] !== SP)
            return this.#refuseLine(
              "bad_request",
              `the octet ${showOctet(bytes[at])} in the request target`,
              at + shift,
            );
          this.#targetTo = at - base;
          this.#state = VERSION;
          at += 1;
          break;
        }
        case VERSION: {
          const step = at - base - this.#targetTo - 1;
          if (step < 8) {
            if (!isVersionOctet(step, octet))
              return this.#refuseLine(
                "bad_request",
                "a request line that does not end in a version",
                at + shift,
              );
          } else if (octet === CR) {
            this.#versionTo = at - base;
            this.#state = LINE_LF;
          } else {
            return this.#refuseLine(
              "bad_request",
              `the octet ${showOctet(octet)} after the version`,
              at + shift,
            );
          }
          at += 1;
          break;
        }
        case LINE_LF:
          if (octet !== LF)
            return this.#refuseLine("bad_request", "a CR without LF after the version", at + shift);
          if (
            bytes[base + this.#versionTo - 3] !== 0x31 ||
            (bytes[base + this.#versionTo - 1] as number) > 0x31
          )
            return this.#refuseLine(
              "version_not_supported",
              "a version that is neither 1.0 nor 1.1",
              at + shift,
            );
          this.#lines.reset();
          this.#state = FIELDS;
          return at + 1;
      }
    }
    return at;
  }

  /** The head's meaning. Undefined after a refusal. */
  #understand(bytes: Buffer, base: number, end: number, after: number): RequestHead | undefined {
    const text = latin1(bytes, base, end);
    const { marks, count, underscored } = this.#lines;
    const minor = text.charCodeAt(this.#versionTo - 1) === 0x31 ? 1 : 0;
    const method = text.slice(0, this.#methodTo);
    const target = text.slice(this.#methodTo + 1, this.#targetTo);
    const ids: FieldId[] = [];
    let seen = 0;
    let seenHigh = 0;
    let host: string | undefined;
    let length = -1;
    let chunked = false;
    let expects = false;
    let upgrade = false;
    let connection: ConnectionOptions | undefined;
    for (let which = 0; which < count * 4; which += 4) {
      const nameFrom = marks[which] as number;
      const nameTo = marks[which + 1] as number;
      const id = recognize(bytes, base + nameFrom, base + nameTo);
      ids.push(id);
      if (id === field.other) {
        if (underscored && recognizeUnderscored(text.slice(nameFrom, nameTo)) !== field.other)
          return this.#no("bad_header", "a known field name with an underscore", after);
        continue;
      }
      if (singleInRequest[id] === 1) {
        const bit = 1 << (id & 31);
        if (((id < 32 ? seen : seenHigh) & bit) !== 0)
          return this.#refuseTwice(id, text.slice(nameFrom, nameTo), after);
        if (id < 32) seen |= bit;
        else seenHigh |= bit;
      }
      switch (id) {
        case field.host:
          host = valueAt(text, marks, which);
          if (!isHost(host)) return this.#no("bad_host", "the Host is not a host", after);
          break;
        case field.contentLength:
          length = parseLength(valueAt(text, marks, which));
          if (length < 0)
            return this.#no(
              "ambiguous_length",
              "the Content-Length is not one plain number",
              after,
            );
          break;
        case field.transferEncoding:
          if (!isChunked(valueAt(text, marks, which)))
            return this.#no(
              "ambiguous_length",
              "the Transfer-Encoding is not chunked alone",
              after,
            );
          chunked = true;
          break;
        case field.connection: {
          connection ??= { close: false, keepAlive: false, names: [] };
          const wrong = readConnection(valueAt(text, marks, which), connection);
          if (wrong !== undefined) return this.#no("bad_header", wrong, after);
          break;
        }
        case field.expect:
          if (valueAt(text, marks, which).toLowerCase() !== "100-continue")
            return this.#no("expectation_failed", "an expectation other than 100-continue", after);
          expects = true;
          break;
        case field.upgrade:
        case field.http2Settings:
          upgrade = true;
          break;
        default: // says nothing about framing, the host or the connection
      }
    }
    if (chunked && length >= 0)
      return this.#no("ambiguous_length", "Content-Length with Transfer-Encoding", after);
    if (chunked && minor === 0)
      return this.#no("ambiguous_length", "Transfer-Encoding in HTTP/1.0", after);
    if (host === undefined && minor === 1) return this.#no("bad_host", "no Host", after);
    let path = target;
    if (target.charCodeAt(0) !== 0x2f || (this.#targetKinds & 2) !== 0) {
      const place = readTarget(method, target);
      if (place.code !== undefined) return this.#no(place.code, place.detail, after);
      if (place.host !== undefined) {
        if (host !== undefined && host.toLowerCase() !== place.host.toLowerCase())
          return this.#no("bad_host", "the target's host differs from Host", after);
        host ??= place.host;
      }
      path = place.path;
    } else if (method === "CONNECT") {
      return this.#no("method_not_supported", "CONNECT", after);
    }
    const body = chunked ? "chunked" : length >= 0 ? "length" : "none";
    this.#startBody(body, length);
    return {
      method,
      target,
      path,
      minor,
      fields: new HeadFields(text, marks.slice(0, count * 4), ids),
      host,
      keepAlive: connection === undefined ? minor === 1 : staysOpen(connection, minor),
      body,
      contentLength: Math.max(length, 0),
      expectContinue: expects && minor === 1 && (chunked || length > 0),
      underscored,
      upgrade,
      connectionNames: connection === undefined ? noNames : connection.names,
    };
  }

  #startBody(body: "none" | "length" | "chunked", length: number): void {
    if (body === "chunked") this.#body.startChunked();
    else this.#body.startLength(Math.max(length, 0));
    this.#state = this.#body.done ? ENDING : BODY;
  }

  #refuse(code: WireErrorCode, detail: string, at: number): number {
    this.fail(code, detail, at);
    return at;
  }

  #refuseLine(code: WireErrorCode, detail: string, at: number): number {
    this.fail(code, detail, at);
    return FAILED;
  }

  #no(code: WireErrorCode, detail: string, at: number): undefined {
    this.fail(code, detail, at);
    return undefined;
  }

  #refuseTwice(id: FieldId, name: string, at: number): undefined {
    const code =
      id === field.host
        ? "bad_host"
        : id === field.contentLength || id === field.transferEncoding
          ? "ambiguous_length"
          : "bad_header";
    return this.#no(code, `${name} twice`, at);
  }
}

type Place =
  | { readonly code?: undefined; readonly host: string | undefined; readonly path: string }
  | { readonly code: WireErrorCode; readonly detail: string };

/** Every target that is not simply a path of plain octets (RFC 9112, section 3.2). Fails closed. */
function readTarget(method: string, target: string): Place {
  if (method === "CONNECT") return { code: "method_not_supported", detail: "CONNECT" };
  if (target.charCodeAt(0) === 0x2f) return readPath(target, undefined);
  if (target === "*") {
    return method === "OPTIONS"
      ? { host: undefined, path: "*" }
      : { code: "bad_request", detail: "the target * without OPTIONS" };
  }
  // Either scheme: callers speak TLS to us, and many of them through a library that thinks it speaks to a plain proxy.
  const scheme = /^https?:\/\//i.exec(target)?.[0];
  if (scheme === undefined)
    return { code: "bad_request", detail: "the target is neither a path nor an http URL" };
  let end = scheme.length;
  while (end < target.length && target[end] !== "/" && target[end] !== "?") end += 1;
  const host = target.slice(scheme.length, end);
  if (!isHost(host)) return { code: "bad_host", detail: "the target's host is not a host" };
  const rest = target.slice(end);
  if (rest.startsWith("/")) return readPath(rest, host);
  // An absent path is `*` for OPTIONS and `/` for all else (RFC 9112, section 3.2.4).
  if (rest === "") return { host, path: method === "OPTIONS" ? "*" : "/" };
  return readPath(`/${rest}`, host);
}

/** Brackets, braces and their like stand raw in many queries and are harmless there; in a path they are refused. */
function readPath(path: string, host: string | undefined): Place {
  for (let at = 0; at < path.length; at += 1) {
    const unit = path.charCodeAt(at);
    if (unit === 0x3f) break;
    if (targetOctets[unit] !== 1)
      return { code: "bad_request", detail: `the octet ${showOctet(unit)} in the path` };
  }
  return { host, path };
}

/** Whether `octet` can be number `step` of `HTTP/d.d`. */
function isVersionOctet(step: number, octet: number): boolean {
  if (step === 5 || step === 7) return octet >= 0x30 && octet <= 0x39;
  return octet === "HTTP/0.0".charCodeAt(step);
}
