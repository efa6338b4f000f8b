import type { WireErrorCode } from "../wire-error.ts";
import {
  COLON,
  CR,
  HTAB,
  LF,
  nameOctets,
  SP,
  showOctet,
  UNDERSCORE,
  valueOctets,
} from "./octets.ts";

const START = 0;
const NAME = 1;
const BEFORE_VALUE = 2;
const VALUE = 3;
const VALUE_LF = 4;
const LAST_LF = 5;

/** More bytes are needed. */
export const MORE = -1;
/** The block is refused: see `code` and `detail`. */
export const FAILED = -2;

/**
 * Reads field lines up to and with the empty line after them (RFC 9112, section 5): heads of requests and responses, and trailers.
 * Can stop at any byte and go on; looks at each byte once. Only syntax is judged here: no obs-fold, no space around a name, no bare
 * CR or LF, no control characters. What the fields mean is for the caller.
 */
export class FieldLines {
  /** Four offsets a field: name from, name to, value from, value to, relative to the `base` of `scan`. Valid after the end was reached. */
  readonly marks: number[] = [];
  /** Fields read so far. */
  count = 0;
  /** Whether a name has an underscore; only where they are let in. */
  underscored = false;
  code: WireErrorCode = "bad_header";
  detail = "";
  /** Where the scan stopped: after MORE always the end of what was given, after FAILED the octet that is wrong. */
  at = 0;
  #state: number = START;
  readonly #countMax: number;
  readonly #underscores: boolean;

  constructor(countMax: number, underscores: boolean) {
    this.#countMax = countMax;
    this.#underscores = underscores;
  }

  reset(): void {
    this.count = 0;
    this.underscored = false;
    this.#state = START;
  }

  /**
   * Reads `bytes` from `from` up to `to`; what earlier calls read must lie before it, at the same distance from `base`.
   * Returns the offset after the empty line, MORE or FAILED.
   */
  scan(bytes: Uint8Array, base: number, from: number, to: number): number {
    const { marks } = this;
    let state = this.#state;
    let at = from;
    while (at < to) {
      const octet = bytes[at] as number;
      switch (state) {
        case START:
          if (octet === CR) {
            state = LAST_LF;
            at += 1;
            break;
          }
          if (octet === SP || octet === HTAB)
            return this.#fail(at, "bad_header", "a line of the head starts with white space");
          if (octet === COLON) return this.#fail(at, "bad_header", "a field has no name");
          if (this.count === this.#countMax)
            return this.#fail(at, "head_too_large", `more than ${this.#countMax} fields`);
          marks[this.count * 4] = at - base;
          state = NAME;
          break;
        case NAME: {
          while (at < to && nameOctets[bytes[at] as number] === 1) at += 1;
          if (at === to) break;
          const end = bytes[at] as number;
          if (end === UNDERSCORE && this.#underscores) {
            this.underscored = true;
            at += 1;
            break;
          }
          if (end !== COLON) return this.#failName(at, end);
          marks[this.count * 4 + 1] = at - base;
          at += 1;
          state = BEFORE_VALUE;
          break;
        }
        case BEFORE_VALUE:
          if (octet === SP || octet === HTAB) {
            at += 1;
            break;
          }
          marks[this.count * 4 + 2] = at - base;
          state = VALUE;
          break;
        case VALUE: {
          while (at < to && valueOctets[bytes[at] as number] === 1) at += 1;
          if (at === to) break;
          const end = bytes[at] as number;
          if (end !== CR)
            return this.#fail(at, "bad_header", `the octet ${showOctet(end)} in a field value`);
          marks[this.count * 4 + 3] = this.#trimmed(bytes, base, at);
          at += 1;
          state = VALUE_LF;
          break;
        }
        case VALUE_LF:
          if (octet !== LF) return this.#fail(at, "bad_header", "a CR without LF in a field value");
          this.count += 1;
          at += 1;
          state = START;
          break;
        default:
          if (octet !== LF) return this.#fail(at, "bad_header", "a CR without LF between fields");
          this.at = at + 1;
          return at + 1;
      }
    }
    this.#state = state;
    this.at = at;
    return MORE;
  }

  /** The value without the white space after it, as an offset from `base`. Its start is already behind the white space before it. */
  #trimmed(bytes: Uint8Array, base: number, to: number): number {
    const from = base + (this.marks[this.count * 4 + 2] as number);
    let end = to;
    while (end > from && (bytes[end - 1] === SP || bytes[end - 1] === HTAB)) end -= 1;
    return end - base;
  }

  #failName(at: number, octet: number): number {
    if (octet === SP || octet === HTAB)
      return this.#fail(at, "bad_header", "white space between a field name and its colon");
    if (octet === CR || octet === LF)
      return this.#fail(at, "bad_header", "a line of the head without a colon");
    if (octet === UNDERSCORE) return this.#fail(at, "bad_header", "an underscore in a field name");
    return this.#fail(at, "bad_header", `the octet ${showOctet(octet)} in a field name`);
  }

  #fail(at: number, code: WireErrorCode, detail: string): number {
    this.at = at;
    this.code = code;
    this.detail = detail;
    return FAILED;
  }
}
