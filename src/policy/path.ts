export type CanonicalPath = {
  /** What rules are matched on and what is forwarded. Begins with `/`. */
  readonly path: string;
  /** As it came, with its `?`; empty when there was none. `path + query` is the target to forward. */
  readonly query: string;
};

/** Longest request target, in characters (all are ASCII). */
export const targetCharsMax = 8192;

/**
 * The one spelling of a request target in origin-form (`/a/b?x=1`; RFC 9112 section 3.2.1). Fails closed: `undefined` for anything
 * that two parsers could read differently. `canonicalPath(p).path` is its own canonical path.
 *
 * - Only characters of RFC 3986's `pchar` and `/`; well-formed escapes. Escaped unreserved characters are decoded, other
 *   escapes are put in upper case (RFC 3986 section 6.2.2).
 * - `//` is merged, then dot segments are removed, also `%2e`; one `..` above the root refuses. A trailing slash is kept.
 * - Refused: escaped slash, backslash and control characters; parameters on a dot segment (`..;`, which Tomcat takes for `..`);
 *   overlong UTF-8; escapes of escapes that a second decoding would turn into a dot, slash or backslash (`%252e`).
 * - `accept.encodedSlash` lets `%2F` stay as it is, except where its other reading would make a dot segment.
 * - The query may hold any visible ASCII but `#`, and is not touched.
 *
 * Cost: one pass over the characters and no new path string when nothing has to change (about 1 ns a character).
 */
export function canonicalPath(
  target: string,
  accept: { readonly encodedSlash: boolean },
): CanonicalPath | undefined {
  const length = target.length;
  if (length > targetCharsMax || target.charCodeAt(0) !== slash) return undefined;
  let end = length;
  let isCanonical = true;
  for (let i = 0; i < length; i++) {
    const kind = kindOf[target.charCodeAt(i)];
    if (kind === plain) continue;
    if (kind === separator) {
      const next = target.charCodeAt(i + 1);
      // A name that merely begins with a dot takes the long way too, and comes back unchanged.
      if (next === slash || next === dot) isCanonical = false;
    } else if (kind === escaped) {
      isCanonical = false;
    } else if (kind === question) {
      end = i;
      break;
    } else return undefined;
  }
  for (let i = end; i < length; i++) {
    const code = target.charCodeAt(i);
    if (code < 0x21 || code > 0x7e || code === hash) return undefined;
  }
  const path = end === length ? target : target.slice(0, end);
  if (isCanonical) return { path, query: end === length ? "" : target.slice(end) };
  const rewritten = rewrite(path, accept.encodedSlash);
  return rewritten === undefined
    ? undefined
    : { path: rewritten, query: end === length ? "" : target.slice(end) };
}

/**
 * Splits a target in absolute-form (`http://orders/x`; RFC 9112 section 3.2.2) into the host as written, for `parseHost`, and the
 * target in origin-form. `undefined`: not absolute-form of http or https.
 */
export function absoluteForm(target: string): { host: string; target: string } | undefined {
  const scheme = /^https?:\/\//i.exec(target.slice(0, 8))?.[0];
  if (scheme === undefined) return undefined;
  let end = scheme.length;
  while (end < target.length && target[end] !== "/" && target[end] !== "?" && target[end] !== "#")
    end++;
  const rest = target.slice(end);
  return {
    host: target.slice(scheme.length, end),
    target: rest.startsWith("/") ? rest : `/${rest}`,
  };
}

/**
 * How lenient servers could read a canonical path: parameters of segments dropped (`/debug;x` is `/debug` to servlet containers),
 * escaped slashes decoded, in either order. Empty when there is nothing of the kind. Denials are asked about these readings too.
 */
export function lenientReadings(path: string): readonly string[] {
  const hasSlash = path.includes("%2F");
  if (!hasSlash && !path.includes(";") && !path.includes("%3B")) return none;
  const stripped = path.replaceAll(parameters, "").replaceAll("%2F", "/");
  const decoded = path.replaceAll("%2F", "/").replaceAll(parameters, "");
  const readings = stripped === decoded ? [stripped] : [stripped, decoded];
  return readings.map((reading) => reading.replaceAll(/\/{2,}/g, "/") || "/");
}

const none: readonly string[] = [];
const parameters = /(?:;|%3B)[^/]*/g;

const slash = 0x2f;
const dot = 0x2e;
const hash = 0x23;
const percent = 0x25;

const plain = 1;
const separator = 2;
const escaped = 3;
const question = 4;

/** What each byte is in a path; 0 is not allowed there. RFC 3986 section 3.3. */
const kindOf = new Uint8Array(256);
const unreserved = new Uint8Array(256);
for (const char of "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~") {
  kindOf[char.charCodeAt(0)] = plain;
  unreserved[char.charCodeAt(0)] = 1;
}
for (const char of "!$&'()*+,;=:@") kindOf[char.charCodeAt(0)] = plain;
kindOf[slash] = separator;
kindOf[percent] = escaped;
kindOf[0x3f] = question;

/** The long way, for paths with an escape, `//` or a segment that begins with a dot. */
function rewrite(path: string, encodedSlash: boolean): string | undefined {
  const decoded = decode(path, encodedSlash);
  if (decoded === undefined) return undefined;
  const kept: string[] = [];
  const segments = decoded.split("/");
  for (let i = 1; i < segments.length; i++) {
    const segment = segments[i] ?? "";
    if (segment === "" || segment === ".") continue;
    if (segment === "..") {
      if (kept.pop() === undefined) return undefined;
    } else if (disguisedDots.test(segment)) return undefined;
    else kept.push(segment);
  }
  const last = segments.at(-1);
  const isFolder = kept.length > 0 && (last === "" || last === "." || last === "..");
  return `/${kept.join("/")}${isFolder ? "/" : ""}`;
}

// Dots that only this reading does not take for a dot segment: `..;x`, `..%3Bx`, and beside an escaped slash `..%2Fx`.
const disguisedDots = /(?:^|%2F)\.{1,2}(?:;|%3B|%2F|$)/;
// What another decoding would make of an escaped percent sign.
const escapedTwice = /%25(?:25)*(?:2e|2f|5c)/i;
// Spellings of ASCII and other short characters in too many bytes; RFC 3629 section 3 forbids them.
const overlong = /%C[01]|%E0%[89]|%F0%8/;

/** Decodes escaped unreserved characters and puts the other escapes in upper case. */
function decode(path: string, encodedSlash: boolean): string | undefined {
  let decoded = "";
  let from = 0;
  for (let i = path.indexOf("%"); i !== -1; i = path.indexOf("%", from)) {
    const byte = hexValue(path.charCodeAt(i + 1)) * 16 + hexValue(path.charCodeAt(i + 2));
    if (Number.isNaN(byte) || byte < 0x20 || byte === 0x7f || byte === 0x5c) return undefined;
    if (byte === slash && !encodedSlash) return undefined;
    decoded += path.slice(from, i);
    decoded +=
      unreserved[byte] === 1 ? String.fromCharCode(byte) : path.slice(i, i + 3).toUpperCase();
    from = i + 3;
  }
  decoded += path.slice(from);
  return escapedTwice.test(decoded) || overlong.test(decoded) ? undefined : decoded;
}

/** `NaN` for what is no hexadecimal digit, the end of the text included. */
function hexValue(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  const lower = code | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : Number.NaN;
}
