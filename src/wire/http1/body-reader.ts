import type { WireErrorCode } from "../wire-error.ts";
import { FAILED, FieldLines, MORE } from "./field-lines.ts";
import { recognize, refusedInTrailers } from "./fields.ts";
import { KeptBytes } from "./kept-bytes.ts";
import {
  CR,
  HTAB,
  hexValues,
  LF,
  latin1,
  quotedOctets,
  SP,
  showOctet,
  tokenOctets,
  valueOctets,
} from "./octets.ts";

const LENGTH = 0;
const UNTIL_CLOSE = 1;
const SIZE = 2;
const EXTENSION_NAME = 3;
const EXTENSION_VALUE = 4;
const EXTENSION_QUOTED = 5;
const EXTENSION_ESCAPED = 6;
const EXTENSION_QUOTED_END = 7;
const SIZE_LF = 8;
const DATA = 9;
const DATA_CR = 10;
const DATA_LF = 11;
const TRAILERS = 12;

const SEMICOLON = 0x3b;
const EQUALS = 0x3d;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;

const sizeDigitsMax = 16;
const extensionBytesPerLineMax = 256;
const extensionBytesMax = 16_384;

/** The body of one message after another: by length, chunked (RFC 9112, section 7.1) or until the connection closes. */
export class BodyReader {
  /** Body bytes that the last `read` found, a slice of its input; undefined when there were none. */
  piece: Buffer | undefined;
  /** True once the last byte of the message was read. Never true for a body that ends with the connection. */
  done = false;
  /** Trailer fields, flat, when there were any. */
  trailers: string[] | undefined;
  code: WireErrorCode = "bad_chunk";
  detail = "";
  /** The octet that is wrong, after FAILED. */
  at = 0;
  #state: number = LENGTH;
  #left = 0;
  #digits = 0;
  #named = 0;
  #extensionBytes = 0;
  #lineExtensionBytes = 0;
  readonly #trailerBytesMax: number;
  readonly #fields: FieldLines;
  readonly #kept = new KeptBytes();

  constructor(trailerBytesMax: number, fieldsMax: number, underscores: boolean) {
    this.#trailerBytesMax = trailerBytesMax;
    this.#fields = new FieldLines(fieldsMax, underscores);
  }

  startLength(bytes: number): void {
    this.#start(LENGTH);
    this.#left = bytes;
    this.done = bytes === 0;
  }

  startChunked(): void {
    this.#start(SIZE);
    this.#left = 0;
    this.#digits = 0;
    this.#extensionBytes = 0;
    this.#lineExtensionBytes = 0;
  }

  startUntilClose(): void {
    this.#start(UNTIL_CLOSE);
  }

  get endsWithConnection(): boolean {
    return this.#state === UNTIL_CLOSE;
  }

  /** Reads up to the next piece of body or the end of the message. Returns how far it came, or FAILED. */
  read(chunk: Buffer, from: number): number {
    this.piece = undefined;
    if (this.#state === UNTIL_CLOSE) return this.#take(chunk, from, chunk.length);
    if (this.#state === LENGTH) {
      const to = Math.min(chunk.length, from + this.#left);
      this.#left -= to - from;
      this.done = this.#left === 0;
      return this.#take(chunk, from, to);
    }
    return this.#readChunked(chunk, from);
  }

  #start(state: number): void {
    this.#state = state;
    this.done = false;
    this.piece = undefined;
    this.trailers = undefined;
  }

  #take(chunk: Buffer, from: number, to: number): number {
    this.piece = from === 0 && to === chunk.length ? chunk : chunk.subarray(from, to);
    return to;
  }

  #readChunked(chunk: Buffer, from: number): number {
    let at = from;
    while (at < chunk.length) {
      const octet = chunk[at] as number;
      switch (this.#state) {
        case SIZE: {
          const value = hexValues[octet] as number;
          if (value === 0) {
            if (!this.#endSize(octet)) return this.#failSize(at, octet);
            break;
          }
          // The brackets matter: next to 2^53 a sum that goes up and down again is rounded.
          this.#left = this.#left * 16 + (value - 1);
          this.#digits += 1;
          if (this.#digits > sizeDigitsMax || this.#left > Number.MAX_SAFE_INTEGER)
            return this.#fail(at, "a chunk size beyond 2^53");
          break;
        }
        case EXTENSION_NAME:
        case EXTENSION_VALUE:
        case EXTENSION_QUOTED:
        case EXTENSION_ESCAPED:
        case EXTENSION_QUOTED_END:
          this.#lineExtensionBytes += 1;
          this.#extensionBytes += 1;
          if (octet !== CR && this.#lineExtensionBytes > extensionBytesPerLineMax)
            return this.#fail(at, `chunk extensions over ${extensionBytesPerLineMax} bytes`);
          if (this.#extensionBytes > extensionBytesMax)
            return this.#fail(at, `chunk extensions of a body over ${extensionBytesMax} bytes`);
          if (!this.#readExtension(octet))
            return this.#fail(at, `the octet ${showOctet(octet)} in a chunk extension`);
          break;
        case SIZE_LF:
          if (octet !== LF) return this.#fail(at, "a CR without LF after a chunk size");
          this.#lineExtensionBytes = 0;
          if (this.#left > 0) {
            this.#state = DATA;
          } else {
            this.#state = TRAILERS;
            this.#fields.reset();
          }
          break;
        case DATA: {
          const to = Math.min(chunk.length, at + this.#left);
          this.#left -= to - at;
          if (this.#left === 0) this.#state = DATA_CR;
          return this.#take(chunk, at, to);
        }
        case DATA_CR:
          if (octet !== CR) return this.#fail(at, "a chunk longer than its size");
          this.#state = DATA_LF;
          break;
        case DATA_LF:
          if (octet !== LF) return this.#fail(at, "a CR without LF after a chunk");
          this.#state = SIZE;
          this.#digits = 0;
          break;
        default:
          return this.#readTrailers(chunk, at);
      }
      at += 1;
    }
    return at;
  }

  /** What may stand after the digits of a size. */
  #endSize(octet: number): boolean {
    if (this.#digits === 0) return false;
    if (octet === CR) {
      this.#state = SIZE_LF;
      return true;
    }
    if (octet !== SEMICOLON) return false;
    this.#lineExtensionBytes = 1;
    this.#extensionBytes += 1;
    this.#named = 0;
    this.#state = EXTENSION_NAME;
    return true;
  }

  /** One octet of `;name`, `;name=token` or `;name="text"`; white space around them is refused. False when it does not belong there. */
  #readExtension(octet: number): boolean {
    switch (this.#state) {
      case EXTENSION_NAME:
      case EXTENSION_VALUE:
        if (tokenOctets[octet] === 1) {
          this.#named = 1;
          return true;
        }
        if (this.#state === EXTENSION_VALUE && this.#named === 0 && octet === QUOTE) {
          this.#state = EXTENSION_QUOTED;
          return true;
        }
        if (this.#named === 0) return false;
        this.#named = 0;
        if (this.#state === EXTENSION_NAME && octet === EQUALS) {
          this.#state = EXTENSION_VALUE;
          return true;
        }
        return this.#endExtension(octet);
      case EXTENSION_QUOTED:
        if (octet === QUOTE) this.#state = EXTENSION_QUOTED_END;
        else if (octet === BACKSLASH) this.#state = EXTENSION_ESCAPED;
        else return quotedOctets[octet] === 1;
        return true;
      case EXTENSION_ESCAPED:
        this.#state = EXTENSION_QUOTED;
        return valueOctets[octet] === 1;
      default:
        this.#named = 0;
        return this.#endExtension(octet);
    }
  }

  #endExtension(octet: number): boolean {
    if (octet === CR) this.#state = SIZE_LF;
    else if (octet === SEMICOLON) this.#state = EXTENSION_NAME;
    else return false;
    return true;
  }

  #readTrailers(chunk: Buffer, from: number): number {
    const kept = this.#kept;
    const already = kept.length;
    const to = Math.min(chunk.length, from + this.#trailerBytesMax - already);
    if (already > 0) kept.append(chunk, from, to);
    const bytes = already > 0 ? kept.bytes : chunk;
    const base = already > 0 ? 0 : from;
    // Offsets in `bytes` plus this are offsets in `chunk`.
    const shift = already > 0 ? from - already : 0;
    const end = this.#fields.scan(bytes, base, base + already, to - shift);
    if (end === FAILED) {
      this.code = this.#fields.code;
      this.detail = `in the trailers: ${this.#fields.detail}`;
      this.at = this.#fields.at + shift;
      return FAILED;
    }
    if (end === MORE) {
      if (to - shift - base === this.#trailerBytesMax)
        return this.#fail(to, `trailers over ${this.#trailerBytesMax} bytes`, "head_too_large");
      if (already === 0) kept.append(chunk, from, to);
      return to;
    }
    const refused = this.#collectTrailers(bytes, base, end);
    kept.clear();
    if (refused !== undefined)
      return this.#fail(end + shift, `the field ${refused} may not be a trailer`, "bad_header");
    this.done = true;
    return end + shift;
  }

  /** The name of a field that may not stand in trailers, or undefined when all may. */
  #collectTrailers(bytes: Buffer, base: number, end: number): string | undefined {
    const { marks, count } = this.#fields;
    if (count === 0) return undefined;
    const text = latin1(bytes, base, end);
    const trailers: string[] = [];
    for (let which = 0; which < count * 4; which += 4) {
      const nameFrom = marks[which] as number;
      const nameTo = marks[which + 1] as number;
      const name = text.slice(nameFrom, nameTo);
      if (refusedInTrailers[recognize(bytes, base + nameFrom, base + nameTo)] === 1) return name;
      trailers.push(name, text.slice(marks[which + 2], marks[which + 3]));
    }
    this.trailers = trailers;
    return undefined;
  }

  #failSize(at: number, octet: number): number {
    if (octet === SP || octet === HTAB) return this.#fail(at, "white space in a chunk size");
    if (this.#digits === 0) return this.#fail(at, "a chunk without a size");
    return this.#fail(at, `the octet ${showOctet(octet)} in a chunk size`);
  }

  #fail(at: number, detail: string, code: WireErrorCode = "bad_chunk"): number {
    this.at = at;
    this.code = code;
    this.detail = detail;
    return FAILED;
  }
}
