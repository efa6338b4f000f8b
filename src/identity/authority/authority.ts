import { randomBytes, X509Certificate } from "node:crypto";
import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { keyId } from "../../base/signature.ts";
import type { RootFacts, RotationState } from "../../model/issued.ts";
import {
  isTrustDomain,
  type Plane,
  type Principal,
  parsePrincipal,
  principalKinds,
} from "../../model/principal.ts";
import { draftEnd, makePrivateDirectory, writeFileDurably } from "../durable-files.ts";
import { makeIssuing, makeLeaf, makeRoot, type Purpose, signingKey } from "./certificates.ts";

/** One plane's certificate authority: the only code that sees its keys. */
export type Authority = {
  readonly plane: Plane;
  readonly trustDomain: string;
  /**
   * Every root that is trusted now, the active one first, then their issuing certificates: under Node 24 a server is not shown
   * what a client sends above its leaf, so whoever judges leaves has to have the link at hand.
   */
  bundlePem(): string;
  /** The root that signs now: appended to the chain of a server that is pinned by its fingerprint. */
  rootPem(): string;
  /** SHA-256 of the active root's SPKI, base64url. */
  fingerprint(): string;
  /** Every issuing certificate under a trusted root, beside its root: to judge a leaf link by link. */
  issuers(): readonly Issuer[];
  /** Decides nothing: whether the principal may have a leaf is for `issue` to say. Throws a `TypeError` on a request that makes no sense. */
  sign(request: SignRequest): Promise<SignedLeaf>;
  /** The same under another clock, so that an expired leaf can be made for the demo and for tests. */
  signWithClock(request: SignRequest, clock: Clock): Promise<SignedLeaf>;
  rotation(): RotationState;
  /** Step one: a new root joins the bundle; the old one still signs. */
  prepare(): Promise<RotationState>;
  /** Step two: the new root's issuing key signs. Refused until every leaf has had time to fetch the new bundle, unless forced. */
  activate(options?: { readonly force?: boolean }): Promise<RotationState>;
  /** Step three: the old root leaves the bundle and its keys are deleted. Refused while leaves under it may be valid, unless forced. */
  retire(options?: { readonly force?: boolean }): Promise<RotationState>;
};

export type Issuer = { readonly issuing: X509Certificate; readonly root: X509Certificate };

export type SignRequest = {
  /** DER; P-256. */
  readonly publicKeySpki: Uint8Array;
  readonly principal: Principal;
  readonly dnsNames: readonly string[];
  readonly purpose: Purpose;
  /** 1 s to 24 h, counted from now; the leaf begins 60 s earlier. */
  readonly ttlMs: number;
};

export type SignedLeaf = {
  readonly certPem: string;
  /** The leaf, then its issuing certificate. */
  readonly chainPem: string;
  /** Lower-case hex. */
  readonly serial: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
};

/** A step of a rotation that may not be taken now; the message says why and what to do. */
export class RotationRefused extends Error {
  readonly code: "wrong_step" | "too_early";
  constructor(code: RotationRefused["code"], message: string) {
    super(message);
    this.code = code;
  }
}

/** Leaves begin a minute ago, for peers whose clocks are behind. */
export const backdateMs = 60_000;
const longestLeafMs = 24 * 3_600_000;
// An issuing certificate is replaced, under the same root, well before a leaf could outlive it.
const issuingReserveMs = 30 * 24 * 3_600_000;

/**
 * Loads the authority kept in `dir`, or makes one on first use (directories 0700, files 0600). Every change of state is one
 * rename of `state.json`; directories that no state names are leftovers of a crash, and are removed. One process at a time.
 * Throws when what is there cannot be read or belongs to another plane or trust domain.
 */
export async function openAuthority(options: {
  readonly dir: string;
  readonly plane: Plane;
  readonly trustDomain: string;
  readonly clock: Clock;
}): Promise<Authority> {
  const { dir, plane, trustDomain, clock } = options;
  if (!isTrustDomain(trustDomain)) throw new TypeError(`not a trust domain: ${trustDomain}`);
  await makePrivateDirectory(dir);
  let state = await readState(dir, plane, trustDomain);
  if (!state) {
    const first = await makeGeneration();
    state = { version: 1, plane, trustDomain, step: "steady", active: first.id, roots: [first] };
    await writeState(state);
  }
  await removeLeftovers(dir, state);
  let loaded = await load(dir, state);
  let last: Promise<unknown> = Promise.resolve();

  /** One change at a time: two steps of a rotation never cross. */
  function alone<T>(work: () => Promise<T>): Promise<T> {
    const done = last.then(work, work);
    last = done.catch(() => {});
    return done;
  }

  async function writeState(next: State): Promise<void> {
    await writeFileDurably(join(dir, "state.json"), `${JSON.stringify(next, null, 2)}\n`);
  }

  /** Becomes true on disk first, in memory second. */
  async function become(next: State): Promise<void> {
    const nextLoaded = await load(dir, next);
    await writeState(next);
    state = next;
    loaded = nextLoaded;
    await removeLeftovers(dir, next);
  }

  async function makeGeneration(): Promise<Generation> {
    const now = clock();
    const id = randomBytes(4).toString("hex");
    const of = { plane, trustDomain, id };
    const root = await makeRoot(of, now);
    const signer = { certPem: root.certPem, key: await signingKey(root.keyPem) };
    const issuing = await makeIssuing({ ...of, id: `${id}-1` }, signer, now);
    await makePrivateDirectory(join(dir, id));
    await writeFileDurably(join(dir, id, "root.pem"), root.certPem);
    await writeFileDurably(join(dir, id, "root-key.pem"), root.keyPem);
    await writeFileDurably(join(dir, id, "issuing-1.pem"), issuing.certPem);
    await writeFileDurably(join(dir, id, "issuing-1-key.pem"), issuing.keyPem);
    return { id, createdMs: now, issuing: 1, longestTtlMs: 0 };
  }

  /** The active generation with what this leaf needs of it: an issuing certificate that outlives it, its lifetime on record. */
  async function ready(ttlMs: number, now: number): Promise<LoadedGeneration> {
    const current = activeOf(loaded);
    const issuingEndsMs = Date.parse(current.issuing.cert.validTo);
    if (ttlMs <= current.facts.longestTtlMs && issuingEndsMs - now > issuingReserveMs)
      return current;
    return alone(async () => {
      let facts = activeOf(loaded).facts;
      if (ttlMs > facts.longestTtlMs) facts = { ...facts, longestTtlMs: ttlMs };
      if (Date.parse(activeOf(loaded).issuing.cert.validTo) - now <= issuingReserveMs)
        facts = await replaceIssuing(facts, now);
      if (facts !== activeOf(loaded).facts)
        await become({
          ...loaded.state,
          roots: loaded.state.roots.map((root) => (root.id === facts.id ? facts : root)),
        });
      return activeOf(loaded);
    });
  }

  async function replaceIssuing(facts: Generation, now: number): Promise<Generation> {
    const rootKeyPem = await readIfThere(join(dir, facts.id, "root-key.pem"));
    if (rootKeyPem === undefined) {
      // The root's key is kept offline: sign on for as long as the old issuing certificate lasts.
      if (Date.parse(activeOf(loaded).issuing.cert.validTo) - now > longestLeafMs) return facts;
      throw new Error(
        `the ${plane} issuing certificate is about to expire and ${facts.id}/root-key.pem is not there: bring it back, or rotate the authority`,
      );
    }
    const number = facts.issuing + 1;
    const root = {
      certPem: activeOf(loaded).root.toString(),
      key: await signingKey(rootKeyPem),
    };
    const made = await makeIssuing({ plane, trustDomain, id: `${facts.id}-${number}` }, root, now);
    await writeFileDurably(join(dir, facts.id, `issuing-${number}-key.pem`), made.keyPem);
    await writeFileDurably(join(dir, facts.id, `issuing-${number}.pem`), made.certPem);
    return { ...facts, issuing: number };
  }

  async function signWithClock(request: SignRequest, clockOfLeaf: Clock): Promise<SignedLeaf> {
    assertSensible(request, plane, trustDomain);
    const { issuing } = await ready(request.ttlMs, clock());
    const now = clockOfLeaf();
    const leaf = await makeLeaf(
      { ...request, notBeforeMs: now - backdateMs, notAfterMs: now + request.ttlMs },
      { certPem: issuing.certPem, key: issuing.key },
    );
    return {
      ...leaf,
      certPem: `${leaf.certPem}\n`,
      chainPem: `${leaf.certPem}\n${issuing.certPem}`,
    };
  }

  function rotation(): RotationState {
    const { step, active, other, sinceMs } = loaded.state;
    const activeFacts = rootFacts(generation(loaded, active));
    if (step === "steady" || other === undefined || sinceMs === undefined)
      return { step: "steady", active: activeFacts };
    const otherFacts = rootFacts(generation(loaded, other));
    // Prepared: each holder of a leaf of the old root has asked for a new one, and got the bundle with it.
    // Activated: each leaf that the old root signed has ended.
    const signer = step === "prepared" ? active : other;
    const readyAtMs = sinceMs + generation(loaded, signer).facts.longestTtlMs;
    return step === "prepared"
      ? { step, active: activeFacts, next: otherFacts, readyAtMs }
      : { step, active: activeFacts, previous: otherFacts, readyAtMs };
  }

  function assertStep(wanted: RotationState["step"], asked: string, force: boolean): void {
    const now = rotation();
    if (now.step !== wanted)
      throw new RotationRefused(
        "wrong_step",
        `the ${plane} authority cannot ${asked} now: its rotation is ${now.step}, and ${nextStep[now.step]}`,
      );
    if (!force && now.readyAtMs !== undefined && clock() < now.readyAtMs)
      throw new RotationRefused(
        "too_early",
        `the ${plane} authority should not ${asked} before ${new Date(now.readyAtMs).toISOString()}: until then ${tooEarly[now.step]}`,
      );
  }

  return {
    plane,
    trustDomain,
    bundlePem: () => loaded.bundlePem,
    rootPem: () => activeOf(loaded).rootPem,
    fingerprint: () => fingerprintOf(activeOf(loaded).root),
    issuers: () => loaded.issuers,
    sign: (request) => signWithClock(request, clock),
    signWithClock,
    rotation,
    prepare: () =>
      alone(async () => {
        assertStep("steady", "prepare", true);
        const next = await makeGeneration();
        await become({
          ...loaded.state,
          step: "prepared",
          other: next.id,
          sinceMs: clock(),
          roots: [...loaded.state.roots, next],
        });
        return rotation();
      }),
    activate: ({ force = false } = {}) =>
      alone(async () => {
        assertStep("prepared", "activate", force);
        const { active, other = active } = loaded.state;
        await become({
          ...loaded.state,
          step: "activated",
          active: other,
          other: active,
          sinceMs: clock(),
        });
        return rotation();
      }),
    retire: ({ force = false } = {}) =>
      alone(async () => {
        assertStep("activated", "retire", force);
        const { other: _, sinceMs: __, ...kept } = loaded.state;
        await become({
          ...kept,
          step: "steady",
          roots: kept.roots.filter((root) => root.id === kept.active),
        });
        return rotation();
      }),
  };
}

const nextStep = {
  steady: "the next step is to prepare",
  prepared: "the next step is to activate",
  activated: "the next step is to retire",
} as const;

const tooEarly = {
  steady: "",
  prepared: "some callers may not have the new root yet and would take our servers for strangers",
  activated: "leaves under the old root may still be valid and would be refused",
} as const;

type Generation = {
  readonly id: string;
  readonly createdMs: number;
  /** Number of the issuing certificate that signs. */
  readonly issuing: number;
  /** The longest lifetime of a leaf it ever signed. */
  readonly longestTtlMs: number;
};

type State = {
  readonly version: 1;
  readonly plane: Plane;
  readonly trustDomain: string;
  readonly step: RotationState["step"];
  readonly active: string;
  /** The next root while prepared, the previous one while activated. */
  readonly other?: string;
  /** When the current step of a rotation was taken. */
  readonly sinceMs?: number;
  readonly roots: readonly Generation[];
};

type LoadedGeneration = {
  readonly facts: Generation;
  readonly root: X509Certificate;
  readonly rootPem: string;
  readonly issuing: {
    readonly cert: X509Certificate;
    readonly certPem: string;
    readonly key: Awaited<ReturnType<typeof signingKey>>;
  };
  readonly issuers: readonly Issuer[];
};

type Loaded = {
  readonly state: State;
  readonly generations: readonly LoadedGeneration[];
  readonly bundlePem: string;
  readonly issuers: readonly Issuer[];
};

async function readState(
  dir: string,
  plane: Plane,
  trustDomain: string,
): Promise<State | undefined> {
  const text = await readIfThere(join(dir, "state.json"));
  if (text === undefined) return undefined;
  const state = JSON.parse(text) as State;
  if (state.version !== 1) throw new Error(`${dir}/state.json was written by a newer sallyport`);
  if (state.plane !== plane || state.trustDomain !== trustDomain)
    throw new Error(
      `${dir} holds the ${state.plane} authority of ${state.trustDomain}, not the ${plane} authority of ${trustDomain}: a trust domain cannot be changed later`,
    );
  return state;
}

async function load(dir: string, state: State): Promise<Loaded> {
  const generations = await Promise.all(state.roots.map((facts) => loadGeneration(dir, facts)));
  // The active root first: what reads only one certificate of a bundle should read that one.
  const inOrder = [...generations].sort(
    (a, b) => Number(b.facts.id === state.active) - Number(a.facts.id === state.active),
  );
  return {
    state,
    generations,
    bundlePem: [
      ...inOrder.map((one) => one.rootPem),
      ...inOrder.flatMap((one) => one.issuers.map(({ issuing }) => issuing.toString())),
    ].join(""),
    issuers: inOrder.flatMap((one) => one.issuers),
  };
}

async function loadGeneration(dir: string, facts: Generation): Promise<LoadedGeneration> {
  const read = async (name: string) =>
    `${(await readFile(join(dir, facts.id, name), "utf8")).trim()}\n`;
  const rootPem = await read("root.pem");
  const root = new X509Certificate(rootPem);
  const issuers: Issuer[] = [];
  for (let number = 1; number <= facts.issuing; number++) {
    const issuing = new X509Certificate(await read(`issuing-${number}.pem`));
    if (!issuing.checkIssued(root) || !issuing.verify(root.publicKey))
      throw new Error(`${dir}/${facts.id}/issuing-${number}.pem was not signed by its root`);
    issuers.push({ issuing, root });
  }
  const certPem = await read(`issuing-${facts.issuing}.pem`);
  const key = await signingKey(await read(`issuing-${facts.issuing}-key.pem`));
  const cert = new X509Certificate(certPem);
  return { facts, root, rootPem, issuing: { cert, certPem, key }, issuers };
}

async function removeLeftovers(dir: string, state: State): Promise<void> {
  for (const entry of await readdir(dir, { withFileTypes: true })) {
    const isOurs = /^[0-9a-f]{8}$/.test(entry.name) && entry.isDirectory();
    if (isOurs && !state.roots.some((root) => root.id === entry.name))
      await rm(join(dir, entry.name), { recursive: true, force: true });
    else if (entry.name.endsWith(draftEnd)) await rm(join(dir, entry.name), { force: true });
  }
}

function generation(loaded: Loaded, id: string): LoadedGeneration {
  const found = loaded.generations.find((one) => one.facts.id === id);
  if (!found) throw new Error(`state.json names a root that is not there: ${id}`);
  return found;
}

function activeOf(loaded: Loaded): LoadedGeneration {
  return generation(loaded, loaded.state.active);
}

function rootFacts(one: LoadedGeneration): RootFacts {
  return {
    id: one.facts.id,
    fingerprint: fingerprintOf(one.root),
    createdMs: one.facts.createdMs,
    notAfterMs: Date.parse(one.root.validTo),
  };
}

function fingerprintOf(cert: X509Certificate): string {
  return keyId(cert.publicKey.export({ format: "der", type: "spki" }));
}

/** The last line of defence against a bug in whoever asks: a CA signs nothing outside its plane or its trust domain. */
function assertSensible(request: SignRequest, plane: Plane, trustDomain: string): void {
  const parts = parsePrincipal(request.principal);
  if (parts?.trustDomain !== trustDomain)
    throw new TypeError(`not a principal of ${trustDomain}: ${request.principal}`);
  if (!(principalKinds[parts.kind] as readonly Plane[]).includes(plane))
    throw new TypeError(`${parts.kind} has no identity on the ${plane} plane`);
  if (!(request.ttlMs >= 1_000 && request.ttlMs <= longestLeafMs))
    throw new TypeError(`a leaf lives between 1 s and 24 h, not ${request.ttlMs} ms`);
  const mayServe = parts.kind === "gate" || parts.kind === "control";
  if (!mayServe && (request.dnsNames.length > 0 || request.purpose !== "client"))
    throw new TypeError(`a ${parts.kind} serves nothing: no DNS names, clientAuth only`);
  for (const name of request.dnsNames)
    if (!isTrustDomain(name)) throw new TypeError(`not a DNS name: ${name}`);
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw cause;
  }
}
