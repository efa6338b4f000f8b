/** What the first bytes of a connection are. Lists hold what the client offers, in its order, GREASE left out. */
export type ClientHello =
  | {
      readonly kind: "hello";
      /** The server name, lower case, when there is one. */
      readonly sni?: string;
      readonly alpn: string[];
      /** `TLSv1.3`, `TLSv1.2` …; others as `0x7f1c`. */
      readonly versions: string[];
      /** `X25519MLKEM768`, `X25519`, `P-256` …; others as `0x001a`. */
      readonly groups: string[];
    }
  /** Not all of it is here. */
  | { readonly kind: "partial" }
  /** `first`: up to 64 bytes, printable ones as they are, the rest as `\x0a`. */
  | { readonly kind: "not-tls"; readonly first: string }
  | { readonly kind: "malformed"; readonly why: string };

const bytesMax = 16_384;
const recordHandshake = 22;
const recordBytesMax = 16_384;
/** One is usual, two or three where a hello is large. */
const recordsMax = 64;
const handshakeClientHello = 1;
const extensionServerName = 0;
const extensionGroups = 10;
const extensionAlpn = 16;
const extensionVersions = 43;

const versionNames: Readonly<Record<number, string>> = {
  768: "SSLv3",
  769: "TLSv1.0",
  770: "TLSv1.1",
  771: "TLSv1.2",
  772: "TLSv1.3",
};

const groupNames: Readonly<Record<number, string>> = {
  23: "P-256",
  24: "P-384",
  25: "P-521",
  29: "X25519",
  30: "X448",
  256: "ffdhe2048",
  257: "ffdhe3072",
  258: "ffdhe4096",
  259: "ffdhe6144",
  260: "ffdhe8192",
  4587: "SecP256r1MLKEM768",
  4588: "X25519MLKEM768",
  4589: "SecP384r1MLKEM1024",
};

/**
 * Reads a TLS ClientHello (RFC 8446, section 4.1.2) from the first bytes of a connection, of which there may be too few: call again
 * with more. Only looks: what it says is for the record, and whether the handshake is good is for TLS itself. Reads at most 16 KiB;
 * the message may be spread over several records.
 */
export function readClientHello(bytes: Buffer): ClientHello {
  const first = bytes[0];
  if (first === undefined) return { kind: "partial" };
  if (first !== recordHandshake || (bytes[1] ?? 3) !== 3) return notTls(bytes);
  try {
    const message = joinRecords(bytes);
    if (message === undefined)
      return bytes.length >= bytesMax
        ? { kind: "malformed", why: `a hello over ${bytesMax} bytes` }
        : { kind: "partial" };
    return readMessage(message);
  } catch (cause) {
    if (cause instanceof Malformed) return { kind: "malformed", why: cause.message };
    throw cause;
  }
}

class Malformed extends Error {}

function notTls(bytes: Buffer): ClientHello {
  let first = "";
  for (const octet of bytes.subarray(0, 64))
    first +=
      octet >= 0x20 && octet < 0x7f && octet !== 0x5c
        ? String.fromCharCode(octet)
        : `\\x${octet.toString(16).padStart(2, "0")}`;
  return { kind: "not-tls", first };
}

/**
 * The handshake message without its own header, taken out of its records; undefined while some of it is missing. Joined once and in few
 * pieces: a stranger who sends a record for each byte would otherwise have everything copied again for every record.
 */
function joinRecords(bytes: Buffer): Buffer | undefined {
  const parts: Buffer[] = [];
  let held = 0;
  let needed: number | undefined;
  let at = 0;
  while (at < bytes.length) {
    if (bytes[at] !== recordHandshake) throw new Malformed("another record inside the hello");
    if ((bytes[at + 1] ?? 3) !== 3) throw new Malformed("a record of an unknown version");
    if (at + 5 > bytes.length) return undefined;
    const length = bytes.readUInt16BE(at + 3);
    if (length === 0) throw new Malformed("an empty record");
    if (length > recordBytesMax) throw new Malformed("a record over 16384 bytes");
    if (parts.length === recordsMax)
      throw new Malformed(`a hello in more than ${recordsMax} records`);
    const part = bytes.subarray(at + 5, at + 5 + length);
    parts.push(part);
    held += part.length;
    at += 5 + length;
    needed ??= neededBytes(parts, held);
    if (needed !== undefined && held >= needed) return Buffer.concat(parts).subarray(4, needed);
  }
  return undefined;
}

/** Length of the message with its header, once the header is here. */
function neededBytes(parts: readonly Buffer[], held: number): number | undefined {
  const head = parts[0] as Buffer;
  if (head.length > 0 && head[0] !== handshakeClientHello)
    throw new Malformed("a handshake that does not start with a hello");
  if (held < 4) return undefined;
  const length = Buffer.concat(parts).readUIntBE(1, 3);
  if (length > bytesMax) throw new Malformed(`a hello over ${bytesMax} bytes`);
  return 4 + length;
}

function readMessage(message: Buffer): ClientHello {
  const hello = new Bytes(message);
  const legacyVersion = hello.number(2);
  hello.take(32);
  hello.vector(1);
  if (hello.vector(2).left < 2) throw new Malformed("no cipher suites");
  if (hello.vector(1).left < 1) throw new Malformed("no compression methods");
  const found: Found = { sni: undefined, alpn: [], versions: [], groups: [] };
  if (hello.left > 0) {
    const extensions = hello.vector(2);
    const seen = new Set<number>();
    while (extensions.left > 0) {
      const type = extensions.number(2);
      const content = extensions.vector(2);
      if (seen.has(type)) throw new Malformed("an extension twice");
      seen.add(type);
      readExtension(type, content, found);
    }
  }
  if (hello.left > 0) throw new Malformed("bytes behind the extensions");
  if (found.versions.length === 0) found.versions.push(named(legacyVersion, versionNames));
  const { sni, alpn, versions, groups } = found;
  return { kind: "hello", ...(sni !== undefined && { sni }), alpn, versions, groups };
}

type Found = { sni: string | undefined; alpn: string[]; versions: string[]; groups: string[] };

function readExtension(type: number, content: Bytes, found: Found): void {
  switch (type) {
    case extensionServerName:
      found.sni = readServerName(content);
      break;
    case extensionAlpn: {
      const list = content.vector(2);
      while (list.left > 0) {
        const protocol = list.vector(1).rest();
        if (protocol.length === 2 && isGrease(protocol.readUInt16BE(0))) continue;
        found.alpn.push(printable(protocol, "protocol"));
      }
      break;
    }
    case extensionVersions:
      found.versions = readNumbers(content.vector(1), versionNames);
      break;
    case extensionGroups:
      found.groups = readNumbers(content.vector(2), groupNames);
      break;
    default:
      return;
  }
  if (content.left > 0) throw new Malformed("bytes behind the content of an extension");
}

/** RFC 6066, section 3: a list, of which only one host name is ever used. */
function readServerName(content: Bytes): string {
  const list = content.vector(2);
  const type = list.number(1);
  const name = printable(list.vector(2).rest(), "server name");
  if (type !== 0 || list.left > 0) throw new Malformed("a server name that is not one host name");
  return name.toLowerCase();
}

function readNumbers(list: Bytes, names: Readonly<Record<number, string>>): string[] {
  const texts: string[] = [];
  while (list.left > 0) {
    const number = list.number(2);
    if (!isGrease(number)) texts.push(named(number, names));
  }
  return texts;
}

/** Values that clients put in only to keep servers tolerant (RFC 8701). */
function isGrease(number: number): boolean {
  return (number & 0x0f0f) === 0x0a0a && number >> 8 === (number & 0xff);
}

function named(number: number, names: Readonly<Record<number, string>>): string {
  return names[number] ?? `0x${number.toString(16).padStart(4, "0")}`;
}

/** The record shows these to people: nothing but visible ASCII gets there. */
function printable(bytes: Buffer, what: string): string {
  const text = bytes.toString("latin1");
  if (text === "") throw new Malformed(`an empty ${what}`);
  for (let at = 0; at < text.length; at += 1) {
    const unit = text.charCodeAt(at);
    if (unit <= 0x20 || unit >= 0x7f) throw new Malformed(`a ${what} that is not visible ASCII`);
  }
  return text;
}

/** Reads on and on; throws `Malformed` where the bytes end too early. */
class Bytes {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  take(length: number): Buffer {
    if (length > this.left) throw new Malformed("a length beyond the end");
    const taken = this.#bytes.subarray(this.#at, this.#at + length);
    this.#at += length;
    return taken;
  }

  rest(): Buffer {
    return this.take(this.left);
  }

  number(width: 1 | 2): number {
    return this.take(width).readUIntBE(0, width);
  }

  /** What a length of `width` bytes announces. */
  vector(width: 1 | 2): Bytes {
    return new Bytes(this.take(this.number(width)));
  }
}
