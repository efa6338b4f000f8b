import { recognizeName, refusedInConnection } from "./fields.ts";
import { hostNameOctets, tokenOctets } from "./octets.ts";

const ZERO = 0x30;
const NINE = 0x39;

/** `Content-Length` as a number, or -1. Digits only, no sign, no list, no leading zero (a C reader may take it for octal), at most 2^53 - 1. */
export function parseLength(value: string): number {
  const { length } = value;
  if (length === 0 || length > 16) return -1;
  if (length > 1 && value.charCodeAt(0) === ZERO) return -1;
  let number = 0;
  for (let at = 0; at < length; at += 1) {
    const digit = value.charCodeAt(at);
    if (digit < ZERO || digit > NINE) return -1;
    // The brackets matter: next to 2^53 a sum that goes up and down again is rounded.
    number = number * 10 + (digit - ZERO);
  }
  return number <= Number.MAX_SAFE_INTEGER ? number : -1;
}

/** What `Connection` says (RFC 9110, section 7.6.1). */
export type ConnectionOptions = {
  close: boolean;
  keepAlive: boolean;
  /** The fields it names, lower case, each once; without `close` and `keep-alive`. */
  names: string[];
};

/** Adds one `Connection` value. Returns what is wrong with it, or undefined. Fails closed: it may not name a field that decides. */
export function readConnection(value: string, options: ConnectionOptions): string | undefined {
  // Nearly every value is one of these.
  if (value === "keep-alive") {
    options.keepAlive = true;
    return undefined;
  }
  if (value === "close") {
    options.close = true;
    return undefined;
  }
  for (const item of value.split(",")) {
    const name = trimBlanks(item).toLowerCase();
    if (name === "") continue;
    if (!isToken(name)) return "a Connection option is not a token";
    if (name === "close") options.close = true;
    else if (name === "keep-alive") options.keepAlive = true;
    else {
      if (refusedInConnection[recognizeName(name)] === 1) return `Connection names ${name}`;
      if (!options.names.includes(name)) options.names.push(name);
    }
  }
  return undefined;
}

/** Whether the connection is kept after this message (RFC 9112, section 9.3). */
export function staysOpen(connection: ConnectionOptions, minor: 0 | 1): boolean {
  return !connection.close && (minor === 1 || connection.keepAlive);
}

/** `Keep-Alive: timeout=N` in seconds, undefined when it is not said or not a number. Only a hint: it never refuses. */
export function readKeepAliveTimeout(value: string): number | undefined {
  for (const item of value.split(",")) {
    const parameter = trimBlanks(item).toLowerCase();
    if (!parameter.startsWith("timeout=")) continue;
    const seconds = parseLength(parameter.slice("timeout=".length));
    if (seconds >= 0) return seconds;
  }
  return undefined;
}

/** White space of HTTP only: `trim` would also take NBSP and friends, which are part of a value. */
export function trimBlanks(text: string): string {
  let from = 0;
  let to = text.length;
  while (from < to && isBlank(text.charCodeAt(from))) from += 1;
  while (to > from && isBlank(text.charCodeAt(to - 1))) to -= 1;
  return text.slice(from, to);
}

function isBlank(unit: number): boolean {
  return unit === 0x20 || unit === 0x09;
}

export function isToken(text: string): boolean {
  for (let at = 0; at < text.length; at += 1)
    if (tokenOctets[text.charCodeAt(at)] !== 1) return false;
  return text.length > 0;
}

/**
 * A host with an optional port, as in `Host`. Stricter than RFC 3986: a name has letters, digits, `-`, `.`, `_` and `~`; an address in
 * brackets has hex digits, `:` and `.`; a port has 1 to 5 digits and is at most 65535. So no user, no percent, no empty port.
 */
export function isHost(value: string): boolean {
  const { length } = value;
  let at = 0;
  if (value.charCodeAt(0) === 0x5b) {
    at = value.indexOf("]") + 1;
    if (at < 4 || !isAddress(value, 1, at - 1)) return false;
  } else {
    while (at < length && hostNameOctets[value.charCodeAt(at)] === 1) at += 1;
    if (at === 0) return false;
  }
  if (at === length) return true;
  if (value.charCodeAt(at) !== 0x3a) return false;
  const digits = length - at - 1;
  if (digits < 1 || digits > 5) return false;
  let port = 0;
  for (at += 1; at < length; at += 1) {
    const digit = value.charCodeAt(at);
    if (digit < ZERO || digit > NINE) return false;
    port = port * 10 + digit - ZERO;
  }
  return port <= 65_535;
}

function isAddress(value: string, from: number, to: number): boolean {
  let colons = 0;
  for (let at = from; at < to; at += 1) {
    const unit = value.charCodeAt(at);
    if (unit === 0x3a) colons += 1;
    else if (unit !== 0x2e && !isHexDigit(unit)) return false;
  }
  return colons >= 2;
}

function isHexDigit(unit: number): boolean {
  return (unit >= ZERO && unit <= NINE) || ((unit | 0x20) >= 0x61 && (unit | 0x20) <= 0x66);
}

/** Whether a value is the word `chunked` and nothing else: the only transfer coding spoken here. */
export function isChunked(value: string): boolean {
  return value === "chunked" || (value.length === 7 && value.toLowerCase() === "chunked");
}
