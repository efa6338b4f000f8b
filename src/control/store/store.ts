import type { ChainHead } from "../../model/chain-head.ts";
import type { IssuedRecord, Role, TokenRecord } from "../../model/issued.ts";
import type { Plane, Principal } from "../../model/principal.ts";
import type { Revocation, SignedSnapshot, Snapshot } from "../../model/snapshot.ts";
import type { GateState } from "../needs.ts";

/**
 * Everything that the control plane remembers. Narrow and asynchronous, because a shared database will implement it too.
 * Each call is one transaction and durable when it resolves, unless it says otherwise. It also is what issuing needs
 * (`IssuanceStore` of `identity`).
 */
export type ControlStore = {
  // Snapshots
  /**
   * Stores a snapshot with the revocations that came with it, and makes it the newest. Rejects with `Conflict` when the
   * newest is no longer `after` (undefined: there is none yet), so that two writers cannot both succeed.
   */
  appendSnapshot(
    entry: StoredSnapshot & { readonly reason: string },
    after: SnapshotKey | undefined,
    revocations: readonly Revocation[],
  ): Promise<void>;
  latestSnapshot(): Promise<StoredSnapshot | undefined>;
  /** By version, of the epoch given or the newest epoch that has it. */
  findSnapshot(version: number, epoch?: number): Promise<StoredSnapshot | undefined>;
  /** The newest first, without their registers. */
  snapshotHeads(limit: number): Promise<readonly SnapshotHead[]>;

  // Revocations
  /** The oldest first. Never forgotten. */
  revocations(sinceMs?: number): Promise<readonly Revocation[]>;
  isRevoked(leaf: Pick<IssuedRecord, "principal" | "serial" | "lineage" | "at">): Promise<boolean>;

  // Tokens
  saveToken(token: TokenRecord): Promise<void>;
  findToken(hash: string): Promise<TokenRecord | undefined>;
  /** Binds the token to the first public key that comes; resolves to the record as it stands afterwards. */
  spendToken(hash: string, publicKey: string, at: number): Promise<TokenRecord>;
  /** Those that have not expired, the newest first. */
  tokens(nowMs: number): Promise<readonly TokenRecord[]>;
  /** By the first characters of its hash (at least 8); resolves to how many went, 0 or 1. */
  deleteToken(hashPrefix: string): Promise<number>;
  /**
   * All of a principal's, and those that it made for others and nobody has used yet: they would outlive it. Resolves to how
   * many of them could still have been used at `nowMs`.
   */
  deleteTokensOf(principal: Principal, nowMs: number): Promise<number>;

  // Issued leaves
  saveIssued(leaf: IssuedRecord): Promise<void>;
  findIssued(plane: Plane, serial: string): Promise<IssuedRecord | undefined>;
  issuedByToken(hash: string): Promise<readonly IssuedRecord[]>;
  successorOf(plane: Plane, serial: string): Promise<IssuedRecord | undefined>;
  /** The leaves of one line of renewals that end after `sinceMs`. */
  leavesOfLine(plane: Plane, lineage: string, sinceMs: number): Promise<readonly IssuedRecord[]>;
  /** When the principal was last issued a leaf, epoch ms; 0: never. */
  lastIssuedMs(principal: Principal): Promise<number>;
  /** The leaf that lasts longest of each (plane, principal), of those that end after `sinceMs`; the first to end first. */
  newestLeaves(sinceMs: number): Promise<readonly IssuedRecord[]>;

  // Principals of ours; services are in the register
  savePrincipal(principal: PrincipalRecord): Promise<void>;
  findPrincipal(principal: Principal): Promise<PrincipalRecord | undefined>;
  principals(): Promise<readonly PrincipalRecord[]>;
  /** It may hold no identity from now on, until it is saved again. */
  removePrincipal(principal: Principal, at: number): Promise<void>;
  /** Fails closed: an unknown, removed or foreign principal, or any service before the first register, is not. */
  isRegistered(principal: Principal): Promise<boolean>;
  /** The service's `grace`, ms; 0: none. */
  graceMs(principal: Principal): Promise<number>;

  // Gates: what they last said, for when they are gone. Not synced: the next message says it again.
  saveGate(state: GateState): Promise<void>;
  gates(): Promise<readonly GateState[]>;

  // Anchors: heads of hit-log chains kept elsewhere than the log. Not synced: there is one a second.
  /** Never moves a chain backwards. Resolves to those that contradict what is stored: the log was changed. */
  saveAnchors(anchors: readonly Anchor[]): Promise<readonly Anchor[]>;
  anchors(source?: string): Promise<readonly Anchor[]>;

  // Settings: what must survive and has no better place
  setting(name: string): Promise<string | undefined>;
  saveSetting(name: string, value: string): Promise<void>;

  /** Drops what nobody can need any more: tokens and leaves that ended long before `nowMs`, snapshots beyond the newest 500. */
  prune(nowMs: number): Promise<void>;
  /** Safe to call twice. */
  close(): Promise<void>;
};

export type SnapshotKey = Pick<Snapshot, "epoch" | "version">;

export type StoredSnapshot = { readonly snapshot: Snapshot; readonly signed: SignedSnapshot };

/** What `history` shows. */
export type SnapshotHead = SnapshotKey & {
  readonly author: string;
  /** Epoch ms. */
  readonly at: number;
  readonly digest: string;
  /** What made it: `apply`, `rollback 12`, `revoke service/web`, `restore`. */
  readonly reason: string;
};

export type PrincipalRecord = {
  readonly principal: Principal;
  /** Undefined for gates. */
  readonly role?: Role;
  /** Owners whose services a `deployer` may change. */
  readonly owners: readonly string[];
  /** Services that an `enroller` may make tokens for; `*` is every one. */
  readonly services: readonly string[];
  readonly createdBy: string;
  readonly createdMs: number;
  readonly removedMs?: number;
};

/** The head of one chain of the hit log at one moment. */
export type Anchor = ChainHead & {
  /** Who told us: `gate/g1`, `control/control`. */
  readonly source: string;
  /** Epoch ms. */
  readonly at: number;
};

/** Somebody else wrote in between. */
export class Conflict extends Error {}

/** The store cannot be used: another process has it, it is damaged, or it was written by a newer version. */
export class StoreUnusable extends Error {
  readonly hint: string;
  constructor(message: string, hint: string, options?: ErrorOptions) {
    super(message, options);
    this.hint = hint;
  }
}
