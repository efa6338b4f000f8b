type Kind = {
  readonly http: number;
  readonly blame: "client" | "upstream" | "self";
  /** Whether the same request may succeed later without anybody changing the register. */
  readonly retry: boolean;
  readonly says: string;
};

/** Every way the data plane says no: what the client is told, who is to blame, whether a retry can help. */
export const refusals = {
  // Before a byte is parsed.
  not_tls: { http: 0, blame: "client", retry: false, says: "this port speaks mutual TLS only" },
  handshake_timeout: { http: 0, blame: "client", retry: true, says: "the handshake took too long" },
  handshake_failed: { http: 0, blame: "client", retry: false, says: "the handshake failed" },
  too_many_handshakes: {
    http: 0,
    blame: "client",
    retry: true,
    says: "too many handshakes in flight",
  },
  too_many_connections: { http: 0, blame: "client", retry: true, says: "too many connections" },
  address_not_allowed: {
    http: 0,
    blame: "client",
    retry: false,
    says: "this door is not for your address",
  },
  decoy: { http: 0, blame: "client", retry: false, says: "nothing is here" },
  no_certificate: {
    http: 401,
    blame: "client",
    retry: false,
    says: "present a client certificate",
  },
  unknown_issuer: {
    http: 401,
    blame: "client",
    retry: false,
    says: "the certificate was not issued here",
  },
  other_plane: {
    http: 401,
    blame: "client",
    retry: false,
    says: "the certificate belongs to another plane",
  },
  expired: { http: 401, blame: "client", retry: false, says: "the certificate has expired" },
  not_yet_valid: {
    http: 401,
    blame: "client",
    retry: true,
    says: "the certificate is not valid yet",
  },
  wrong_purpose: {
    http: 401,
    blame: "client",
    retry: false,
    says: "the certificate is not for this use",
  },
  bad_identity: {
    http: 401,
    blame: "client",
    retry: false,
    says: "the certificate names no identity of this trust domain",
  },
  revoked: { http: 403, blame: "client", retry: false, says: "the identity was revoked" },
  not_registered: {
    http: 403,
    blame: "client",
    retry: false,
    says: "the caller is not registered",
  },
  no_view: { http: 503, blame: "self", retry: true, says: "the gate has no register to decide by" },
  draining: { http: 503, blame: "self", retry: true, says: "the gate is shutting down" },
  // The message itself.
  bad_request: { http: 400, blame: "client", retry: false, says: "the request is malformed" },
  bad_header: { http: 400, blame: "client", retry: false, says: "a header is malformed" },
  ambiguous_length: {
    http: 400,
    blame: "client",
    retry: false,
    says: "the length of the body can be read in two ways",
  },
  bad_chunk: { http: 400, blame: "client", retry: false, says: "the chunked body is malformed" },
  bad_host: {
    http: 400,
    blame: "client",
    retry: false,
    says: "the Host header is missing, doubled or malformed",
  },
  bad_path: {
    http: 400,
    blame: "client",
    retry: false,
    says: "the path is malformed or can be read in two ways",
  },
  head_too_large: {
    http: 431,
    blame: "client",
    retry: false,
    says: "the request head is too large",
  },
  head_timeout: { http: 408, blame: "client", retry: true, says: "the request head took too long" },
  idle_timeout: { http: 408, blame: "client", retry: true, says: "nothing came for too long" },
  version_not_supported: {
    http: 505,
    blame: "client",
    retry: false,
    says: "HTTP/1.0 and HTTP/1.1 are spoken here",
  },
  method_not_supported: {
    http: 501,
    blame: "client",
    retry: false,
    says: "the method is not spoken here",
  },
  upgrade_not_supported: {
    http: 501,
    blame: "client",
    retry: false,
    says: "upgrades are not spoken here",
  },
  expectation_failed: {
    http: 417,
    blame: "client",
    retry: false,
    says: "only 100-continue can be expected",
  },
  loop: {
    http: 508,
    blame: "client",
    retry: false,
    says: "the request has been through this gate before",
  },
  // The decision.
  unknown_service: {
    http: 404,
    blame: "client",
    retry: false,
    says: "no such service stands behind this gate",
  },
  misdirected: {
    http: 421,
    blame: "client",
    retry: false,
    says: "the connection was opened for another service",
  },
  not_authorized: { http: 403, blame: "client", retry: false, says: "no rule lets you in" },
  denied: { http: 403, blame: "client", retry: false, says: "a rule keeps you out" },
  rate_limited: {
    http: 429,
    blame: "client",
    retry: true,
    says: "too many requests for your rate limit",
  },
  stale: {
    http: 503,
    blame: "self",
    retry: true,
    says: "the gate's register is too old to decide by",
  },
  audit_unavailable: {
    http: 503,
    blame: "self",
    retry: true,
    says: "the request cannot be recorded, so it is not served",
  },
  // Behind the gate.
  upstream_forbidden: {
    http: 502,
    blame: "self",
    retry: false,
    says: "the service's address may not be dialled",
  },
  upstream_down: {
    http: 503,
    blame: "upstream",
    retry: true,
    says: "the service is not answering",
  },
  upstream_timeout: {
    http: 504,
    blame: "upstream",
    retry: true,
    says: "the service took too long",
  },
  upstream_broken: {
    http: 502,
    blame: "upstream",
    retry: false,
    says: "the service's answer was malformed or cut short",
  },
  overloaded: { http: 503, blame: "self", retry: true, says: "too many requests are waiting" },
  fault: { http: 500, blame: "self", retry: false, says: "something went wrong in the gate" },
} as const satisfies Record<string, Kind>;

export type RefusalCode = keyof typeof refusals;

/** An expected no. `message` goes to our log; the client is only ever told `refusals[code].says`. */
export class Refusal extends Error {
  readonly code: RefusalCode;
  constructor(code: RefusalCode, message: string, options?: ErrorOptions) {
    // A no is an answer, not an accident: nobody reads its stack, and capturing one costs more than all the rest of refusing.
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    super(message, options);
    Error.stackTraceLimit = stackTraceLimit;
    this.code = code;
  }

  /** HTTP status that the client is sent; 0: none. */
  get status(): number {
    return refusals[this.code].http;
  }
}
