/** The character classes of RFC 9110 and RFC 9112 as tables of 256: one load a byte, no RegExp. */
function table(...classes: readonly (readonly [kind: number, octets: string])[]): Uint8Array {
  const kinds = new Uint8Array(256);
  for (const [kind, octets] of classes)
    for (let at = 0; at < octets.length; at += 1) kinds[octets.charCodeAt(at)] = kind;
  return kinds;
}

function range(first: number, last: number): string {
  return String.fromCharCode(
    ...Array.from({ length: last - first + 1 }, (_, step) => first + step),
  );
}

const alphanumeric = `${range(0x30, 0x39)}${range(0x41, 0x5a)}${range(0x61, 0x7a)}`;

/** `tchar` (RFC 9110, section 5.6.2). */
export const tokenOctets = table([1, `${alphanumeric}!#$%&'*+-.^_\`|~`]);

/** A field name: `tchar`, where the underscore is 2: CGI and WSGI read `A_B` and `A-B` as one name. */
export const nameOctets = table([1, `${alphanumeric}!#$%&'*+-.^\`|~`], [2, "_"]);

/** `field-vchar`, SP and HTAB (RFC 9110, section 5.5). Octets from 0x80 are opaque and kept. */
export const valueOctets = table([1, `\t${range(0x20, 0x7e)}${range(0x80, 0xff)}`]);

/**
 * A request target: 1 is `pchar`, `/` or `?` (RFC 3986); 2 is what RFC 3986 forbids but browsers and `fetch` send in a query as it
 * is, and what an IPv6 authority needs. Where a 2 stands is judged once the whole target is known.
 */
export const targetOctets = table([1, `${alphanumeric}-._~%!$&'()*+,;=:@/?`], [2, "[]{}|^`\\"]);

/** `reg-name` without percent and sub-delims: what a name in DNS or a register can be. */
export const hostNameOctets = table([1, `${alphanumeric}-._~`]);

/** Hex digits, as value + 1; 0 is anything else. */
export const hexValues = table(
  ...Array.from({ length: 16 }, (_, value) => {
    const digit = value.toString(16);
    return [value + 1, digit + digit.toUpperCase()] as const;
  }),
);

/** `qdtext` without the backslash (RFC 9110, section 5.6.4). */
export const quotedOctets = table([
  1,
  `\t ${range(0x21, 0x21)}${range(0x23, 0x5b)}${range(0x5d, 0x7e)}${range(0x80, 0xff)}`,
]);

export const CR = 0x0d;
export const LF = 0x0a;
export const SP = 0x20;
export const HTAB = 0x09;
export const COLON = 0x3a;
export const UNDERSCORE = 0x5f;

/** An octet for a log line: printable ones as they are, the rest as `0x0a`. */
export function showOctet(octet: number | undefined): string {
  if (octet === undefined) return "the end";
  return octet > 0x20 && octet < 0x7f
    ? `"${String.fromCharCode(octet)}"`
    : `0x${octet.toString(16).padStart(2, "0")}`;
}

/** Octets as text, one unit each, so that nothing is lost and offsets stay what they were. */
export function latin1(bytes: Buffer, from: number, to: number): string {
  // Half the cost of toString("latin1", …), which looks its encoding up by name on every call. Absent from the type declarations.
  return (bytes as Buffer & { latin1Slice(from: number, to: number): string }).latin1Slice(
    from,
    to,
  );
}
