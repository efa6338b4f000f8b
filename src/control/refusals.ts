import type { Problem } from "../base/problem.ts";

type Kind = { readonly http: number; readonly says: string };

/** Every way the control plane says no. The codes are stable: scripts may rely on them. */
export const controlRefusals = {
  bad_request: { http: 400, says: "the request is malformed" },
  expired: { http: 401, says: "the certificate has expired" },
  role_missing: { http: 403, says: "your role may not do this" },
  not_yours: { http: 403, says: "this belongs to another owner" },
  not_an_operator: { http: 403, says: "this identity has no role at the control plane" },
  revoked: { http: 403, says: "the identity was revoked" },
  not_found: { http: 404, says: "there is nothing by that name" },
  no_register: { http: 404, says: "no register was applied yet" },
  refused_step: { http: 409, says: "this does not fit the present state" },
  last_admin: { http: 409, says: "nobody could administer the control plane any more" },
  changed_meanwhile: { http: 412, says: "somebody else changed the register in between" },
  length_required: { http: 411, says: "a body needs a Content-Length" },
  too_large: { http: 413, says: "the body is larger than 1 MiB" },
  not_json: { http: 415, says: "the body must be application/json" },
  bad_register: { http: 422, says: "the register has errors" },
  precondition_required: { http: 428, says: "say which register you change" },
  audit_unavailable: { http: 503, says: "the action cannot be recorded, so it is not done" },
  fault: { http: 500, says: "something went wrong in the control plane" },
} as const satisfies Record<string, Kind>;

export type ControlRefusalCode = keyof typeof controlRefusals;

/** An expected no. Unlike the data plane's, its message may be told: everyone who gets here has proven an identity. */
export class ControlRefusal extends Error {
  readonly code: ControlRefusalCode;
  /** The way out, a sentence. */
  readonly hint: string | undefined;
  readonly problems: readonly Problem[];
  constructor(
    code: ControlRefusalCode,
    message: string = controlRefusals[code].says,
    more: { readonly hint?: string; readonly problems?: readonly Problem[] } = {},
  ) {
    super(message);
    this.code = code;
    this.hint = more.hint;
    this.problems = more.problems ?? [];
  }
}
