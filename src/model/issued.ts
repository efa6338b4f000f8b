import type { Plane, Principal } from "./principal.ts";

// What issuing hands out and remembers: public facts alone, no secret and no key.

/** What a principal of the control plane may do. */
export type Role = "admin" | "deployer" | "enroller" | "auditor";

/** How long a token may be used, ms. */
export const tokenLifeMs = { min: 60_000, max: 86_400_000, byDefault: 600_000 } as const;

/** A single-use right to enrol as one principal. The secret itself is never stored. */
export type TokenRecord = {
  /** SHA-256 of the secret, lower-case hex. */
  readonly hash: string;
  readonly principal: Principal;
  /** Role given at the API when the principal is of the control plane. */
  readonly role?: Role;
  /** Short form: `admin/first`. */
  readonly createdBy: string;
  readonly createdMs: number;
  readonly expiresMs: number;
  /** CIDRs the enrolment must come from; empty: anywhere that reaches the join door. */
  readonly from: readonly string[];
  /** SHA-256 of the SPKI that spent it, base64url. */
  readonly spentBy?: string;
  readonly spentMs?: number;
};

/** A leaf that was issued. */
export type IssuedRecord = {
  readonly plane: Plane;
  /** Lower-case hex, no leading zeros beyond the first byte. */
  readonly serial: string;
  readonly principal: Principal;
  /** Serial of the first leaf of the line: enrolment starts one, each renewal continues it. */
  readonly lineage: string;
  /** Serial this one was renewed from. */
  readonly predecessor?: string;
  /** Hash of the token that paid for it. */
  readonly token?: string;
  /** SHA-256 of the SPKI, base64url. */
  readonly publicKey: string;
  /** The leaf itself (public): a caller whose answer was lost asks again with the same key and is given the same one. */
  readonly certPem: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** Epoch ms at which it was issued. */
  readonly at: number;
  readonly via: "token" | "renewal" | "grace" | "init";
};

/** Where an authority is in the rotation of its root. */
export type RotationState = {
  /** `steady`: one root. `prepared`: the next one is trusted. `activated`: it signs, the old one is still trusted. */
  readonly step: "steady" | "prepared" | "activated";
  readonly active: RootFacts;
  /** While `prepared`. */
  readonly next?: RootFacts;
  /** While `activated`. */
  readonly previous?: RootFacts;
  /** Epoch ms from which the next step needs no force. Absent when steady. */
  readonly readyAtMs?: number;
};

/** A root, as it is shown to people. */
export type RootFacts = {
  readonly id: string;
  /** SHA-256 of the SPKI, base64url. */
  readonly fingerprint: string;
  readonly createdMs: number;
  readonly notAfterMs: number;
};
