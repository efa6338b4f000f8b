export type Host = {
  /** Lower case, without the root's trailing dot; IPv6 keeps its brackets. */
  readonly host: string;
  /** As asked for; routing ignores it. */
  readonly port: number | undefined;
};

/** Longest `Host` that is looked at, in characters; RFC 1035 section 2.3.4. */
export const hostCharsMax = 255;

/**
 * Reads a `Host` or `:authority` value (RFC 9110 section 7.2) or an SNI name. Fails closed: `undefined` for user information, spaces,
 * commas, escapes, anything beyond ASCII, empty labels, labels over 63 characters and ports over 65535.
 */
export function parseHost(text: string): Host | undefined {
  const length = text.length;
  if (length === 0 || length > hostCharsMax) return undefined;
  if (text.charCodeAt(0) === openBracket) return parseLiteral(text);
  let end = 0;
  let isLower = true;
  let labelStart = 0;
  for (; end < length; end++) {
    const code = text.charCodeAt(end);
    const kind = kindOf[code];
    if (kind === lower) continue;
    if (kind === upper) isLower = false;
    else if (code === dot) {
      if (end === labelStart || end - labelStart > 63) return undefined;
      labelStart = end + 1;
    } else if (code === colon) break;
    else return undefined;
  }
  if (end - labelStart > 63) return undefined;
  // The last label is empty only behind the one dot that stands for the root.
  const nameEnd = end === labelStart ? end - 1 : end;
  if (nameEnd <= 0) return undefined;
  const port = parsePort(text, end);
  if (port === null) return undefined;
  const name = nameEnd === length ? text : text.slice(0, nameEnd);
  return { host: isLower ? name : name.toLowerCase(), port };
}

const dot = 0x2e;
const colon = 0x3a;
const openBracket = 0x5b;

const lower = 1;
const upper = 2;
const kindOf = new Uint8Array(256);
for (const char of "abcdefghijklmnopqrstuvwxyz0123456789-_") kindOf[char.charCodeAt(0)] = lower;
for (const char of "ABCDEFGHIJKLMNOPQRSTUVWXYZ") kindOf[char.charCodeAt(0)] = upper;

/** `:` and up to five digits from `at` on; `undefined` where there is nothing or the colon alone, `null` when malformed. */
function parsePort(text: string, at: number): number | undefined | null {
  if (text.length <= at + 1) return undefined;
  if (text.length > at + 6) return null;
  let port = 0;
  for (let i = at + 1; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 0x30;
    if (!(digit >= 0 && digit <= 9)) return null;
    port = port * 10 + digit;
  }
  return port <= 65_535 ? port : null;
}

/** `[::1]` and `[::1]:7443`. No service is called so, but the refusal should be that of an unknown service. */
function parseLiteral(text: string): Host | undefined {
  const end = text.indexOf("]") + 1;
  const literal = text.slice(0, end);
  if (!/^\[[0-9A-Fa-f:.]{2,45}\]$/.test(literal) || !URL.canParse(`http://${literal}/`))
    return undefined;
  if (end < text.length && text.charCodeAt(end) !== colon) return undefined;
  const port = parsePort(text, end);
  return port === null ? undefined : { host: literal.toLowerCase(), port };
}
