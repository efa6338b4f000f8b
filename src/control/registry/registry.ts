import type { Problem } from "../../base/problem.ts";
import type { IssuedRecord } from "../../model/issued.ts";
import { type Principal, parsePrincipal, principalOf, shortName } from "../../model/principal.ts";
import { registerDigest } from "../../model/register/digest.ts";
import type { SourceFile } from "../../model/register/read-yaml.ts";
import type { Port, Register, Service } from "../../model/register.ts";
import { type Revocation, type Snapshot, snapshotName } from "../../model/snapshot.ts";
import { checkRegister } from "../../policy/lint/check-register.ts";
import type { Confirmations, Needs } from "../needs.ts";
import { ControlRefusal } from "../refusals.ts";
import {
  Conflict,
  type ControlStore,
  type PrincipalRecord,
  type SnapshotHead,
  type StoredSnapshot,
} from "../store/store.ts";
import { type Change, diffRegisters } from "./diff.ts";

/** The only way to change what gates serve by. Every change becomes a stored, signed snapshot before a gate hears of it. */
export type Registry = {
  /** The newest snapshot; undefined before the first `apply`. Swapped whole, never changed. */
  current(): StoredSnapshot | undefined;
  /** What `apply` would change and what is wrong, without doing it. Never rejects for problems of the register. */
  compare(files: readonly SourceFile[]): Promise<Comparison>;
  /** Rejects with a `ControlRefusal`: `bad_register`, `precondition_required`, `changed_meanwhile`, `not_yours`. */
  apply(request: ApplyRequest): Promise<Applied>;
  /** Publishes an older register anew, with the revocations of today. Rejects with `not_found`, `bad_register`. */
  rollback(request: RollbackRequest): Promise<Applied>;
  /** Rejects with `not_found`, `last_admin`. */
  revoke(request: RevokeRequest): Promise<Revoked>;
  /**
   * After a restore from backup: the same register in a new epoch, so that gates which saw more than the backup follow. The
   * epoch is the second it begins in, or one more than the last: restoring one backup twice gives two epochs.
   */
  startEpoch(author: Author): Promise<Applied>;
  history(limit: number): Promise<readonly SnapshotHead[]>;
};

/** Who asks: its short form, and what it may change. Undefined: control itself. */
export type Author = { readonly name: string; readonly record?: PrincipalRecord };

export type ApplyRequest = {
  readonly files: readonly SourceFile[];
  readonly author: Author;
  /** Digest of the register that the author looked at; `none` before the first. */
  readonly ifMatch?: string;
  /** Publish whatever stands there now. */
  readonly force?: boolean;
  readonly dryRun?: boolean;
  /** How long to wait for gates to confirm, ms. 0: not at all. */
  readonly waitMs?: number;
};

export type Comparison = {
  /** Digest of the register that stands; `none` before the first. */
  readonly against: string;
  /** Absent when the files do not make a register. */
  readonly digest?: string;
  readonly changes: readonly Change[];
  readonly problems: readonly Problem[];
};

export type Applied = Comparison & {
  /** False when nothing differs or it was a dry run: then nothing was published. */
  readonly published: boolean;
  /** `1.17`: what stands now. Absent on a dry run before the first register. */
  readonly snapshot?: string;
} & Confirmations;

export type RollbackRequest = {
  readonly version: number;
  readonly epoch?: number;
  readonly author: Author;
  readonly ifMatch?: string;
  readonly waitMs?: number;
};

export type RevokeRequest = {
  readonly author: Author;
  readonly waitMs?: number;
} & (
  | { /** Short form: `service/web`. */ readonly principal: string }
  | { readonly serial: string; readonly plane?: "data" | "control" }
);

export type Revoked = {
  readonly revocation: Revocation;
  /** `1.17`; absent before the first register. */
  readonly snapshot?: string;
  /** Enrolment tokens of the principal that were not spent and are void now. */
  readonly tokens: number;
} & Confirmations;

// No leaf lives longer than a day, and no grace longer than this: an older revocation excludes nobody who could still
// come. The store keeps it for ever, and renewals ask the store.
const carriedMs = 90 * 86_400_000;
const none = "none";
const nobody: Confirmations = { confirmed: [], missing: [] };

/** Reads what stands from the store. */
export async function openRegistry(
  store: ControlStore,
  needs: Pick<Needs, "clock" | "log" | "sign" | "feed">,
): Promise<Registry> {
  let current = await store.latestSnapshot();
  let tail: Promise<unknown> = Promise.resolve();

  /** One change at a time: each is judged against what the one before it left. */
  function inTurn<T>(change: () => Promise<T>): Promise<T> {
    const turn = tail.then(change, change);
    tail = turn.catch(() => {});
    return turn;
  }

  async function compare(files: readonly SourceFile[]): Promise<Comparison & Parsed> {
    const parsed = checkRegister(files, needs.clock());
    const standing = current?.snapshot;
    const against = standing?.digest ?? none;
    const { register } = parsed;
    if (!register) return { against, changes: [], problems: parsed.problems };
    const problems = [...parsed.problems, ...whatCannotChange(standing?.register, register)];
    const changes = diffRegisters(standing?.register, register);
    return { against, digest: registerDigest(register), changes, problems, register };
  }

  async function publish(
    register: Register,
    author: Author,
    reason: string,
    more: { readonly revocations?: readonly Revocation[]; readonly newEpoch?: boolean } = {},
  ): Promise<StoredSnapshot> {
    const before = current?.snapshot;
    const now = needs.clock();
    const carried = await store.revocations(now - carriedMs);
    const snapshot: Snapshot = {
      epoch: more.newEpoch && before ? epochAfter(before.epoch, now) : (before?.epoch ?? 1),
      version: (before?.version ?? 0) + 1,
      author: author.name,
      at: now,
      digest: registerDigest(register),
      register,
      revocations: [...carried, ...(more.revocations ?? [])],
    };
    const signed = await needs.sign(JSON.stringify(snapshot));
    const entry = { snapshot, signed, reason };
    try {
      await store.appendSnapshot(entry, before, more.revocations ?? []);
    } catch (cause) {
      if (cause instanceof Conflict) {
        current = await store.latestSnapshot();
        throw changedMeanwhile();
      }
      throw cause;
    }
    current = entry;
    return entry;
  }

  /** Tells the gates, which must not undo what is already stored, whatever happens there. */
  function tell(entry: StoredSnapshot): void {
    try {
      needs.feed.publish(entry.signed, entry.snapshot);
    } catch (cause) {
      needs.log.error(
        { err: cause },
        "the feed failed to publish; gates catch up when they reconnect",
      );
    }
  }

  async function finish(
    entry: StoredSnapshot,
    comparison: Comparison,
    waitMs: number,
  ): Promise<Applied> {
    tell(entry);
    const confirmations = waitMs > 0 ? await needs.feed.confirmed(entry.snapshot, waitMs) : nobody;
    const { against, changes, problems } = comparison;
    const { digest } = entry.snapshot;
    const snapshot = snapshotName(entry.snapshot);
    return { against, digest, changes, problems, published: true, snapshot, ...confirmations };
  }

  /** What to finish with, and the new snapshot where one was published. */
  async function apply(
    request: ApplyRequest,
  ): Promise<{ readonly comparison: Comparison; readonly entry?: StoredSnapshot }> {
    const { register, ...comparison } = await compare(request.files);
    const errors = comparison.problems.filter((problem) => problem.severity === "error");
    if (!register || errors.length > 0)
      throw new ControlRefusal("bad_register", refusedCount(errors.length), {
        problems: comparison.problems,
        hint: "sallyport check shows the same without a control plane",
      });
    refuseForeign(request.author, current?.snapshot.register, register, comparison.changes);
    if (request.dryRun) return { comparison };
    demandMatch(request, comparison.against);
    if (comparison.digest === current?.snapshot.digest) return { comparison };
    return { comparison, entry: await publish(register, request.author, "apply") };
  }

  /** Leaves of the same line that could still be shown to a gate and are not in `known`, which they join. */
  async function othersOfLine(
    { plane, lineage }: IssuedRecord,
    known: Set<string>,
    at: number,
  ): Promise<readonly Revocation[]> {
    const fresh = (await store.leavesOfLine(plane, lineage, at)).filter(
      ({ serial }) => !known.has(serial),
    );
    return fresh.map(({ principal, serial }) => {
      known.add(serial);
      const parts = parsePrincipal(principal);
      return { principal: parts ? shortName(parts) : principal, serial, lineage, at };
    });
  }

  return {
    current: () => current,
    async compare(files) {
      const { register: _, ...comparison } = await compare(files);
      return comparison;
    },
    async apply(request) {
      const { comparison, entry } = await inTurn(() => apply(request));
      // Waiting for gates is not done in turn: a gate that is slow must not hold up a revocation.
      if (entry) return await finish(entry, comparison, request.waitMs ?? 0);
      const snapshot = current && { snapshot: snapshotName(current.snapshot) };
      return { ...comparison, published: false, ...snapshot, ...nobody };
    },
    async rollback(request) {
      const { entry, comparison } = await inTurn(async () => {
        const old = await store.findSnapshot(request.version, request.epoch);
        if (!old)
          throw new ControlRefusal("not_found", `there is no version ${request.version}`, {
            hint: "sallyport history lists the versions that are kept",
          });
        const standing = current?.snapshot;
        const against = standing?.digest ?? none;
        if (request.ifMatch !== undefined && request.ifMatch !== against) throw changedMeanwhile();
        const { register, digest } = old.snapshot;
        const changes = diffRegisters(standing?.register, register);
        const entry = await publish(register, request.author, `rollback ${request.version}`);
        return { entry, comparison: { against, digest, changes, problems: [] } };
      });
      return await finish(entry, comparison, request.waitMs ?? 0);
    },
    async revoke(request) {
      const done = await inTurn(async () => {
        const target = await findTarget(request, store, current?.snapshot.register);
        // A stolen certificate must go whosever it was; a name must not when it is the last.
        if (!target.leaf) await refuseLastAdmin(target.principal, store, needs.clock());
        const { principal, leaf } = target;
        const parts = parsePrincipal(principal);
        // Not before its newest leaf: one that was issued while this clock was ahead would look later than its revocation.
        const at = leaf
          ? needs.clock()
          : Math.max(needs.clock(), await store.lastIssuedMs(principal));
        const name = parts ? shortName(parts) : principal;
        const revocation: Revocation = {
          principal: name,
          ...(leaf && { serial: leaf.serial, lineage: leaf.lineage }),
          at,
        };
        // What could bring the principal back goes first: a crash in between then leaves too little, not too much.
        const tokens = await store.deleteTokensOf(principal, needs.clock());
        if (!leaf && parts?.kind !== "service") await store.removePrincipal(principal, at);
        if (!current) throw new ControlRefusal("no_register");
        const reason = `revoke ${leaf ? leaf.serial : name}`;
        const { register } = current.snapshot;
        const known = new Set(leaf && [leaf.serial]);
        const ahead: Promise<Confirmations>[] = [];
        let revocations: readonly Revocation[] = [revocation];
        let entry: StoredSnapshot;
        do {
          // A gate sees a serial and no line, so each leaf of the line that still lives is named; again until none was issued meanwhile.
          revocations = [...revocations, ...(leaf ? await othersOfLine(leaf, known, at) : [])];
          entry = await publish(register, request.author, reason, { revocations });
          // Handed over before the turn ends, so that no later snapshot can overtake it.
          for (const one of revocations) ahead.push(needs.feed.revokeNow(one, request.waitMs ?? 0));
          tell(entry);
          revocations = leaf ? await othersOfLine(leaf, known, at) : [];
        } while (revocations.length > 0);
        return { revocation, tokens, snapshot: snapshotName(entry.snapshot), ahead };
      });
      const { ahead, ...revoked } = done;
      return { ...revoked, ...allOf(await Promise.all(ahead)) };
    },
    async startEpoch(author) {
      const entry = await inTurn(async () => {
        if (!current) throw new ControlRefusal("no_register");
        return await publish(current.snapshot.register, author, "restore", { newEpoch: true });
      });
      const { digest } = entry.snapshot;
      return await finish(entry, { against: digest, digest, changes: [], problems: [] }, 0);
    },
    history: (limit) => store.snapshotHeads(limit),
  };
}

/** Above every epoch that was ever begun from the same backup, as long as the clock has gone forward since. */
function epochAfter(epoch: number, nowMs: number): number {
  return Math.max(epoch + 1, Math.floor(nowMs / 1_000));
}

type Parsed = { readonly register?: Register };

function refusedCount(errors: number): string {
  return errors === 1 ? "the register has an error" : `the register has ${errors} errors`;
}

/** What is baked into certificates cannot change under them. */
function whatCannotChange(before: Register | undefined, after: Register): Problem[] {
  if (!before || before.trustDomain === after.trustDomain) return [];
  return [
    {
      code: "trust-domain-fixed",
      severity: "error",
      path: "trustDomain",
      message: `the trust domain cannot change from ${before.trustDomain} to ${after.trustDomain}: every certificate names it`,
      hint: "start a control plane of its own, with a state directory of its own, for the new trust domain",
    },
  ];
}

function demandMatch(request: ApplyRequest, against: string): void {
  if (request.force) return;
  if (request.ifMatch === undefined)
    throw new ControlRefusal("precondition_required", undefined, {
      hint: "send If-Match with the ETag of the register you looked at, or force=true to replace whatever stands there",
    });
  if (request.ifMatch !== against) throw changedMeanwhile();
}

function changedMeanwhile(): ControlRefusal {
  return new ControlRefusal("changed_meanwhile", undefined, {
    hint: "look again (sallyport diff) and apply again; sallyport history says who it was",
  });
}

/**
 * A deployer changes only services whose owner, before and after, is one of its own, and points none at a unix socket. Fails closed: whatever is not inside such
 * a service (planes and their `unsafeBind`, networks, lifetimes, and anything new that the register may learn) is not its.
 */
function refuseForeign(
  author: Author,
  before: Register | undefined,
  after: Register,
  changes: readonly Change[],
): void {
  if (!author.record || author.record.role === "admin") return;
  const owners = author.record.role === "deployer" ? author.record.owners : [];
  const owns = (service: Service | undefined) => !service || owners.includes(service.owner);
  const foreign = changes.filter(({ path }) => {
    const [top, name = ""] = path.split(/[.[]/);
    if (top !== "services" || name === "") return true;
    return !owns(own(before?.services, name)) || !owns(own(after.services, name));
  });
  const sockets = newSockets(before, after);
  if (foreign.length === 0 && sockets.length === 0) return;
  throw new ControlRefusal("not_yours", `${author.name} may not change this`, {
    problems: [
      ...foreign.map(({ path }) => ({
        code: "not-yours",
        severity: "error" as const,
        path,
        message: `${author.name} deploys for ${owners.join(", ") || "nobody"}, and this is not theirs`,
      })),
      ...sockets.map((path) => ({
        code: "socket-needs-admin",
        severity: "error" as const,
        path,
        message: "a gate opens unix sockets as its own user: only an admin says which",
      })),
    ],
    hint: "ask an admin to apply it, or leave it as it stands",
  });
}

/**
 * Ports whose gate would open a socket that it does not open for them now. What a gate's user may open (a container engine's
 * socket, a database's) is more than a service's owner has to give.
 */
function newSockets(before: Register | undefined, after: Register): string[] {
  const socketsOf = (port: Port | undefined): string[] =>
    port?.via === "gate"
      ? port.upstreams.flatMap((upstream) => (upstream.kind === "unix" ? [upstream.path] : []))
      : [];
  return Object.values(after.services).flatMap((service) =>
    Object.values(service.ports).flatMap((port) => {
      const old = own(before?.services, service.name)?.ports;
      const known = socketsOf(old && Object.hasOwn(old, port.name) ? old[port.name] : undefined);
      return socketsOf(port).some((path) => !known.includes(path))
        ? [`services.${service.name}.ports.${port.name}.upstreams`]
        : [];
    }),
  );
}

function own(services: Register["services"] | undefined, name: string): Service | undefined {
  return services && Object.hasOwn(services, name) ? services[name] : undefined;
}

async function findTarget(
  request: RevokeRequest,
  store: ControlStore,
  register: Register | undefined,
): Promise<{ readonly principal: Principal; readonly leaf?: IssuedRecord }> {
  if ("serial" in request) {
    const planes = request.plane ? [request.plane] : (["data", "control"] as const);
    for (const plane of planes) {
      const leaf = await store.findIssued(plane, request.serial);
      if (leaf) return { principal: leaf.principal, leaf };
    }
    throw new ControlRefusal(
      "not_found",
      `no certificate with serial ${request.serial} was issued here`,
      {
        hint: "serials are lower-case hex, as sallyport hits and openssl x509 -serial print them",
      },
    );
  }
  const parts = register && parsePrincipal(`spiffe://${register.trustDomain}/${request.principal}`);
  if (!parts)
    throw new ControlRefusal("not_found", `"${request.principal}" is not a principal`, {
      hint: "principals are written kind/name, like service/web or gate/g1",
    });
  const principal = principalOf(parts);
  // A service that was taken out of the register may still hold a leaf. A name that nobody ever held is a slip of the pen,
  // and whoever made it must not believe that somebody was cut off.
  const isKnown =
    parts.kind === "service"
      ? (await store.isRegistered(principal)) ||
        (await store.newestLeaves(0)).some((leaf) => leaf.principal === principal)
      : (await store.findPrincipal(principal)) !== undefined;
  if (!isKnown)
    throw new ControlRefusal("not_found", `there is no ${request.principal}`, {
      hint: "services stand in the register; sallyport status lists gates",
    });
  return { principal };
}

/** Fails closed: an administrator who was invited and never came, or whose leaf has ended, can administer nothing. */
async function refuseLastAdmin(
  principal: Principal,
  store: ControlStore,
  nowMs: number,
): Promise<void> {
  const admins = (await store.principals()).filter(
    (record) => record.role === "admin" && record.removedMs === undefined,
  );
  if (!admins.some((record) => record.principal === principal)) return;
  const living = new Set((await store.newestLeaves(nowMs)).map((leaf) => leaf.principal));
  if (admins.some((record) => record.principal !== principal && living.has(record.principal)))
    return;
  throw new ControlRefusal("last_admin", undefined, {
    hint: "make another first, and let it enrol: sallyport token create --role admin --name NAME",
  });
}

function allOf(all: readonly Confirmations[]): Confirmations {
  const missing = new Set(all.flatMap((one) => one.missing));
  const confirmed = new Set(all.flatMap((one) => one.confirmed));
  return {
    confirmed: [...confirmed].filter((gate) => !missing.has(gate)).sort(),
    missing: [...missing].sort(),
  };
}
