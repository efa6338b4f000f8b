/** One HTTP/1.1 message as it stood on the wire, taken apart by rules that share nothing with the product's parsers. */
export type Message = {
  /** Request line or status line. */
  readonly start: string;
  /** Name in lower case, value; in order. */
  readonly fields: readonly (readonly [name: string, value: string])[];
  readonly body: Buffer;
  readonly trailers: readonly (readonly [name: string, value: string])[];
  /** All of it, as it came. */
  readonly raw: Buffer;
};

/** What decides about a body that the message itself does not show. */
export type Reading = { readonly bodiless?: boolean; readonly untilClose?: boolean };

/** The first message in `bytes` and how long it is, or undefined while it is not whole. Throws on what it cannot understand. */
export function readMessage(
  bytes: Buffer,
  reading: Reading = {},
): { message: Message; length: number } | undefined {
  const headEnd = bytes.indexOf("\r\n\r\n");
  if (headEnd < 0) return undefined;
  const [start = "", ...lines] = bytes.toString("latin1", 0, headEnd).split("\r\n");
  const fields = lines.map(fieldOf);
  const from = headEnd + 4;
  const body = bodyAt(bytes, from, { start, fields, reading });
  if (body === undefined) return undefined;
  const raw = bytes.subarray(0, body.to);
  return {
    message: { start, fields, body: body.data, trailers: body.trailers, raw },
    length: body.to,
  };
}

/** Every value of a field, joined by `, `; undefined when it is not there. */
export function fieldValue(message: Message, name: string): string | undefined {
  const values = message.fields.filter(([one]) => one === name).map(([, value]) => value);
  return values.length === 0 ? undefined : values.join(", ");
}

/** Status of a response; NaN for a request. */
export function statusOf(message: Message): number {
  return Number(/^HTTP\/1\.[01] (\d{3})/.exec(message.start)?.[1]);
}

type Body = { data: Buffer; to: number; trailers: (readonly [string, string])[] };

function fieldOf(line: string): readonly [string, string] {
  const colon = line.indexOf(":");
  if (colon < 1) throw new Error(`not a field: ${line}`);
  return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
}

function bodyAt(
  bytes: Buffer,
  from: number,
  of: { start: string; fields: readonly (readonly [string, string])[]; reading: Reading },
): Body | undefined {
  const value = (name: string) => of.fields.find(([one]) => one === name)?.[1];
  const status = /^HTTP\/1\.[01] (\d{3})/.exec(of.start)?.[1];
  const none = { data: Buffer.alloc(0), to: from, trailers: [] };
  if (of.reading.bodiless || (status && (/^1|204|304/.test(status) || status === "304")))
    return none;
  if (value("transfer-encoding")?.toLowerCase() === "chunked") return chunksAt(bytes, from);
  const length = value("content-length");
  if (length !== undefined) {
    const to = from + Number(length);
    return bytes.length < to ? undefined : { ...none, data: bytes.subarray(from, to), to };
  }
  if (status === undefined) return none;
  return of.reading.untilClose
    ? { ...none, data: bytes.subarray(from), to: bytes.length }
    : undefined;
}

function chunksAt(bytes: Buffer, from: number): Body | undefined {
  const parts: Buffer[] = [];
  let at = from;
  for (;;) {
    const lineEnd = bytes.indexOf("\r\n", at);
    if (lineEnd < 0) return undefined;
    const size = Number.parseInt(bytes.toString("latin1", at, lineEnd), 16);
    if (!(size >= 0)) throw new Error(`not a chunk size: ${bytes.toString("latin1", at, lineEnd)}`);
    at = lineEnd + 2;
    if (size === 0) break;
    if (bytes.length < at + size + 2) return undefined;
    parts.push(bytes.subarray(at, at + size));
    at += size + 2;
  }
  const trailers: (readonly [string, string])[] = [];
  for (;;) {
    const lineEnd = bytes.indexOf("\r\n", at);
    if (lineEnd < 0) return undefined;
    const line = bytes.toString("latin1", at, lineEnd);
    at = lineEnd + 2;
    if (line === "") return { data: Buffer.concat(parts), to: at, trailers };
    trailers.push(fieldOf(line));
  }
}
