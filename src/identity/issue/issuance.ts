import { createHash, timingSafeEqual, X509Certificate } from "node:crypto";
import { setImmediate as turn } from "node:timers/promises";
import { compileCidrs } from "../../base/address.ts";
import type { Clock } from "../../base/clock.ts";
import { type IssuedRecord, type Role, type TokenRecord, tokenLifeMs } from "../../model/issued.ts";
import {
  type Plane,
  type Principal,
  type PrincipalParts,
  parsePrincipal,
  principalKinds,
  shortName,
} from "../../model/principal.ts";
import { publicKeyOf } from "../../policy/peer.ts";
import type { Authority, SignedLeaf } from "../authority/authority.ts";
import type { Purpose } from "../authority/certificates.ts";
import type { IssuanceStore } from "../needs.ts";
import { makeToken, parseToken, tokenHash } from "../token.ts";
import { type JudgedLeaf, judgeLeaf } from "./judge-leaf.ts";
import { type ProvenKey, readCsr } from "./read-csr.ts";
import { IssueRefused } from "./refused.ts";

/** Who gets which leaf. Every refusal is an `IssueRefused`; all else that is thrown is a fault, and nothing was issued. */
export type Issuance = {
  /** Throws `not_registered` for a service that the register does not name, a `TypeError` or `RangeError` on nonsense. */
  createToken(
    request: TokenRequest,
  ): Promise<{ readonly token: string; readonly record: TokenRecord }>;
  enrol(request: EnrolRequest): Promise<EnrolAnswer>;
  renew(request: RenewRequest): Promise<RenewAnswer>;
  /** Without token or registration: for control's own leaf and the first administrator. Never reachable from a door. */
  issueDirect(request: DirectRequest): Promise<DirectAnswer>;
};

export type IssuanceOptions = {
  readonly store: IssuanceStore;
  readonly authorities: Readonly<Record<Plane, Authority>>;
  readonly trustDomain: string;
  readonly clock: Clock;
  /** Lifetime of the principal's leaves, ms; kept between 5 min and 24 h. */
  readonly leafMs: (principal: Principal) => number;
  /** SPKI PEM of the key that signs snapshots: what gates pin. */
  readonly snapshotKeyPem: string;
  /** `host:port` of the join door, as callers reach it. */
  readonly joinAddress: () => string;
  /** Whether the register has a gated port of that DNS name that the gate (its bare name) stands for. */
  readonly mayServe: (gate: string, dnsName: string) => boolean;
  /** A leaf was issued and stored: for the hit log. Not called when one is fetched again. */
  readonly onIssued?: (leaf: IssuedRecord) => void;
  /** Must revoke these leaves' lineages and warn: a token came with a second key, so one of the two was not meant to have it. */
  readonly onTokenReuse: (token: TokenRecord, issued: readonly IssuedRecord[]) => Promise<void>;
  /** Must warn: two holders renew from one leaf, so its key was copied. */
  readonly onLineageFork: (leaf: IssuedRecord, successor: IssuedRecord) => Promise<void>;
};

export type TokenRequest = {
  readonly principal: Principal;
  readonly role?: Role;
  /** CIDRs. */
  readonly from?: readonly string[];
  /** Short form: `admin/first`. */
  readonly createdBy: string;
  /** 1 min to 24 h. Default 10 min. */
  readonly ttlMs?: number;
};

export type EnrolRequest = {
  readonly token: string;
  /** PEM PKCS#10: everybody's but a gate's. */
  readonly csr?: string;
  /** A gate's two, with two different keys. */
  readonly controlCsr?: string;
  readonly dataCsr?: string;
  /** IP address that it came from: tokens may be bound to networks. */
  readonly peerAddress: string;
};

/** What the join door answers: PEM texts. */
export type EnrolAnswer = {
  readonly leaves: { readonly [plane in Plane]?: IssuedLeaf };
  readonly principal: Principal;
  /** Roots that the join door is judged by from now on. */
  readonly controlBundle: string;
  /** For gates. */
  readonly snapshotKey?: string;
};

export type IssuedLeaf = { readonly chain: string; readonly bundle: string };

export type RenewRequest = {
  /** Absent: asks for leaves of names alone, under the key of `leaf`. */
  readonly csr?: string;
  /** DNS names that a gate serves, at most 64 a request; they share the key of the request. */
  readonly names?: readonly string[];
  /** Its key was proven in the handshake; all else about it is judged here from scratch. */
  readonly leaf: X509Certificate;
  readonly plane: Plane;
  readonly peerAddress: string;
};

export type RenewAnswer = IssuedLeaf & {
  readonly controlBundle: string;
  /** By DNS name; those that the register does not (or no longer) give to the gate are left out. */
  readonly names?: Readonly<Record<string, { readonly chain: string }>>;
};

export type DirectRequest = {
  readonly principal: Principal;
  readonly plane: Plane;
  /** DER. */
  readonly publicKeySpki: Uint8Array;
  /** Default: `leafMs` of the principal. */
  readonly ttlMs?: number;
};

export type DirectAnswer = IssuedLeaf & { readonly record: IssuedRecord };

const minuteMs = 60_000;
const leafMsRange = [5 * minuteMs, 24 * 60 * minuteMs] as const;
const namesMax = 64;

/** Fails closed throughout: what the store does not know, does not say or cannot say is a no. */
export function createIssuance(options: IssuanceOptions): Issuance {
  const { store, authorities, trustDomain, clock } = options;
  const alone = createLocks();
  const mayRenew = createPace(clock, { everyMs: 5_000, burst: 20 });
  // Names cost as much by the batch; a gate that starts anew with all the names there can be is not held up.
  const mayName = createPace(clock, { everyMs: 500, burst: 1_024 });

  return {
    async createToken(request) {
      const parts = partsOf(request.principal);
      assertTokenMakesSense(parts, request);
      if (parts.kind === "service" && !(await store.isRegistered(request.principal)))
        throw refuse("not_registered", parts, "no such service in the register");
      const ttlMs = request.ttlMs ?? tokenLifeMs.byDefault;
      if (!(ttlMs >= tokenLifeMs.min && ttlMs <= tokenLifeMs.max))
        throw new RangeError("a token lives between 1 minute and 24 hours");
      const from = request.from ?? [];
      compileCidrs(from); // throws on what is no range
      const { token, hash } = makeToken({
        fingerprint: authorities.control.fingerprint(),
        join: options.joinAddress(),
      });
      const now = clock();
      const record: TokenRecord = {
        hash,
        principal: request.principal,
        ...(request.role && { role: request.role }),
        createdBy: request.createdBy,
        createdMs: now,
        expiresMs: now + ttlMs,
        from,
      };
      await store.saveToken(record);
      return { token, record };
    },

    async enrol(request) {
      const parts = parseToken(request.token);
      if (!parts) throw new IssueRefused("token_malformed");
      const hash = tokenHash(parts.secret);
      // Two requests with one token wait for each other, so that "first" means something.
      return alone(hash, () => enrolAlone(hash, request));
    },

    async renew(request) {
      const judged = judgeLeaf(request.leaf, request.plane, { authorities, nowMs: clock() });
      const leaf = await store.findIssued(judged.plane, judged.serial);
      const isRecorded =
        leaf?.principal === judged.uri &&
        leaf.plane === judged.plane &&
        // A stolen issuing key can copy a serial of ours, but not the key that it was issued for.
        leaf.publicKey === publicKeyOf(request.leaf);
      if (!isRecorded)
        throw refuse(
          "unknown_leaf",
          judged.principal,
          "the certificate is not on record here; enrol again",
        );
      const may = request.csr === undefined ? mayName : mayRenew;
      if (!may(leaf.lineage)) throw refuse("rate_limited", judged.principal);
      // One renewal of a line at a time: of two at once, the second must see what the first was given.
      return alone(leaf.lineage, () => renewAlone(judged, leaf, request));
    },

    async issueDirect(request) {
      const parts = partsOf(request.principal);
      const key = { spki: request.publicKeySpki, id: thumbprint(request.publicKeySpki) };
      const record = await issue(parts, request.plane, key, {
        at: clock(),
        via: "init",
        ...(request.ttlMs !== undefined && { ttlMs: request.ttlMs }),
      });
      return { ...present(record), record };
    },
  };

  async function enrolAlone(hash: string, request: EnrolRequest): Promise<EnrolAnswer> {
    const now = clock();
    const token = await store.findToken(hash);
    if (!token || !isSame(token.hash, hash)) throw new IssueRefused("token_unknown");
    const parts = partsOf(token.principal);
    if (now >= token.expiresMs) throw refuse("token_expired", parts);
    if (token.from.length > 0 && !compileCidrs(token.from)(request.peerAddress))
      throw refuse("wrong_network", parts);
    await assertMayEnrol(parts, token);
    // Before the token is spent: a request that cannot be used costs nobody a token.
    const keys = await readKeys(parts, request);
    const keyId = Object.values(keys)
      .map((key) => key.id)
      .join(".");
    const spender = keys.control && keys.data ? thumbprint(Buffer.from(keyId)) : keyId;
    const spent = await store.spendToken(hash, spender, now);
    if (!spent.spentBy || !isSame(spent.spentBy, spender)) {
      await options.onTokenReuse(spent, await store.issuedByToken(hash));
      throw refuse("token_spent", parts);
    }
    const at = await afterRevocations(token.principal);
    const leaves: { [plane in Plane]?: IssuedLeaf } = {};
    for (const [plane, key] of Object.entries(keys) as [Plane, ProvenKey][])
      leaves[plane] = present(await leafForToken(parts, plane, key, { hash, now: at }));
    return {
      leaves,
      principal: token.principal,
      controlBundle: authorities.control.bundlePem(),
      ...(parts.kind === "gate" && { snapshotKey: options.snapshotKeyPem }),
    };
  }

  /** The token is the registration of everybody but services, who stand in the register; a revocation after it was made undoes it. */
  async function assertMayEnrol(parts: PrincipalParts, token: TokenRecord): Promise<void> {
    const { principal, createdMs } = token;
    if (parts.kind === "service" && !(await store.isRegistered(principal)))
      throw refuse("not_registered", parts);
    if (await store.isRevoked({ principal, serial: "", lineage: "", at: createdMs }))
      throw refuse("revoked", parts, "the principal was revoked after this token was made");
  }

  /**
   * The time to issue at. Certificates count in whole seconds, so a leaf that is issued within the same second as a revocation
   * of its principal would look older than that, and be out for all its life: wait for the next second.
   */
  async function afterRevocations(principal: Principal): Promise<number> {
    const now = clock();
    const since = now % 1_000;
    const isBarred = await store.isRevoked({ principal, serial: "", lineage: "", at: now - since });
    if (!isBarred) return now;
    await new Promise((resolve) => setTimeout(resolve, 1_000 - since));
    return clock();
  }

  async function readKeys(
    parts: PrincipalParts,
    request: EnrolRequest,
  ): Promise<{ [plane in Plane]?: ProvenKey }> {
    if (parts.kind !== "gate") {
      if (request.csr === undefined)
        throw refuse("csr_invalid", parts, 'send one request, as "csr"');
      const [plane] = principalKinds[parts.kind];
      return { [plane]: await readCsr(request.csr) };
    }
    if (request.controlCsr === undefined || request.dataCsr === undefined)
      throw refuse("csr_invalid", parts, 'a gate sends two requests, "controlCsr" and "dataCsr"');
    const control = await readCsr(request.controlCsr);
    const data = await readCsr(request.dataCsr);
    if (control.id === data.id)
      throw refuse("key_reused", parts, "the two planes need two different keys");
    return { control, data };
  }

  /** The same key that spent the token is given the same leaf again, as long as the leaf can be used. */
  async function leafForToken(
    parts: PrincipalParts,
    plane: Plane,
    key: ProvenKey,
    token: { readonly hash: string; readonly now: number },
  ): Promise<IssuedRecord> {
    const issued = await store.issuedByToken(token.hash);
    const mine = issued.find((leaf) => leaf.plane === plane && leaf.publicKey === key.id);
    if (mine && (await store.isRevoked(mine))) throw refuse("revoked", parts);
    if (mine && mine.notAfterMs > token.now && chainOf(mine)) return mine;
    return issue(parts, plane, key, {
      at: token.now,
      via: "token",
      token: token.hash,
      ...(mine && { after: mine }),
    });
  }

  async function renewAlone(
    { principal: parts, plane, uri, notAfterMs, isExpired }: JudgedLeaf,
    leaf: IssuedRecord,
    request: RenewRequest,
  ): Promise<RenewAnswer> {
    // Taken before anything is asked: a revocation that arrives meanwhile is later than the new leaf, and covers it.
    const now = clock();
    if (await store.isRevoked(leaf)) throw refuse("revoked", parts);
    if (!(await store.isRegistered(uri))) throw refuse("not_registered", parts);
    if (isExpired) {
      const graceMs = await store.graceMs(uri);
      if (!(graceMs > 0) || now >= notAfterMs + graceMs)
        throw refuse("expired", parts, "the certificate has expired; enrol again");
    }
    const names = [...new Set(request.names ?? [])];
    if (names.length > 0 && (parts.kind !== "gate" || plane !== "data"))
      throw refuse("names_not_allowed", parts);
    if (names.length > namesMax)
      throw refuse("names_not_allowed", parts, `ask for at most ${namesMax} names at a time`);
    if (request.csr === undefined) {
      if (names.length === 0) throw refuse("csr_invalid", parts, 'send a request, as "csr"');
      if (isExpired) throw refuse("expired", parts, "renew the certificate first");
      const spki = request.leaf.publicKey.export({ format: "der", type: "spki" });
      const held = { spki, id: leaf.publicKey };
      const own = { ...leaf, at: now, via: "renewal" as const };
      return {
        ...present(leaf),
        controlBundle: authorities.control.bundlePem(),
        names: await issueNames(parts, names, held, own),
      };
    }
    const key = await readCsr(request.csr);
    if (key.id === leaf.publicKey) throw refuse("key_reused", parts);
    const successor = await successorFor(leaf, key, parts);
    const renewed =
      successor && successor.notAfterMs > now && chainOf(successor)
        ? successor
        : await issue(parts, plane, key, {
            at: now,
            via: isExpired ? "grace" : "renewal",
            after: successor ?? leaf,
          });
    return {
      ...present(renewed),
      controlBundle: authorities.control.bundlePem(),
      ...(names.length > 0 && { names: await issueNames(parts, names, key, renewed) }),
    };
  }

  /**
   * The last leaf that this key already got from this predecessor: its answer was lost on the way. Another key means that two
   * hold the predecessor.
   */
  async function successorFor(
    leaf: IssuedRecord,
    key: ProvenKey,
    parts: PrincipalParts,
  ): Promise<IssuedRecord | undefined> {
    let last: IssuedRecord | undefined;
    for (;;) {
      const next = await store.successorOf(leaf.plane, (last ?? leaf).serial);
      if (!next) return last;
      if (next.publicKey !== key.id) {
        await options.onLineageFork(leaf, next);
        throw refuse("fork", parts);
      }
      if (await store.isRevoked(next)) throw refuse("revoked", parts);
      last = next;
    }
  }

  /** One leaf per name, so that SNI chooses; serverAuth alone, so that none of them can renew or call. */
  async function issueNames(
    parts: PrincipalParts,
    names: readonly string[],
    key: ProvenKey,
    own: IssuedRecord,
  ): Promise<Record<string, { chain: string }>> {
    const chains: Record<string, { chain: string }> = Object.create(null);
    for (const name of names) {
      if (!options.mayServe(parts.name, name)) continue;
      const leaf = await authorities.data.signWithClock(
        {
          publicKeySpki: key.spki,
          principal: own.principal,
          dnsNames: [name],
          purpose: "server",
          ttlMs: Math.min(Math.max(options.leafMs(own.principal), leafMsRange[0]), leafMsRange[1]),
        },
        () => own.at,
      );
      // Whoever else called meanwhile is answered between two leaves.
      await turn();
      await save(leaf, { ...own, predecessor: undefined });
      chains[name] = { chain: leaf.chainPem };
    }
    return chains;
  }

  async function issue(
    parts: PrincipalParts,
    plane: Plane,
    key: ProvenKey,
    cause: {
      readonly at: number;
      readonly via: IssuedRecord["via"];
      readonly token?: string;
      readonly after?: IssuedRecord;
      readonly ttlMs?: number;
    },
  ): Promise<IssuedRecord> {
    const principal = `spiffe://${parts.trustDomain}/${shortName(parts)}` as Principal;
    const wantedMs = cause.ttlMs ?? options.leafMs(principal);
    const leaf = await authorities[plane].signWithClock(
      {
        publicKeySpki: key.spki,
        principal,
        ...useOf(parts, plane),
        ttlMs: Math.min(Math.max(wantedMs, leafMsRange[0]), leafMsRange[1]),
      },
      () => cause.at,
    );
    const record = await save(leaf, {
      plane,
      principal,
      publicKey: key.id,
      at: cause.at,
      via: cause.via,
      lineage: cause.after?.lineage,
      predecessor: cause.after?.serial,
      token: cause.token,
    });
    // Asked again now that it is on record: a revocation that came while it was being signed knew nothing of it.
    if (cause.via !== "init" && (await store.isRevoked(record))) throw refuse("revoked", parts);
    return record;
  }

  /** On record before it leaves: a leaf that nobody remembers could never be revoked by its lineage. */
  async function save(
    leaf: SignedLeaf,
    of: Pick<IssuedRecord, "plane" | "principal" | "publicKey" | "at" | "via"> & {
      readonly lineage: string | undefined;
      readonly predecessor: string | undefined;
      readonly token?: string | undefined;
    },
  ): Promise<IssuedRecord> {
    const record: IssuedRecord = {
      plane: of.plane,
      serial: leaf.serial,
      principal: of.principal,
      lineage: of.lineage ?? leaf.serial,
      ...(of.predecessor !== undefined && { predecessor: of.predecessor }),
      ...(of.token !== undefined && { token: of.token }),
      publicKey: of.publicKey,
      certPem: leaf.certPem,
      notBeforeMs: leaf.notBeforeMs,
      notAfterMs: leaf.notAfterMs,
      at: of.at,
      via: of.via,
    };
    await store.saveIssued(record);
    options.onIssued?.(record);
    return record;
  }

  function present(record: IssuedRecord): IssuedLeaf {
    const authority = authorities[record.plane];
    const chain = chainOf(record);
    if (!chain) throw new Error("the leaf's issuing certificate is no longer trusted");
    // A server that is pinned by its root's fingerprint has to show that root.
    const isPinned = partsOf(record.principal).kind === "control";
    return { chain: isPinned ? chain + authority.rootPem() : chain, bundle: authority.bundlePem() };
  }

  /** The leaf and the issuing certificate that signed it; undefined once that one's root was retired. */
  function chainOf(record: IssuedRecord): string | undefined {
    const leaf = new X509Certificate(record.certPem);
    const found = authorities[record.plane]
      .issuers()
      .find(({ issuing }) => leaf.checkIssued(issuing) && leaf.verify(issuing.publicKey));
    return found && `${record.certPem.trim()}\n${found.issuing.toString().trim()}\n`;
  }

  function useOf(parts: PrincipalParts, plane: Plane): { dnsNames: string[]; purpose: Purpose } {
    if (parts.kind === "control")
      return { dnsNames: [`control.${trustDomain}`, "localhost"], purpose: "server" };
    if (parts.kind === "gate" && plane === "data")
      return { dnsNames: [`${parts.name}.gate.${trustDomain}`], purpose: "both" };
    return { dnsNames: [], purpose: "client" };
  }

  function partsOf(principal: Principal): PrincipalParts {
    const parts = parsePrincipal(principal);
    if (parts?.trustDomain !== trustDomain)
      throw new TypeError(`not a principal of ${trustDomain}: ${principal}`);
    return parts;
  }
}

function assertTokenMakesSense(parts: PrincipalParts, request: TokenRequest): void {
  if (parts.kind === "control") throw new TypeError("a control plane does not enrol");
  const hasRole = parts.kind !== "service" && parts.kind !== "gate";
  if (hasRole !== (request.role !== undefined))
    throw new TypeError(`a ${parts.kind} ${hasRole ? "needs a role" : "has no role"}`);
}

function refuse(code: IssueRefused["code"], parts: PrincipalParts, message?: string): IssueRefused {
  return new IssueRefused(code, { principal: shortName(parts), ...(message && { message }) });
}

function thumbprint(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("base64url");
}

/** In a time that says nothing about where two texts differ. */
function isSame(a: string, b: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}

/** One piece of work at a time for each name; forgets a name when nobody waits for it. */
function createLocks(): <T>(name: string, work: () => Promise<T>) => Promise<T> {
  const last = new Map<string, Promise<unknown>>();
  return async (name, work) => {
    const mine = (last.get(name) ?? Promise.resolve()).then(work, work);
    last.set(name, mine);
    try {
      return await mine;
    } finally {
      if (last.get(name) === mine) last.delete(name);
    }
  };
}

/** Each renewal signs, and stays in the store for months: one line gets `burst` at once, and one every `everyMs` (GCRA). */
function createPace(
  clock: Clock,
  { burst, everyMs }: { readonly burst: number; readonly everyMs: number },
): (lineage: string) => boolean {
  // The longest quiet first: whoever is dropped there has paid long ago.
  const paidUntilMs = new Map<string, number>();
  return (lineage) => {
    const now = clock();
    const known = paidUntilMs.get(lineage) ?? 0;
    // More than can be owed: the clock was set back since, and nobody has to wait for it to return.
    const owesMs = known - now > burst * everyMs ? 0 : Math.max(0, known - now);
    const until = now + owesMs + everyMs;
    if (until - now > burst * everyMs) return false;
    paidUntilMs.delete(lineage);
    paidUntilMs.set(lineage, until);
    const [quietest] = paidUntilMs.keys();
    if (paidUntilMs.size > linesPacedMax && quietest !== undefined) paidUntilMs.delete(quietest);
    return true;
  };
}

const linesPacedMax = 10_000;
