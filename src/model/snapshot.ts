import type { Register } from "./register.ts";

/** A published version of the register. Ordered by (epoch, version): a restore from backup starts a new epoch. */
export type Snapshot = {
  readonly epoch: number;
  readonly version: number;
  /** Principal that published it, short form: `admin/first`. */
  readonly author: string;
  /** Epoch ms. */
  readonly at: number;
  /** SHA-256 of `JSON.stringify(register)`, hex. */
  readonly digest: string;
  readonly register: Register;
  readonly revocations: readonly Revocation[];
};

/** A principal, or one lineage of its certificates, that is no longer admitted. */
export type Revocation = {
  /** Short form: `service/web`. */
  readonly principal: string;
  /** Lower-case hex; absent: every certificate issued to the principal before `at`. */
  readonly serial?: string;
  /** Lineage of the serial, where the serial was renewed: all its descendants are out too. */
  readonly lineage?: string;
  /** Epoch ms. */
  readonly at: number;
};

/** A snapshot as it travels: the exact bytes that were signed, and the signature by the key that signs nothing else. */
export type SignedSnapshot = {
  /** JSON of a `Snapshot`. */
  readonly payload: string;
  /** Ed25519 over the payload's UTF-8 bytes, base64url. */
  readonly signature: string;
  /** SHA-256 of the public key's SPKI, base64url. */
  readonly key: string;
};

/** Whether `a` supersedes `b`: never a lower version, so that a late reply cannot undo a revocation. */
export function isNewer(
  a: Pick<Snapshot, "epoch" | "version">,
  b: Pick<Snapshot, "epoch" | "version">,
): boolean {
  return a.epoch > b.epoch || (a.epoch === b.epoch && a.version > b.version);
}

/** `3.17`: how versions are printed. */
export function snapshotName(snapshot: Pick<Snapshot, "epoch" | "version">): string {
  return `${snapshot.epoch}.${snapshot.version}`;
}
