import type { Plane, Principal } from "../model/principal.ts";

/**
 * What issuing needs to remember. Implemented by `control/store`; promises, because a shared database will implement it too.
 * Each call is atomic by itself and durable when it resolves.
 */
export type IssuanceStore = {
  saveToken(token: TokenRecord): Promise<void>;
  /** By SHA-256 (hex) of the secret: tokens are never stored. */
  findToken(hash: string): Promise<TokenRecord | undefined>;
  /**
   * Binds the token to a public key, once: resolves to the record as it stands afterwards, whose `spentBy` is the first key that came.
   */
  spendToken(hash: string, publicKey: string, at: number): Promise<TokenRecord>;
  /** Throws when its `predecessor` already has a successor on that plane: a line never forks, whoever shares the store. */
  saveIssued(leaf: IssuedRecord): Promise<void>;
  findIssued(plane: Plane, serial: string): Promise<IssuedRecord | undefined>;
  /** Leaves that were issued on the strength of this token. */
  issuedByToken(hash: string): Promise<readonly IssuedRecord[]>;
  /** The leaf that was renewed from this one (`predecessor` is its serial), if any. */
  successorOf(plane: Plane, serial: string): Promise<IssuedRecord | undefined>;
  /** Whether the principal may hold an identity now: a registered service, an enrolled gate, an administrator that was not removed. */
  isRegistered(principal: Principal): Promise<boolean>;
  isRevoked(leaf: Pick<IssuedRecord, "principal" | "serial" | "lineage" | "at">): Promise<boolean>;
  /** The service's `grace`, ms; 0: none. */
  graceMs(principal: Principal): Promise<number>;
};

export type TokenRecord = {
  readonly hash: string;
  readonly principal: Principal;
  /** Role given at the API when the principal is of the control plane. */
  readonly role?: Role;
  readonly createdBy: string;
  readonly createdMs: number;
  readonly expiresMs: number;
  /** CIDRs the enrolment must come from; empty: anywhere that reaches the join door. */
  readonly from: readonly string[];
  /** SHA-256 of the SPKI that spent it, base64url. */
  readonly spentBy?: string;
  readonly spentMs?: number;
};

export type IssuedRecord = {
  readonly plane: Plane;
  /** Lower-case hex, no leading zeros beyond the first byte. */
  readonly serial: string;
  readonly principal: Principal;
  /** Serial of the first leaf of the line: enrolment starts one, each renewal continues it. */
  readonly lineage: string;
  /** Serial this one was renewed from. */
  readonly predecessor?: string;
  readonly token?: string;
  /** SHA-256 of the SPKI, base64url. */
  readonly publicKey: string;
  /** The leaf itself (public): a caller whose answer was lost asks again with the same key and is given the same one. */
  readonly certPem: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly at: number;
  readonly via: "token" | "renewal" | "grace" | "init";
};

/** What a principal of the control plane may do. */
export type Role = "admin" | "deployer" | "enroller" | "auditor";
