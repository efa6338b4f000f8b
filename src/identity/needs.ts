import type { IssuedRecord, TokenRecord } from "../model/issued.ts";
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
