import { BlockList, isIP } from "node:net";

/** An IP address by its meaning. An IPv4-mapped one (`::ffff:10.0.0.1`) is the IPv4 address that it carries. */
export type Address = {
  readonly family: 4 | 6;
  /** 4 or 16 bytes, network order. */
  readonly bytes: Uint8Array;
  /** The one canonical spelling: RFC 5952 for IPv6, without brackets, with `%zone` where there is one. */
  readonly text: string;
  /** Interface of a scoped IPv6 address. */
  readonly zone?: string;
};

/** A range of addresses: all of one family that share the first `prefix` bits. */
export type Cidr = {
  readonly family: 4 | 6;
  readonly bytes: Uint8Array;
  readonly prefix: number;
};

/**
 * What an address is for, by the IANA special-purpose registries (RFC 6890 and what they list since).
 * `metadata`: where clouds hand out credentials. `shared`: 100.64/10, RFC 6598. `reserved`: everything that nobody should
 * be found at, including text that is no address and tunnel addresses around an IPv4 address that is not public.
 */
export type AddressClass =
  | "loopback"
  | "private"
  | "shared"
  | "link-local"
  | "metadata"
  | "public"
  | "wildcard"
  | "multicast"
  | "reserved";

/**
 * Fails closed: only the spellings that every resolver reads the same way. `0127.1`, `010.0.0.1`, `0x7f.1`, `127.1`,
 * blanks, brackets and prefixes are `undefined`.
 */
export function parseAddress(text: string): Address | undefined {
  const family = isIP(text);
  if (family === 0) return undefined;
  if (family === 4) return address4(bytesOf4(text));
  const percent = text.indexOf("%");
  const zone = percent < 0 ? undefined : text.slice(percent + 1);
  if (zone !== undefined && !/^[\w.-]{1,32}$/.test(zone)) return undefined;
  const bytes = bytesOf6(percent < 0 ? text : text.slice(0, percent));
  if (isMapped(bytes)) return zone === undefined ? address4(bytes.slice(12)) : undefined;
  const canonical = format6(bytes);
  if (zone === undefined) return { family: 6, bytes, text: canonical };
  return { family: 6, bytes, text: `${canonical}%${zone}`, zone };
}

/**
 * What a listener on, or a connection to, this text would mean. Fails closed: spellings that some resolver reads as
 * "every address" (`""`, `*`, `0`, `0x0.0`, `[::]`) are `wildcard`, all other text that is no address is `reserved`.
 * The answer for an address around another (NAT64, 6to4, Teredo, IPv4-compatible) is never `loopback`, `private` or
 * `shared`: such a one is reached over somebody else's relay, whatever it carries.
 */
export function classifyAddress(ip: string): AddressClass {
  const address = parseAddress(ip);
  if (!address) return looksLikeWildcard(ip) ? "wildcard" : "reserved";
  return address.family === 4 ? classOf4(address.bytes) : classOf6(address.bytes);
}

/**
 * `10.0.0.0/8`, `fd00:20::/48`; a bare address is a range of one. Undefined when bits behind the prefix are set
 * (`suggestCidr` says what was probably meant), for zones and for any prefix that is not plain decimal.
 */
export function parseCidr(text: string): Cidr | undefined {
  const range = readCidr(text);
  if (!range) return undefined;
  return sameBits(range.bytes, masked(range.bytes, range.prefix), range.bytes.length * 8)
    ? range
    : undefined;
}

/** What somebody meant who wrote `10.20.3.4/16`: the range with the bits behind the prefix cleared, or `undefined`. */
export function suggestCidr(text: string): string | undefined {
  const range = readCidr(text);
  return range && formatCidr({ ...range, bytes: masked(range.bytes, range.prefix) });
}

/** Canonical text; the prefix is always written. */
export function formatCidr(cidr: Cidr): string {
  return `${cidr.family === 4 ? cidr.bytes.join(".") : format6(cidr.bytes)}/${cidr.prefix}`;
}

/** False for text that is no address. IPv4 and IPv6 never contain each other; a mapped address is IPv4. */
export function cidrContains(cidr: Cidr, ip: string): boolean {
  const address = parseAddress(ip);
  return address?.family === cidr.family && sameBits(cidr.bytes, address.bytes, cidr.prefix);
}

/** Whether every address of `inner` is in `outer`. */
export function cidrCovers(outer: Cidr, inner: Cidr): boolean {
  return (
    outer.family === inner.family &&
    outer.prefix <= inner.prefix &&
    sameBits(outer.bytes, inner.bytes, outer.prefix)
  );
}

/**
 * Whether a range may hold public addresses. Fails closed: true unless the whole range lies inside one that is known not
 * to be public.
 */
export function cidrMayBePublic(cidr: Cidr): boolean {
  return ![...classes4, ...classes6].some(([range, meaning]) => {
    const known = meaning === "public" ? undefined : parseCidr(range);
    return known !== undefined && cidrCovers(known, cidr);
  });
}

/**
 * One lookup over many ranges, compiled once. Fails closed: text that is no address is in none of them, and a text that is
 * no range throws a `TypeError` here and now, because leaving it out would change what the list means.
 */
export function compileCidrs(list: readonly string[]): (ip: string) => boolean {
  // Two lists, because one alone finds every IPv4 address inside ::/0.
  const ranges = { 4: new BlockList(), 6: new BlockList() };
  for (const text of list) {
    const cidr = parseCidr(text);
    if (!cidr) throw new TypeError(`not a range of addresses: ${JSON.stringify(text)}`);
    const first = cidr.family === 4 ? cidr.bytes.join(".") : format6(cidr.bytes);
    ranges[cidr.family].addSubnet(first, cidr.prefix, cidr.family === 4 ? "ipv4" : "ipv6");
  }
  return (ip) => {
    const address = parseAddress(ip);
    if (!address) return false;
    if (address.family === 4) return ranges[4].check(address.text, "ipv4");
    return ranges[6].check(address.zone ? format6(address.bytes) : address.text, "ipv6");
  };
}

/**
 * `host:port` or `[IPv6]:port`; the host comes back without brackets and is not judged further. Undefined without a host
 * (`:7443` is a wildcard in other programs), without a port, for a bare IPv6 address, and for a port that is not 0 to
 * 65535 in plain decimal.
 */
export function splitHostPort(text: string): { host: string; port: number } | undefined {
  const match = /^(?:\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|([^\s:[\]/@?#]+)):(0|[1-9]\d{0,4})$/.exec(
    text,
  );
  if (!match) return undefined;
  const [, bracketed, plain, digits] = match;
  if (bracketed !== undefined && isIP(bracketed) !== 6) return undefined;
  const port = Number(digits);
  return port <= 65_535 ? { host: bracketed ?? plain ?? "", port } : undefined;
}

/** `127.0.0.1:80`, `[::1]:80`. */
export function formatHostPort(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

function address4(bytes: Uint8Array): Address {
  return { family: 4, bytes, text: bytes.join(".") };
}

/** The text must have passed `isIP`. */
function bytesOf4(text: string): Uint8Array {
  return Uint8Array.from(text.split("."), Number);
}

/** The text must have passed `isIP`, without its zone. */
function bytesOf6(text: string): Uint8Array {
  const bytes = new Uint8Array(16);
  const [head = "", tail] = text.split("::");
  const front = piecesOf(head);
  const back = tail === undefined ? [] : piecesOf(tail);
  bytes.set(front, 0);
  bytes.set(back, 16 - back.length);
  return bytes;
}

function piecesOf(text: string): number[] {
  if (text === "") return [];
  return text.split(":").flatMap((piece) => {
    if (piece.includes(".")) return [...bytesOf4(piece)];
    const value = Number.parseInt(piece, 16);
    return [value >> 8, value & 255];
  });
}

/** RFC 5952: lower case, no leading zeros, the first longest run of at least two zero groups shortened. */
function format6(bytes: Uint8Array): string {
  const groups = Array.from({ length: 8 }, (_, i) => group(bytes, i));
  let start = -1;
  let length = 1;
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (end < 8 && groups[end] === 0) end++;
    if (end - i > length) [start, length] = [i, end - i];
    i = Math.max(i, end - 1);
  }
  const hex = groups.map((value) => value.toString(16));
  if (start < 0) return hex.join(":");
  return `${hex.slice(0, start).join(":")}::${hex.slice(start + length).join(":")}`;
}

function group(bytes: Uint8Array, index: number): number {
  return ((bytes[index * 2] ?? 0) << 8) | (bytes[index * 2 + 1] ?? 0);
}

function isMapped(bytes: Uint8Array): boolean {
  return within(bytes, "::ffff:0:0/96");
}

function looksLikeWildcard(text: string): boolean {
  const bare = text.trim().replace(/^\[(.*)\]$/, "$1");
  // inet_aton reads `0`, `0.0`, `0x0`, `00.0x0.0` as 0.0.0.0, and a listener on an empty host listens everywhere.
  if (/^(\*|0*(x0*)?(\.0*(x0*)?){0,3})$/i.test(bare)) return true;
  const address = parseAddress(bare.replace(/%.*$/, ""));
  return address?.bytes.every((byte) => byte === 0) ?? false;
}

function readCidr(text: string): Cidr | undefined {
  const match = /^([0-9A-Fa-f:.]+)(?:\/(0|[1-9]\d{0,2}))?$/.exec(text);
  const [, host = "", digits] = match ?? [];
  const family = isIP(host);
  if (family === 0) return undefined;
  const bytes = family === 4 ? bytesOf4(host) : bytesOf6(host);
  const prefix = digits === undefined ? bytes.length * 8 : Number(digits);
  if (prefix > bytes.length * 8) return undefined;
  if (family === 4) return { family: 4, bytes, prefix };
  if (!isMapped(bytes)) return { family: 6, bytes, prefix };
  // A range around all mapped addresses would mean IPv4 to one reader and IPv6 to another.
  return prefix < 96 ? undefined : { family: 4, bytes: bytes.slice(12), prefix: prefix - 96 };
}

function masked(bytes: Uint8Array, prefix: number): Uint8Array {
  return bytes.map((byte, i) => {
    const kept = Math.min(8, Math.max(0, prefix - i * 8));
    return byte & (0xff << (8 - kept)) & 0xff;
  });
}

function sameBits(a: Uint8Array, b: Uint8Array, bits: number): boolean {
  const whole = bits >> 3;
  for (let i = 0; i < whole; i++) if (a[i] !== b[i]) return false;
  const rest = bits & 7;
  return rest === 0 || ((a[whole] ?? 0) ^ (b[whole] ?? 0)) >> (8 - rest) === 0;
}

/** Raw bits, no mapping: for the tables below, whose ranges are known to be sound. */
function within(bytes: Uint8Array, range: string): boolean {
  let known = knownRanges.get(range);
  if (!known) {
    const [host = "", digits = ""] = range.split("/");
    known = {
      bytes: host.includes(":") ? bytesOf6(host) : bytesOf4(host),
      prefix: Number(digits),
    };
    knownRanges.set(range, known);
  }
  return known.bytes.length === bytes.length && sameBits(known.bytes, bytes, known.prefix);
}

const knownRanges = new Map<string, { readonly bytes: Uint8Array; readonly prefix: number }>();

/** First match wins; what no row names is public. */
const classes4: readonly (readonly [range: string, meaning: AddressClass])[] = [
  ["0.0.0.0/32", "wildcard"],
  ["0.0.0.0/8", "reserved"], // "this network", RFC 791
  ["127.0.0.0/8", "loopback"],
  ["169.254.169.254/32", "metadata"], // most clouds
  ["169.254.169.253/32", "metadata"], // the resolver beside it
  ["169.254.170.2/32", "metadata"], // container credentials
  ["169.254.170.23/32", "metadata"], // pod credentials
  ["100.100.100.200/32", "metadata"],
  ["168.63.129.16/32", "metadata"], // a public address that is the host agent of every machine of one cloud
  ["192.0.0.192/32", "metadata"],
  ["169.254.0.0/16", "link-local"], // RFC 3927
  ["10.0.0.0/8", "private"], // RFC 1918
  ["172.16.0.0/12", "private"],
  ["192.168.0.0/16", "private"],
  ["100.64.0.0/10", "shared"], // RFC 6598
  ["192.0.0.0/24", "reserved"], // RFC 6890
  ["192.0.2.0/24", "reserved"], // documentation, RFC 5737
  ["198.51.100.0/24", "reserved"],
  ["203.0.113.0/24", "reserved"],
  ["192.88.99.0/24", "reserved"], // 6to4 relays, RFC 7526
  ["198.18.0.0/15", "reserved"], // benchmarks, RFC 2544
  ["224.0.0.0/4", "multicast"],
  ["240.0.0.0/4", "reserved"], // and the broadcast address
];

/** First match wins; what no row names is reserved: only 2000::/3 was ever handed out for unicast. */
const classes6: readonly (readonly [range: string, meaning: AddressClass])[] = [
  ["::/128", "wildcard"],
  ["::1/128", "loopback"],
  ["fd00:ec2::254/128", "metadata"],
  ["fd00:ec2::253/128", "metadata"],
  ["fd00:ec2::23/128", "metadata"],
  ["fd20:ce::254/128", "metadata"],
  ["fc00::/7", "private"], // RFC 4193
  ["fe80::/10", "link-local"],
  ["ff00::/8", "multicast"],
  ["2001::/23", "reserved"], // protocol assignments, RFC 2928: ORCHID, benchmarks
  ["2001:db8::/32", "reserved"], // documentation, RFC 3849
  ["3fff::/20", "reserved"], // documentation, RFC 9637
  ["2000::/3", "public"],
];

/** IPv6 addresses around an IPv4 address: where in the 16 bytes it lies, and what it is combined with. */
const carriers: readonly (readonly [range: string, offset: number, mask: number])[] = [
  ["64:ff9b::/96", 12, 0], // NAT64, RFC 6052
  ["64:ff9b:1::/48", 12, 0], // NAT64 of one's own, RFC 8215
  ["2002::/16", 2, 0], // 6to4, RFC 3056
  ["2001::/32", 12, 0xff], // Teredo, RFC 4380: the client's address is inverted
  ["::/96", 12, 0], // IPv4-compatible, RFC 4291 section 2.5.5.1
  ["::ffff:0:0:0/96", 12, 0], // IPv4-translated, RFC 2765
];

function classOf4(bytes: Uint8Array): AddressClass {
  return classes4.find(([range]) => within(bytes, range))?.[1] ?? "public";
}

function classOf6(bytes: Uint8Array): AddressClass {
  const own = classes6.find(([range]) => within(bytes, range))?.[1];
  if (own === "wildcard" || own === "loopback") return own;
  const carrier = carriers.find(([range]) => within(bytes, range));
  if (!carrier) return own ?? "reserved";
  const [, offset, mask] = carrier;
  const carried = classOf4(bytes.slice(offset, offset + 4).map((byte) => byte ^ mask));
  return carried === "public" || carried === "metadata" || carried === "link-local"
    ? carried
    : "reserved";
}
