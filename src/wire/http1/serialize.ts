import { isToken } from "./field-values.ts";
import { targetOctets, tokenOctets, valueOctets } from "./octets.ts";

/** What ends a chunked body without trailers. */
export const lastChunk = "0\r\n\r\n";

/**
 * A request head with its empty line, to be written as latin1. `headers` is flat: name, value, name, value. Throws RangeError when a
 * part could end its line or change its meaning: method, target, names and values are all checked.
 */
export function serializeRequestHead(
  method: string,
  target: string,
  headers: readonly string[],
): string {
  if (!isToken(method)) throw new RangeError("a method that is not a token");
  if (!holdsOnly(target, targetOctets)) throw new RangeError("a target with an illegal octet");
  return `${method} ${target} HTTP/1.1\r\n${serializeFields(headers)}\r\n`;
}

/** A response head with its empty line, to be written as latin1. Throws RangeError like `serializeRequestHead`. */
export function serializeResponseHead(
  status: number,
  reason: string,
  headers: readonly string[],
): string {
  if (!Number.isInteger(status) || status < 100 || status > 999)
    throw new RangeError("a status that is not three digits");
  if (reason !== "" && !holdsOnly(reason, valueOctets))
    throw new RangeError("a reason with an illegal octet");
  return `HTTP/1.1 ${status} ${reason}\r\n${serializeFields(headers)}\r\n`;
}

/** Field lines without the empty line. Throws RangeError for a name that is no token and for CR, LF, NUL and other controls in a value. */
export function serializeFields(headers: readonly string[]): string {
  if (headers.length % 2 !== 0) throw new RangeError("a field name without a value");
  let text = "";
  for (let at = 0; at < headers.length; at += 2)
    text += serializeField(headers[at] as string, headers[at + 1] as string);
  return text;
}

/** One field line. Throws RangeError like `serializeFields`. */
export function serializeField(name: string, value: string): string {
  if (!holdsOnly(name, tokenOctets)) throw new RangeError("a field name that is not a token");
  if (value !== "" && !isValue(value))
    throw new RangeError(`an illegal octet or outer white space in the value of ${name}`);
  return `${name}: ${value}\r\n`;
}

/** The line before a chunk of so many bytes; CRLF follows the chunk. Throws RangeError for 0, which would end the body. */
export function serializeChunkSize(bytes: number): string {
  if (!Number.isSafeInteger(bytes) || bytes < 1) throw new RangeError("a chunk of no size");
  return `${bytes.toString(16)}\r\n`;
}

/** What ends a chunked body. Throws RangeError like `serializeFields`. */
export function serializeLastChunk(trailers: readonly string[] | undefined): string {
  if (trailers === undefined || trailers.length === 0) return lastChunk;
  return `0\r\n${serializeFields(trailers)}\r\n`;
}

/** Outer white space would be lost on the way; whoever compares what was sent with what came would see two values. */
function isValue(value: string): boolean {
  if (!holdsOnly(value, valueOctets)) return false;
  const first = value.charCodeAt(0);
  const last = value.charCodeAt(value.length - 1);
  return first > 0x20 && last > 0x20;
}

/** Units over 255 fall outside every table: they would be cut to one octet, which could then be anything. */
function holdsOnly(text: string, octets: Uint8Array): boolean {
  for (let at = 0; at < text.length; at += 1) {
    const kind = octets[text.charCodeAt(at)];
    if (kind === undefined || kind === 0) return false;
  }
  return text.length > 0;
}
