/** Every way issuing says no: the HTTP status of the join door, and what the caller is told. */
export const issueRefusals = {
  token_malformed: { http: 400, says: "this is not an enrolment token" },
  token_unknown: { http: 403, says: "the token is not known here" },
  token_expired: { http: 403, says: "the token has expired" },
  token_spent: { http: 403, says: "the token was already used with another key" },
  wrong_network: { http: 403, says: "this token cannot be used from your address" },
  not_registered: { http: 403, says: "the principal is not registered" },
  revoked: { http: 403, says: "the identity was revoked" },
  csr_invalid: { http: 400, says: "the certificate request cannot be used" },
  key_reused: { http: 400, says: "a new certificate needs a new key" },
  fork: { http: 409, says: "this certificate was already renewed with another key" },
  unknown_issuer: { http: 401, says: "the certificate was not issued here" },
  unknown_leaf: { http: 403, says: "the certificate is not on record here" },
  wrong_purpose: { http: 401, says: "the certificate is not for this use" },
  bad_identity: { http: 401, says: "the certificate names no identity of this trust domain" },
  expired: { http: 401, says: "the certificate has expired" },
  not_yet_valid: { http: 401, says: "the certificate is not valid yet" },
  rate_limited: { http: 429, says: "this certificate was renewed too often; wait" },
  names_not_allowed: { http: 403, says: "only a gate has names to serve" },
} as const satisfies Record<string, { readonly http: number; readonly says: string }>;

export type IssueRefusalCode = keyof typeof issueRefusals;

/** An expected no. `message` may go to the caller: it holds no secret, and nothing that the caller has not proven. */
export class IssueRefused extends Error {
  readonly code: IssueRefusalCode;
  /** HTTP status for the join door. */
  readonly status: number;
  /** Whom the refusal is about, once that is proven: for the hit log. Short form. */
  readonly principal: string | undefined;
  constructor(code: IssueRefusalCode, options: { message?: string; principal?: string } = {}) {
    super(options.message ?? issueRefusals[code].says);
    this.code = code;
    this.status = issueRefusals[code].http;
    this.principal = options.principal;
  }
}
