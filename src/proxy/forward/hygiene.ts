import { field, recognizeName } from "../../wire/http1/fields.ts";
import type { HeadFields } from "../../wire/http1/head-fields.ts";

/**
 * Which header fields cross the gate. Hop-by-hop fields end here (RFC 9110 section 7.6.1); whatever could pose as something that
 * a proxy vouches for is removed in every spelling, before ours is set once.
 */

/** What becomes of a field: it goes on, it is dropped, or it needs a look. */
export const fate = { keep: 0, drop: 1, te: 2, via: 3, canary: 4, upgrade: 5, user: 6 } as const;
export type Fate = (typeof fate)[keyof typeof fate];

const hopByHop = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "proxy-authenticate",
  "proxy-authorization",
  "transfer-encoding",
  "http2-settings",
  // Trailers go on, their announcement does not: it may name what is dropped behind the body.
  "trailer",
]);

// Only what nobody but a proxy in front may say. A service behind a gate hears about the caller from us or not at all.
const vouching = new Set([
  "forwarded",
  "x-real-ip",
  "x-client-ip",
  "x-cluster-client-ip",
  "true-client-ip",
  "client-ip",
  "cf-connecting-ip",
  "cf-connecting-ipv6",
  "fastly-client-ip",
  // CGI reads it as HTTP_PROXY, which many a client library obeys (CVE-2016-5385).
  "proxy",
  "x-original-url",
  "x-original-host",
  "x-rewrite-url",
  "x-host",
  // These change the method that was matched.
  "x-http-method",
  "x-http-method-override",
  "x-method-override",
]);
const vouchingPrefixes = [
  "sallyport-",
  "x-sallyport-",
  "x-forwarded",
  "x-envoy-",
  "x-original-forwarded-",
  // Who holds the certificate: RFC 9440, and what proxies used before it.
  "client-cert",
  "x-client-cert",
  "x-client-dn",
  "x-client-verify",
  "x-ssl-",
  "ssl-client-",
  "x-spiffe-",
  "l5d-",
];

// By which an authenticating proxy in front says who the user is. A service that has such a proxy among its callers accepts them.
const userPrefixes = [
  "remote-user",
  "remote-name",
  "remote-email",
  "remote-group",
  "x-remote-",
  "x-auth-request-",
  "x-auth-user",
  "x-authenticated-",
  "x-authentik-",
  "x-consumer-",
  "x-credential-",
  "x-forwarded-user",
  "x-forwarded-email",
  "x-forwarded-groups",
  "x-forwarded-preferred-username",
  "x-forwarded-access-token",
  "x-webauth-",
  "x-userinfo",
  "x-goog-authenticated-user-",
  "x-goog-iap-jwt-assertion",
  "x-ms-client-principal",
  "x-ms-token-",
  "x-amzn-oidc-",
  "x-pomerium-",
  "cf-access-",
];

function judgeRequest(lower: string): Fate {
  // CGI and WSGI read `-` and `_` as one, some servers every character that is no letter or digit: `Sallyport.Caller` would be ours there.
  const name = lower.replaceAll(/[^a-z0-9]/g, "-");
  if (name === "sallyport-canary") return fate.canary;
  if (name === "host" || name === "content-length") return fate.drop; // set by us, from what was matched
  if (hopByHop.has(name) || vouching.has(name)) return fate.drop;
  if (userPrefixes.some((prefix) => name.startsWith(prefix))) return fate.user;
  if (vouchingPrefixes.some((prefix) => name.startsWith(prefix))) return fate.drop;
  if (name === "te") return fate.te;
  if (name === "via") return fate.via;
  if (name === "upgrade") return fate.upgrade;
  return fate.keep;
}

function judgeResponse(lower: string): Fate {
  if (lower.startsWith("sallyport-")) return fate.drop;
  if (lower === "content-length" || lower === "upgrade") return fate.drop;
  return hopByHop.has(lower) ? fate.drop : fate.keep;
}

/** Remembers verdicts by the spelling as received, so that a request pays one lookup a field. Full, it starts again: junk does not stay. */
function remembered(judge: (lower: string) => Fate): (name: string) => Fate {
  let known = new Map<string, Fate>();
  return (name) => {
    const before = known.get(name);
    if (before !== undefined) return before;
    const verdict = judge(name.toLowerCase());
    if (known.size >= 2_048) known = new Map();
    // A copy: a piece that V8 sliced keeps the whole head in memory that it was cut out of.
    known.set(Buffer.from(name, "latin1").toString("latin1"), verdict);
    return verdict;
  };
}

/**
 * The verdicts on the names that the parser knows, by field id: it has compared their octets already. A name that stands for several,
 * or that is not known, needs `requestFate` or `responseFate`: 255.
 */
function verdictsById(judge: (lower: string) => Fate): Uint8Array {
  const verdicts = new Uint8Array(64).fill(255);
  for (const [camel, id] of Object.entries(field)) {
    const name = camel.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    if (id !== field.other && recognizeName(name) === id) verdicts[id] = judge(name);
  }
  return verdicts;
}

const requestVerdicts = verdictsById(judgeRequest);
const responseVerdicts = verdictsById(judgeResponse);

/** `requestFate` of field `which` of a head that a parser has read. */
export function requestFieldFate(fields: HeadFields, which: number): Fate {
  const verdict = requestVerdicts[fields.ids[which] as number] as number;
  return verdict === 255 ? requestFate(fields.name(which)) : (verdict as Fate);
}

/** `responseFate` of field `which` of a head that a parser has read. */
export function responseFieldFate(fields: HeadFields, which: number): Fate {
  const verdict = responseVerdicts[fields.ids[which] as number] as number;
  return verdict === 255 ? responseFate(fields.name(which)) : (verdict as Fate);
}

export const requestFate = remembered(judgeRequest);
export const responseFate = remembered(judgeResponse);
