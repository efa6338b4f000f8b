import type { Hit } from "../../model/hit.ts";
import type { PrincipalParts } from "../../model/principal.ts";

/** The first and the last call of an identity's life, decided by `identity/issue`. Both throw an `Error` with a `code` to refuse. */
export type Issuance = {
  enrol(request: EnrolRequest): Promise<EnrolAnswer>;
  renew(request: RenewRequest): Promise<RenewAnswer>;
};

export type EnrolRequest = {
  readonly token: string;
  /** PEM PKCS#10: a service's. */
  readonly csr?: string;
  /** A gate's two. */
  readonly controlCsr?: string;
  readonly dataCsr?: string;
  /** IP literal it came from: tokens may be bound to networks. */
  readonly from: string;
};

export type EnrolAnswer = {
  readonly leaves: Readonly<Partial<Record<"control" | "data", { chain: string; bundle: string }>>>;
  readonly principal: string;
  readonly controlBundle: string;
  readonly snapshotKey?: string;
};

export type RenewRequest = {
  readonly csr: string;
  /** DNS names of a gate's further data leaves. */
  readonly names?: readonly string[];
  /** The leaf whose key the caller proved, then what it sent of its chain: DER. Not judged yet when it has expired. */
  readonly presented: readonly Uint8Array[];
  readonly from: string;
};

export type RenewAnswer = {
  readonly chain: string;
  readonly bundle: string;
  readonly controlBundle: string;
  readonly names?: Readonly<Record<string, { chain: string }>>;
};

/** Whom the door let in to `feed` or `discover`: verified, unexpired, of the right plane. */
export type JoinCaller = PrincipalParts & {
  readonly plane: "control" | "data";
  /** Lower-case hex. */
  readonly serial: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
};

/** What a service may learn: where the gates are, and the names it may put into `Host`. */
export type Discovery = {
  readonly gates: readonly { readonly name: string; readonly addresses: readonly string[] }[];
  readonly services: readonly string[];
};

/** A hit before it has a name. */
export type NewHit = Omit<Hit, "id">;
