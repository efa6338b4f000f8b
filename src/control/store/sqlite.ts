import { chmodSync, closeSync, existsSync, mkdirSync, openSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import type { IssuedRecord, Role, TokenRecord } from "../../model/issued.ts";
import { type Plane, type Principal, parsePrincipal, shortName } from "../../model/principal.ts";
import type { Register } from "../../model/register.ts";
import type { Revocation, Snapshot } from "../../model/snapshot.ts";
import type { GateState } from "../needs.ts";
import { migrations } from "./migrations.ts";
import {
  type Anchor,
  Conflict,
  type ControlStore,
  type PrincipalRecord,
  type SnapshotHead,
  type StoredSnapshot,
  StoreUnusable,
} from "./store.ts";

/**
 * Opens the store in one SQLite file, which it creates (0600, in a directory it makes 0700) and brings up to date. The file
 * belongs to this process alone until `close`. Rejects with `StoreUnusable` when another process has it, when it is damaged
 * or when a newer version wrote it; a store that is damaged is left as it is. `makeRoom` is called with what will be written
 * before anything that cuts somebody off: that must not fail for a full disk.
 */
export async function openStore(
  file: string,
  makeRoom: (bytes: number) => void = () => {},
): Promise<ControlStore> {
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  // Made before SQLite can: it would create it with the process's umask, and its -wal follows the mode of the file.
  if (!existsSync(file)) closeSync(openSync(file, "a", 0o600));
  chmodSync(file, 0o600);
  const database = new DatabaseSync(file, { enableForeignKeyConstraints: true, timeout: 250 });
  try {
    prepare(database, file);
  } catch (cause) {
    database.close();
    throw asUnusable(cause, file);
  }
  return new SqliteStore(database, makeRoom);
}

const snapshotsKept = 500;
const dayMs = 86_400_000;
/** What a small change may take in the write-ahead log, and then some. */
const fewBytes = 2 * 1_048_576;

class SqliteStore implements ControlStore {
  readonly #database: DatabaseSync;
  readonly #makeRoom: (bytes: number) => void;
  readonly #statements = new Map<string, StatementSync>();
  #register: Register | undefined;
  #open = true;

  constructor(database: DatabaseSync, makeRoom: (bytes: number) => void) {
    this.#database = database;
    this.#makeRoom = makeRoom;
    this.#register = this.#latest()?.snapshot.register;
  }

  async appendSnapshot(
    entry: StoredSnapshot & { readonly reason: string },
    after: Pick<Snapshot, "epoch" | "version"> | undefined,
    revocations: readonly Revocation[],
  ): Promise<void> {
    const { snapshot, signed, reason } = entry;
    // Once in the log, once in its place, and as much again for what SQLite moves aside.
    if (reason !== "apply") this.#makeRoom(fewBytes + 4 * signed.payload.length);
    this.#write(() => {
      const newest = this.#one(
        "SELECT epoch, version FROM snapshots ORDER BY epoch DESC, version DESC",
      );
      if (newest?.epoch !== after?.epoch || newest?.version !== after?.version)
        throw new Conflict("somebody else published in between");
      this.#run(
        "INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        snapshot.epoch,
        snapshot.version,
        snapshot.author,
        snapshot.at,
        snapshot.digest,
        reason,
        signed.payload,
        signed.signature,
        signed.key,
      );
      for (const { principal, serial, lineage, at } of revocations)
        this.#run(
          "INSERT INTO revocations (principal, serial, lineage, at) VALUES (?, ?, ?, ?)",
          principal,
          serial ?? null,
          lineage ?? null,
          at,
        );
    });
    this.#register = snapshot.register;
  }

  async latestSnapshot(): Promise<StoredSnapshot | undefined> {
    return this.#latest();
  }

  async findSnapshot(version: number, epoch?: number): Promise<StoredSnapshot | undefined> {
    const row =
      epoch === undefined
        ? this.#one("SELECT * FROM snapshots WHERE version = ? ORDER BY epoch DESC", version)
        : this.#one("SELECT * FROM snapshots WHERE version = ? AND epoch = ?", version, epoch);
    return row && storedSnapshot(row);
  }

  async snapshotHeads(limit: number): Promise<readonly SnapshotHead[]> {
    return this.#all(
      "SELECT epoch, version, author, at, digest, reason FROM snapshots ORDER BY epoch DESC, version DESC LIMIT ?",
      limit,
    ).map((row) => ({ ...row }) as SnapshotHead);
  }

  async revocations(sinceMs = 0): Promise<readonly Revocation[]> {
    return this.#all("SELECT * FROM revocations WHERE at >= ? ORDER BY sequence", sinceMs).map(
      (row) =>
        dropNulls({
          principal: row.principal,
          serial: row.serial,
          lineage: row.lineage,
          at: row.at,
        }) as Revocation,
    );
  }

  async isRevoked(
    leaf: Pick<IssuedRecord, "principal" | "serial" | "lineage" | "at">,
  ): Promise<boolean> {
    const parts = parsePrincipal(leaf.principal);
    if (!parts) return true; // Fails closed: no leaf of ours has such a name.
    // A leaf issued in the same millisecond is out too: the order within it is not known.
    return (
      this.#one(
        `SELECT 1 FROM revocations WHERE principal = ?
         AND ((serial IS NULL AND lineage IS NULL AND at >= ?) OR serial = ? OR lineage = ?)`,
        shortName(parts),
        leaf.at,
        leaf.serial,
        leaf.lineage,
      ) !== undefined
    );
  }

  async saveToken(token: TokenRecord): Promise<void> {
    this.#write(() =>
      this.#run(
        "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        token.hash,
        token.principal,
        token.role ?? null,
        token.createdBy,
        token.createdMs,
        token.expiresMs,
        JSON.stringify(token.from),
        token.spentBy ?? null,
        token.spentMs ?? null,
      ),
    );
  }

  async findToken(hash: string): Promise<TokenRecord | undefined> {
    const row = this.#one("SELECT * FROM tokens WHERE hash = ?", hash);
    return row && tokenRecord(row);
  }

  async spendToken(hash: string, publicKey: string, at: number): Promise<TokenRecord> {
    this.#write(() =>
      this.#run(
        "UPDATE tokens SET spent_by = ?, spent_ms = ? WHERE hash = ? AND spent_by IS NULL",
        publicKey,
        at,
        hash,
      ),
    );
    const row = this.#one("SELECT * FROM tokens WHERE hash = ?", hash);
    if (!row) throw new Error("a token that does not exist cannot be spent");
    return tokenRecord(row);
  }

  async tokens(nowMs: number): Promise<readonly TokenRecord[]> {
    return this.#all(
      "SELECT * FROM tokens WHERE expires_ms > ? ORDER BY created_ms DESC, hash",
      nowMs,
    ).map(tokenRecord);
  }

  async deleteToken(hashPrefix: string): Promise<number> {
    if (!/^[0-9a-f]{8,64}$/.test(hashPrefix)) return 0;
    const found = this.#all(
      "SELECT hash FROM tokens WHERE substr(hash, 1, ?) = ? LIMIT 2",
      hashPrefix.length,
      hashPrefix,
    );
    const [only] = found;
    if (found.length !== 1 || !only) return 0;
    return this.#write(() => this.#run("DELETE FROM tokens WHERE hash = ?", only.hash as string));
  }

  async deleteTokensOf(principal: Principal, nowMs: number): Promise<number> {
    const parts = parsePrincipal(principal);
    const name = parts ? shortName(parts) : principal;
    this.#makeRoom(fewBytes);
    return this.#write(() => {
      const usable = this.#one(
        "SELECT count(*) AS count FROM tokens WHERE (principal = ? OR created_by = ?) AND spent_by IS NULL AND expires_ms > ?",
        principal,
        name,
        nowMs,
      );
      this.#run(
        "DELETE FROM tokens WHERE principal = ? OR (created_by = ? AND spent_by IS NULL)",
        principal,
        name,
      );
      return Number(usable?.count);
    });
  }

  async saveIssued(leaf: IssuedRecord): Promise<void> {
    this.#write(() =>
      this.#run(
        "INSERT INTO issued VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        leaf.plane,
        leaf.serial,
        leaf.principal,
        leaf.lineage,
        leaf.predecessor ?? null,
        leaf.token ?? null,
        leaf.publicKey,
        leaf.certPem,
        leaf.notBeforeMs,
        leaf.notAfterMs,
        leaf.at,
        leaf.via,
      ),
    );
  }

  async findIssued(plane: Plane, serial: string): Promise<IssuedRecord | undefined> {
    const row = this.#one("SELECT * FROM issued WHERE plane = ? AND serial = ?", plane, serial);
    return row && issuedRecord(row);
  }

  async issuedByToken(hash: string): Promise<readonly IssuedRecord[]> {
    return this.#all("SELECT * FROM issued WHERE token = ? ORDER BY at, serial", hash).map(
      issuedRecord,
    );
  }

  async successorOf(plane: Plane, serial: string): Promise<IssuedRecord | undefined> {
    const row = this.#one(
      "SELECT * FROM issued WHERE plane = ? AND predecessor = ? ORDER BY at, serial",
      plane,
      serial,
    );
    return row && issuedRecord(row);
  }

  async leavesOfLine(
    plane: Plane,
    lineage: string,
    sinceMs: number,
  ): Promise<readonly IssuedRecord[]> {
    return this.#all(
      "SELECT * FROM issued WHERE not_after_ms > ? AND plane = ? AND lineage = ? ORDER BY at, serial",
      sinceMs,
      plane,
      lineage,
    ).map(issuedRecord);
  }

  async lastIssuedMs(principal: Principal): Promise<number> {
    const row = this.#one("SELECT max(at) AS at FROM issued WHERE principal = ?", principal);
    return Number(row?.at ?? 0);
  }

  async newestLeaves(sinceMs: number): Promise<readonly IssuedRecord[]> {
    // A bare column beside max() takes its value from the row that holds the maximum: SQLite promises that.
    return this.#all(
      `SELECT *, max(not_after_ms) AS longest FROM issued WHERE not_after_ms > ?
       GROUP BY plane, principal ORDER BY longest, principal, plane`,
      sinceMs,
    ).map(issuedRecord);
  }

  async savePrincipal(record: PrincipalRecord): Promise<void> {
    this.#write(() =>
      this.#run(
        "INSERT OR REPLACE INTO principals VALUES (?, ?, ?, ?, ?, ?, ?)",
        record.principal,
        record.role ?? null,
        JSON.stringify(record.owners),
        JSON.stringify(record.services),
        record.createdBy,
        record.createdMs,
        record.removedMs ?? null,
      ),
    );
  }

  async findPrincipal(principal: Principal): Promise<PrincipalRecord | undefined> {
    const row = this.#one("SELECT * FROM principals WHERE principal = ?", principal);
    return row && principalRecord(row);
  }

  async principals(): Promise<readonly PrincipalRecord[]> {
    return this.#all("SELECT * FROM principals ORDER BY principal").map(principalRecord);
  }

  async removePrincipal(principal: Principal, at: number): Promise<void> {
    this.#makeRoom(fewBytes);
    this.#write(() =>
      this.#run(
        "UPDATE principals SET removed_ms = ? WHERE principal = ? AND removed_ms IS NULL",
        at,
        principal,
      ),
    );
  }

  async isRegistered(principal: Principal): Promise<boolean> {
    const parts = parsePrincipal(principal);
    if (!parts) return false;
    const register = this.#register;
    if (register && parts.trustDomain !== register.trustDomain) return false;
    if (parts.kind === "service")
      return register !== undefined && Object.hasOwn(register.services, parts.name);
    const row = this.#one(
      "SELECT 1 FROM principals WHERE principal = ? AND removed_ms IS NULL",
      principal,
    );
    return row !== undefined;
  }

  async graceMs(principal: Principal): Promise<number> {
    const parts = parsePrincipal(principal);
    const register = this.#register;
    if (parts?.kind !== "service" || parts.trustDomain !== register?.trustDomain) return 0;
    if (!Object.hasOwn(register.services, parts.name)) return 0;
    return register.services[parts.name]?.graceMs ?? 0;
  }

  async saveGate(state: GateState): Promise<void> {
    this.#writeRelaxed(() =>
      this.#run("INSERT OR REPLACE INTO gates VALUES (?, ?)", state.name, JSON.stringify(state)),
    );
  }

  async gates(): Promise<readonly GateState[]> {
    return this.#all("SELECT state FROM gates ORDER BY name").map(
      (row) => JSON.parse(row.state as string) as GateState,
    );
  }

  async saveAnchors(anchors: readonly Anchor[]): Promise<readonly Anchor[]> {
    const contradictions: Anchor[] = [];
    this.#writeRelaxed(() => {
      for (const anchor of anchors) {
        const { source, chain, sequence, head, at } = anchor;
        const known = this.#one(
          "SELECT sequence, head FROM anchors WHERE source = ? AND chain = ?",
          source,
          chain,
        );
        const last = known?.sequence as number | undefined;
        if (last !== undefined && (sequence < last || (sequence === last && head !== known?.head)))
          contradictions.push(anchor);
        else
          this.#run(
            "INSERT OR REPLACE INTO anchors VALUES (?, ?, ?, ?, ?)",
            source,
            chain,
            sequence,
            head,
            at,
          );
      }
    });
    return contradictions;
  }

  async anchors(source?: string): Promise<readonly Anchor[]> {
    const rows =
      source === undefined
        ? this.#all("SELECT * FROM anchors ORDER BY source, chain")
        : this.#all("SELECT * FROM anchors WHERE source = ? ORDER BY chain", source);
    return rows.map((row) => ({ ...row }) as Anchor);
  }

  async setting(name: string): Promise<string | undefined> {
    return this.#one("SELECT value FROM settings WHERE name = ?", name)?.value as
      | string
      | undefined;
  }

  async saveSetting(name: string, value: string): Promise<void> {
    this.#write(() => this.#run("INSERT OR REPLACE INTO settings VALUES (?, ?)", name, value));
  }

  async prune(nowMs: number): Promise<void> {
    this.#write(() => {
      this.#run("DELETE FROM tokens WHERE expires_ms < ?", nowMs - 7 * dayMs);
      // Longer than any leaf with any grace: a renewal must still find where its predecessor came from.
      this.#run("DELETE FROM issued WHERE not_after_ms < ?", nowMs - 90 * dayMs);
      this.#run("DELETE FROM anchors WHERE at < ?", nowMs - 400 * dayMs);
      this.#run(
        `DELETE FROM snapshots WHERE (epoch, version) NOT IN
         (SELECT epoch, version FROM snapshots ORDER BY epoch DESC, version DESC LIMIT ?)`,
        snapshotsKept,
      );
    });
  }

  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    this.#statements.clear();
    this.#database.close();
  }

  #latest(): StoredSnapshot | undefined {
    const row = this.#one("SELECT * FROM snapshots ORDER BY epoch DESC, version DESC");
    return row && storedSnapshot(row);
  }

  #write<T>(change: () => T): T {
    // IMMEDIATE: a transaction that starts as a reader could fail half-way when it turns into a writer.
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      const result = change();
      this.#database.exec("COMMIT");
      return result;
    } catch (cause) {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      throw cause;
    }
  }

  /** Consistent after any crash, but the last few may be lost with the power. */
  #writeRelaxed<T>(change: () => T): T {
    this.#database.exec("PRAGMA synchronous = NORMAL");
    try {
      return this.#write(change);
    } finally {
      this.#database.exec("PRAGMA synchronous = FULL");
    }
  }

  #one(sql: string, ...values: SQLInputValue[]): Row | undefined {
    return this.#statement(sql).get(...values) as Row | undefined;
  }

  #all(sql: string, ...values: SQLInputValue[]): Row[] {
    return this.#statement(sql).all(...values) as Row[];
  }

  #run(sql: string, ...values: SQLInputValue[]): number {
    return Number(this.#statement(sql).run(...values).changes);
  }

  /** Every SQL text here is a constant, so the map is as large as this file. */
  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (!statement) {
      if (!this.#open) throw new Error("the store is closed");
      statement = this.#database.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }
}

type Row = Readonly<Record<string, string | number | null>>;

function prepare(database: DatabaseSync, file: string): void {
  // Exclusive from the first transaction to the end of the process, also over a kill: the kernel drops the lock.
  database.exec("PRAGMA locking_mode = EXCLUSIVE");
  database.exec("PRAGMA journal_mode = WAL");
  database.exec("PRAGMA synchronous = FULL");
  database.exec("PRAGMA trusted_schema = OFF");
  database.exec("BEGIN EXCLUSIVE; COMMIT");
  const verdict = database.prepare("PRAGMA integrity_check(10)").all() as Row[];
  const dangling = database.prepare("PRAGMA foreign_key_check").all();
  if (verdict[0]?.integrity_check !== "ok" || dangling.length > 0)
    throw new StoreUnusable(
      `the store ${file} is damaged: ${verdict.map((row) => row.integrity_check).join("; ")}`,
      "nothing was changed; put a backup in its place and start a new epoch (docs/control.md, Restore)",
    );
  migrate(database, file);
}

function migrate(database: DatabaseSync, file: string): void {
  const row = database.prepare("PRAGMA user_version").get() as Row;
  const version = Number(row.user_version);
  if (version > migrations.length)
    throw new StoreUnusable(
      `the store ${file} was written by a newer sallyport (schema ${version}, this one knows ${migrations.length})`,
      "start the newer version; going back needs a backup from before the upgrade",
    );
  for (const [index, sql] of migrations.entries()) {
    if (index < version) continue;
    database.exec(`BEGIN IMMEDIATE; ${sql}; PRAGMA user_version = ${index + 1}; COMMIT`);
  }
}

function asUnusable(cause: unknown, file: string): StoreUnusable {
  if (cause instanceof StoreUnusable) return cause;
  const code = (cause as { errcode?: number }).errcode ?? 0;
  const primary = code & 0xff; // extended codes keep the primary one in the low byte
  if (primary === 5 || primary === 6)
    return new StoreUnusable(
      `the store ${file} is in use by another process`,
      "one control process owns a store: stop the other one, or give this one a directory of its own with --state",
      { cause },
    );
  if (primary === 11 || primary === 26)
    return new StoreUnusable(
      `the store ${file} is damaged`,
      "nothing was changed; put a backup in its place and start a new epoch (docs/control.md, Restore)",
      { cause },
    );
  return new StoreUnusable(
    `the store ${file} cannot be opened: ${(cause as Error).message}`,
    "check that the directory is writable and the disk is not full",
    { cause },
  );
}

function storedSnapshot(row: Row): StoredSnapshot {
  const payload = row.payload as string;
  return {
    snapshot: JSON.parse(payload) as Snapshot,
    signed: { payload, signature: row.signature as string, key: row.key as string },
  };
}

function tokenRecord(row: Row): TokenRecord {
  return dropNulls({
    hash: row.hash,
    principal: row.principal,
    role: row.role,
    createdBy: row.created_by,
    createdMs: row.created_ms,
    expiresMs: row.expires_ms,
    from: JSON.parse(row.from_cidrs as string),
    spentBy: row.spent_by,
    spentMs: row.spent_ms,
  }) as TokenRecord;
}

function issuedRecord(row: Row): IssuedRecord {
  return dropNulls({
    plane: row.plane,
    serial: row.serial,
    principal: row.principal,
    lineage: row.lineage,
    predecessor: row.predecessor,
    token: row.token,
    publicKey: row.public_key,
    certPem: row.cert_pem,
    notBeforeMs: row.not_before_ms,
    notAfterMs: row.not_after_ms,
    at: row.at,
    via: row.via,
  }) as IssuedRecord;
}

function principalRecord(row: Row): PrincipalRecord {
  return dropNulls({
    principal: row.principal,
    role: row.role as Role | null,
    owners: JSON.parse(row.owners as string),
    services: JSON.parse(row.services as string),
    createdBy: row.created_by,
    createdMs: row.created_ms,
    removedMs: row.removed_ms,
  }) as PrincipalRecord;
}

function dropNulls(fields: Readonly<Record<string, unknown>>): object {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== null && value !== undefined),
  );
}
