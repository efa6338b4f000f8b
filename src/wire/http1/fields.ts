/** The field names that mean something to a proxy, and some that are on every other message. 0 is every other name. */
export const field = {
  other: 0,
  host: 1,
  contentLength: 2,
  transferEncoding: 3,
  connection: 4,
  expect: 5,
  upgrade: 6,
  http2Settings: 7,
  keepAlive: 8,
  proxyConnection: 9,
  te: 10,
  trailer: 11,
  authorization: 12,
  proxyAuthorization: 13,
  proxyAuthenticate: 14,
  contentType: 15,
  contentRange: 16,
  contentEncoding: 17,
  date: 18,
  from: 19,
  ifModifiedSince: 20,
  ifRange: 21,
  ifUnmodifiedSince: 22,
  maxForwards: 23,
  range: 24,
  referer: 25,
  userAgent: 26,
  cookie: 27,
  setCookie: 28,
  via: 29,
  forwarded: 30,
  cacheControl: 31,
  location: 32,
  /** Any `X-Forwarded-…`. */
  xForwarded: 33,
  /** Any `Sallyport-…`: said by a gate, never by its callers. */
  sallyport: 34,
  // Known so that nobody has to look them up by their text: common, and nothing to us.
  accept: 35,
  acceptEncoding: 36,
  acceptLanguage: 37,
  server: 38,
  etag: 39,
  lastModified: 40,
  vary: 41,
  age: 42,
  origin: 43,
  xRequestId: 44,
  traceparent: 45,
  tracestate: 46,
  ifMatch: 47,
  ifNoneMatch: 48,
  contentLanguage: 49,
  expires: 50,
  acceptRanges: 51,
  xContentTypeOptions: 52,
} as const;

export type FieldId = (typeof field)[keyof typeof field];

const names: readonly (readonly [name: string, id: FieldId])[] = [
  ["host", field.host],
  ["content-length", field.contentLength],
  ["transfer-encoding", field.transferEncoding],
  ["connection", field.connection],
  ["expect", field.expect],
  ["upgrade", field.upgrade],
  ["http2-settings", field.http2Settings],
  ["keep-alive", field.keepAlive],
  ["proxy-connection", field.proxyConnection],
  ["te", field.te],
  ["trailer", field.trailer],
  ["authorization", field.authorization],
  ["proxy-authorization", field.proxyAuthorization],
  ["proxy-authenticate", field.proxyAuthenticate],
  ["content-type", field.contentType],
  ["content-range", field.contentRange],
  ["content-encoding", field.contentEncoding],
  ["date", field.date],
  ["from", field.from],
  ["if-modified-since", field.ifModifiedSince],
  ["if-range", field.ifRange],
  ["if-unmodified-since", field.ifUnmodifiedSince],
  ["max-forwards", field.maxForwards],
  ["range", field.range],
  ["referer", field.referer],
  ["user-agent", field.userAgent],
  ["cookie", field.cookie],
  ["set-cookie", field.setCookie],
  ["via", field.via],
  ["forwarded", field.forwarded],
  ["cache-control", field.cacheControl],
  ["location", field.location],
  ["accept", field.accept],
  ["accept-encoding", field.acceptEncoding],
  ["accept-language", field.acceptLanguage],
  ["server", field.server],
  ["etag", field.etag],
  ["last-modified", field.lastModified],
  ["vary", field.vary],
  ["age", field.age],
  ["origin", field.origin],
  ["x-request-id", field.xRequestId],
  ["traceparent", field.traceparent],
  ["tracestate", field.tracestate],
  ["if-match", field.ifMatch],
  ["if-none-match", field.ifNoneMatch],
  ["content-language", field.contentLanguage],
  ["expires", field.expires],
  ["accept-ranges", field.acceptRanges],
  ["x-content-type-options", field.xContentTypeOptions],
];

const prefixes: readonly (readonly [prefix: string, id: FieldId])[] = [
  ["x-forwarded-", field.xForwarded],
  ["sallyport-", field.sallyport],
];

type Candidate = { readonly octets: Uint8Array; readonly id: FieldId };

const byLength: (readonly Candidate[])[] = Array.from({ length: 32 }, (_, length) =>
  names
    .filter(([name]) => name.length === length)
    .map(([name, id]) => ({ octets: Buffer.from(name, "latin1"), id })),
);

const byPrefix: readonly Candidate[] = prefixes.map(([prefix, id]) => ({
  octets: Buffer.from(prefix, "latin1"),
  id,
}));

/** Which field a name is, case ignored. The octets must be a token: only there does `| 0x20` mean lower case. */
export function recognize(bytes: Uint8Array, from: number, to: number): FieldId {
  const candidates = byLength[to - from];
  if (candidates !== undefined)
    for (let which = 0; which < candidates.length; which += 1) {
      const candidate = candidates[which] as Candidate;
      if (startsWith(bytes, from, candidate.octets)) return candidate.id;
    }
  const first = (bytes[from] as number) | 0x20;
  if (first === 0x78 || first === 0x73)
    for (const { octets, id } of byPrefix)
      if (to - from >= octets.length && startsWith(bytes, from, octets)) return id;
  return field.other;
}

/** Which field a name given as text is: for names that did not come from a parser. */
export function recognizeName(name: string): FieldId {
  const octets = Buffer.from(name, "latin1");
  return recognize(octets, 0, octets.length);
}

/** The field that a name becomes for those who read `_` as `-`, `other` when it has no underscore or means nothing to a proxy. */
export function recognizeUnderscored(name: string): FieldId {
  if (!name.includes("_")) return field.other;
  const id = recognizeName(name.replaceAll("_", "-"));
  return id < field.accept ? id : field.other;
}

function startsWith(bytes: Uint8Array, from: number, lower: Uint8Array): boolean {
  for (let at = 0; at < lower.length; at += 1)
    if (((bytes[from + at] as number) | 0x20) !== lower[at]) return false;
  return true;
}

function setOf(...ids: readonly FieldId[]): Uint8Array {
  const set = new Uint8Array(64);
  for (const id of ids) set[id] = 1;
  return set;
}

/** Fields of a request that two readers understand differently when they come twice: one takes the first, one the last. */
export const singleInRequest: Uint8Array = setOf(
  field.host,
  field.contentLength,
  field.transferEncoding,
  field.expect,
  field.authorization,
  field.proxyAuthorization,
  field.contentType,
  field.contentRange,
  field.date,
  field.from,
  field.ifModifiedSince,
  field.ifRange,
  field.ifUnmodifiedSince,
  field.maxForwards,
  field.range,
  field.referer,
  field.userAgent,
  field.http2Settings,
);

/** Fields that may not come late (RFC 9110, section 6.5.1): framing, routing, credentials, controls and how to read the content. */
export const refusedInTrailers: Uint8Array = setOf(
  field.host,
  field.contentLength,
  field.transferEncoding,
  field.connection,
  field.expect,
  field.upgrade,
  field.http2Settings,
  field.keepAlive,
  field.proxyConnection,
  field.te,
  field.trailer,
  field.authorization,
  field.proxyAuthorization,
  field.proxyAuthenticate,
  field.contentType,
  field.contentRange,
  field.contentEncoding,
  field.ifModifiedSince,
  field.ifRange,
  field.ifUnmodifiedSince,
  field.maxForwards,
  field.range,
  field.cookie,
  field.setCookie,
  field.via,
  field.forwarded,
  field.cacheControl,
  field.location,
  field.xForwarded,
  field.sallyport,
);

/** Fields that `Connection` may not name: dropping them would change who asks, whom, or where the message ends. */
export const refusedInConnection: Uint8Array = setOf(
  field.host,
  field.contentLength,
  field.transferEncoding,
  field.authorization,
  field.cookie,
  field.via,
  field.forwarded,
  field.xForwarded,
  field.sallyport,
);
