import { randomBytes, X509Certificate } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { openHitLog } from "../../audit/hit-log/open-hit-log.ts";
import { queryHits } from "../../audit/hit-log/query.ts";
import { verifyLog } from "../../audit/hit-log/verify.ts";
import { notifyLog } from "../../audit/notify/log.ts";
import { createWatch } from "../../audit/watch/watch.ts";
import { followEveryMs } from "../../base/guard.ts";
import { certificatesIn } from "../../base/secure-context.ts";
import { createApp } from "../../control/api/app.ts";
import { openApiDoor } from "../../control/api/serve.ts";
import { discover } from "../../control/join/discover.ts";
import type { JoinCaller } from "../../control/join/needs.ts";
import { startJoinDoor } from "../../control/join/start-join-door.ts";
import type { HitPage, HitVerdict, Needs, RecordHit } from "../../control/needs.ts";
import { ControlRefusal } from "../../control/refusals.ts";
import { openRegistry } from "../../control/registry/registry.ts";
import { openStore } from "../../control/store/sqlite.ts";
import { type Anchor, StoreUnusable } from "../../control/store/store.ts";
import type { LogVerdict } from "../../feed/needs.ts";
import { createPublisher } from "../../feed/publish/create-publisher.ts";
import type { Publisher } from "../../feed/publish/publisher.ts";
import { openAuthority } from "../../identity/authority/authority.ts";
import { openSnapshotKey } from "../../identity/authority/snapshot-key.ts";
import {
  CredentialsUnusable,
  readCredentials,
  writeCredentials,
} from "../../identity/credentials/credential-directory.ts";
import { makePrivateDirectory, writeFileDurably } from "../../identity/durable-files.ts";
import { createIssuance, type Issuance } from "../../identity/issue/issuance.ts";
import type { Hit } from "../../model/hit.ts";
import { type HitFilter, hitsByDefault } from "../../model/hit-filter.ts";
import type { IssuedRecord } from "../../model/issued.ts";
import {
  type Plane,
  type Principal,
  parsePrincipal,
  principalOf,
  shortName,
} from "../../model/principal.ts";
import type { RefusalCode } from "../../model/refusal.ts";
import type { Register } from "../../model/register.ts";
import { snapshotName } from "../../model/snapshot.ts";
import type { Warning } from "../../model/warning.ts";
import type { Trust } from "../../policy/peer.ts";
import { verdictOf } from "../log-verdict.ts";
import { programLog } from "../program-log.ts";
import { linkToSupervisor, readRootConfig } from "../supervisor/link-to-supervisor.ts";
import { followDoor } from "./control-doors.ts";
import { keepOwnLeaf, type OwnLeaf } from "./control-leaves.ts";
import { keepReserve } from "./control-reserve.ts";

/** What the supervisor starts this root with. */
export type ControlConfig = {
  readonly stateDir: string;
  /** The register of the first start; under `up`, of every start. Empty: what the store holds. */
  readonly registerFiles?: readonly { readonly name: string; readonly text: string }[];
  /** Where the first administrator's credentials are kept fresh. Absent: it comes by token. */
  readonly adminDir?: string;
  /** The first administrator's token is written here, once, on a store without one. */
  readonly initAdminFile?: string;
  /** False under `up`: one user owns control and the gate. */
  readonly apart: boolean;
  /** Of this control plane: `control`. */
  readonly name: string;
  /** The gate that is started beside it, and whose token it hands to the supervisor. */
  readonly localGate?: string;
  /** The store came from a backup: begin a new epoch, once, and say so. */
  readonly restore?: boolean;
};

// The control process: store, authorities, registry, the API door, the join door and the feed. It carries no traffic.

const hourMs = 3_600_000;
/** New keys, certificates and credentials, a file system block each, and their lines in the store. */
const rotationBytes = 4 * 1_048_576;
/** Chains of one gate that are anchored: a gate that restarts every minute begins as many in eleven days. */
const chainsMax = 16_384;
/** Of one gate, so that a gate that was taken over cannot push out what the others warn of. */
const warningsOfGateMax = 100;
const config = readRootConfig<ControlConfig>();
const log = programLog({ process: "control" });
const clock = () => Date.now();
const link = linkToSupervisor(() => void leave());
const home = join(config.stateDir, "control");
const hitsDir = join(home, "hits");
const self = { name: `control/${config.name}` };
await makePrivateDirectory(home);

const reserve = keepReserve({ dir: join(home, "reserve"), log });
const store = await openStore(join(home, "store.sqlite"), reserve.makeRoom).catch((cause) =>
  stop(cause),
);
const snapshotKey = await openSnapshotKey(join(home, "snapshot-key.pem"));

// The hit log first: whatever follows is recorded.
const recorder = openHitLog({
  dir: hitsDir,
  writer: { process: "control", name: config.name, boot: randomBytes(9).toString("base64url") },
  clock,
  randomBytes,
  log,
});
const warnings = new Map<string, Warning>();
let areWarningsNew = false;
const warningsMax = 1_000;
/** Over a restart. */
const warningsKeptMs = 7 * 24 * 3_600_000;
const notify = notifyLog(log);
const watch = createWatch({ clock, raise });
const record: RecordHit = (hit, options) => {
  const id = options?.essential ? recorder.addEssential(hit) : recorder.add(hit);
  if (!options?.essential && !recorder.flush()) return undefined;
  watch.see({ ...hit, id });
  return id;
};
const note = (action: string, detail: string, decision: "allowed" | "fault" = "allowed"): void => {
  record({ at: clock(), plane: "control", kind: "process", decision, action, detail });
};

let publisher: Publisher | undefined;
let isReady = false;
let isLeaving = false;
let verifying: Promise<HitVerdict> | undefined;
/** Gates that hold an identity, by their bare names. */
const enrolled = new Set<string>();
const nobody = { confirmed: [], missing: [] } as const;
const feed: Needs["feed"] = {
  publish: (signed) => publisher?.publish(signed),
  async revokeNow(revocation, withinMs) {
    const { principal, serial, lineage } = revocation;
    if (principal.startsWith("gate/") && serial === undefined && lineage === undefined)
      enrolled.delete(principal.slice("gate/".length));
    return (await publisher?.revoke(revocation).confirmed(withinMs)) ?? nobody;
  },
  gates: () => publisher?.gates() ?? [],
  confirmed: async (target, withinMs) => (await publisher?.confirmed(target, withinMs)) ?? nobody,
};
const registry = await openRegistry(store, { clock, log, sign: snapshotKey.signSnapshot, feed });
if (config.restore) await beginAgain();
await takeRegister();

const { trustDomain } = standing();
const [controlAuthority, dataAuthority] = await Promise.all(
  (["control", "data"] as const).map((plane) =>
    openAuthority({ dir: join(home, "authority", plane), plane, trustDomain, clock }),
  ),
).catch((cause) => stop(cause));
if (!controlAuthority || !dataAuthority) throw new Error("two planes, two authorities");
const authorities = { control: controlAuthority, data: dataAuthority };
let trust: Trust = readTrust();

const issuance: Issuance = createIssuance({
  store,
  authorities,
  trustDomain,
  clock,
  leafMs: (principal) => leafMs(principal),
  snapshotKeyPem: snapshotKey.publicKeyPem,
  joinAddress: () => joinDoor.address() ?? stop(new Error("the join door is not open")),
  mayServe: (_gate, dnsName) => isServedName(standing(), dnsName),
  onIssued(leaf) {
    const parts = parsePrincipal(leaf.principal);
    if (parts?.kind === "gate") enrolled.add(parts.name);
  },
  onTokenReuse: async (token, issued) => {
    const parts = parsePrincipal(token.principal);
    raise({
      id: `token-reuse:${token.hash.slice(0, 16)}`,
      at: clock(),
      detector: "token-reuse",
      severity: "critical",
      says: `an enrolment token of ${parts ? shortName(parts) : token.principal} came with a second key: one of the two was not meant to have it, and what it bought is revoked`,
      hits: [],
      count: 1,
    });
    await revokeLeaves(issued);
  },
  onLineageFork: async (leaf) => {
    const parts = parsePrincipal(leaf.principal);
    raise({
      id: `lineage-fork:${leaf.lineage}`,
      at: clock(),
      detector: "lineage-fork",
      severity: "critical",
      says: `a certificate of ${parts ? shortName(parts) : leaf.principal} was renewed twice with two keys: its key was copied. Revoke it: sallyport revoke --serial ${leaf.serial}`,
      hits: [],
      count: 1,
    });
  },
});
await findEnrolled();
await recallWarnings();

const needs: Needs = {
  clock,
  log,
  sign: snapshotKey.signSnapshot,
  feed,
  record,
  canRecord: () => !recorder.failing || recorder.probe(),
  queryHits: findHits,
  verifyHits,
  warnings: () => [...warnings.values()].sort((a, b) => b.at - a.at),
  createToken: issuance.createToken,
  authorities: {
    status: () =>
      (["control", "data"] as const).map((plane) => ({
        plane,
        ...authorities[plane].rotation(),
      })),
    async rotate(plane, step, { force }) {
      const authority = authorities[plane];
      reserve.makeRoom(rotationBytes);
      const state =
        step === "prepare" ? await authority.prepare() : await authority[step]({ force });
      trust = readTrust();
      await ownLeaf.refresh(); // and with it both doors
      await adminLeaf?.refresh();
      // Both planes are often turned in one call: told once, after the last.
      rotatedMs = clock();
      clearTimeout(telling);
      telling = setTimeout(() => publisher?.renewAll(), 250);
      return { plane, ...state };
    },
  },
};
/** When an authority last took a step while this process ran: gates with older leaves are asked to renew. */
let rotatedMs = 0;
let telling: NodeJS.Timeout | undefined;
const app = createApp({ store, registry, needs, notes });

/** Ports that the system chose: gates and operators look for control where it was before it was killed. */
const remembered = {
  port: async (door: string) => Number((await store.setting(`port ${door}`)) ?? 0),
  keep: (door: string, port: number) => store.saveSetting(`port ${door}`, String(port)),
};
const controlDoor = followDoor({
  name: "control",
  log,
  remembered,
  async open(endpoint, admits) {
    const opened = await openApiDoor({
      app,
      endpoint,
      credentials: ownLeaf.credentials(),
      trustDomain,
      otherBundlePem: () => authorities.data.bundlePem(),
      admits,
      needs,
    });
    return { opened, address: opened.address };
  },
});
const joinDoor = followDoor({
  name: "join",
  log,
  remembered,
  async open(endpoint, admits) {
    const opened = await startJoinDoor({
      binds: [{ ...endpoint, admits }],
      credentials: () => ownLeaf.credentials(),
      trust: () => trust,
      issuance,
      standing: standingOf,
      discover: (caller) =>
        discover({
          register: standing(),
          caller,
          gates: publisher?.gates() ?? [],
          nowMs: clock(),
        }),
      onFeed: (socket, gate) =>
        publisher ? publisher.attach(socket, gate) : void socket.destroy(),
      record: (hit) => record(hit),
      clock,
      log,
    });
    const [address] = opened.addresses;
    if (!address) throw new Error("the join door bound no address");
    return { opened, address };
  },
});
const ownLeaf: OwnLeaf = await keepOwnLeaf({
  principal: principalOf({ trustDomain, kind: "control", name: config.name }),
  issuance,
  clock,
  random: Math.random,
  log,
  async onNew(credentials) {
    await writeCredentials(join(home, "identity"), credentials);
    for (const door of controlDoor.opened()) door.swap(credentials);
    for (const door of joinDoor.opened()) door.swap();
  },
}).catch(stopIfUnusable);

const freshHeads = new Map<string, Anchor>();
/** Of each gate, all that are anchored: one that was taken over must not fill the store with chains that are none. */
const knownChains = new Map<string, Set<string>>();
for (const { source, chain } of await store.anchors())
  knownChains.set(source, (knownChains.get(source) ?? new Set()).add(chain));
publisher = createPublisher({
  clock,
  log,
  latest: () => registry.current()?.signed,
  enrolled: () => [...enrolled].sort(),
  keys: () => [],
  heads: () => recorder.heads(),
  onHeads(gate, heads) {
    const source = `gate/${gate}`;
    const chains = knownChains.get(source) ?? new Set<string>();
    knownChains.set(source, chains);
    for (const head of heads) {
      if (!chains.has(head.chain) && chains.size >= chainsMax) {
        raiseTooManyChains(source);
        break;
      }
      chains.add(head.chain);
      freshHeads.set(`${gate} ${head.chain}`, { source, at: clock(), ...head });
    }
  },
  onWarning: (_gate, warning) => raise(warning),
  isOutdated({ name, notAfterMs }) {
    const issuedMs = notAfterMs - leafMs(principalOf({ trustDomain, kind: "gate", name }));
    return issuedMs < rotatedMs;
  },
});

await Promise.all([controlDoor.follow(standing()), joinDoor.follow(standing())]);
for (const door of [controlDoor, joinDoor])
  if (door.opened().length === 0)
    stop(new Error(`no door could be opened: ${door.problems().join("; ")}`));

const adminLeaf =
  config.adminDir === undefined
    ? undefined
    : await keepAdmin(config.adminDir).catch(stopIfUnusable);
if (config.initAdminFile !== undefined) await inviteFirstAdmin(config.initAdminFile);
const inviteEveryMs = 60_000;
let invitedMs = Number.NEGATIVE_INFINITY;
if (config.localGate !== undefined) {
  await register({ principal: principalOf({ trustDomain, kind: "gate", name: config.localGate }) });
  await inviteLocalGate(config.localGate);
}
link.on("died", (message) => {
  const { name, code, signal } = message;
  note("process_died", `${name}: ${signal ?? `code ${code}`}`, "fault");
});

const second = setInterval(() => {
  recorder.tick();
  void keepAnchors().catch((cause) => log.error({ err: cause }, "anchors could not be kept"));
}, 1_000);
const follower = setInterval(() => {
  void controlDoor.follow(standing());
  void joinDoor.follow(standing());
  keepWarnings().catch((cause) => log.error({ err: cause }, "warnings could not be kept"));
  if (config.localGate !== undefined)
    inviteLapsedGate(config.localGate).catch((cause) =>
      log.error({ err: cause }, "the gate beside this could not be invited again"),
    );
}, followEveryMs);
const minute = setInterval(() => {
  rememberGates().catch((cause) => log.error({ err: cause }, "what gates said could not be kept"));
  reserve.restock();
}, 60_000);
const hour = setInterval(() => {
  store.prune(clock()).catch((cause) => log.error({ err: cause }, "pruning the store failed"));
}, hourMs);

const current = registry.current()?.snapshot;
note("start", `pid ${process.pid}, snapshot ${current ? snapshotName(current) : "none"}`);
isReady = true;
link.ready({ control: controlDoor.address() ?? "", join: joinDoor.address() ?? "" });

/** The store is a backup: what gates saw after it was made must not look newer than what they are told from now on. */
async function beginAgain(): Promise<void> {
  if (!registry.current())
    stop(new Error("there is nothing to restore: the store is empty. Put the backup in its place"));
  const { snapshot } = await registry.startEpoch(self);
  note("restore", `snapshot ${snapshot}`);
  log.warn(
    { snapshot },
    "a new epoch was begun: what was revoked after the backup was made must be revoked again",
  );
}

/** The register that stands; there is one from `takeRegister` on. */
function standing(): Register {
  return registry.current()?.snapshot.register ?? stop(new Error("no register stands"));
}

/** Under `up` the file is the truth at every start; apart, only on an empty store. */
async function takeRegister(): Promise<void> {
  const files = config.registerFiles ?? [];
  const stands = registry.current() !== undefined;
  if (files.length === 0 || (stands && config.apart)) {
    if (!stands)
      stop(
        new Error("the store is empty and needs a first register: give one with --register FILE"),
      );
    if (files.length > 0)
      log.info(
        {},
        "a register stands already, so the one given is not applied; sallyport apply does that",
      );
    return;
  }
  try {
    const { published, snapshot } = await registry.apply({ files, author: self, force: true });
    if (published) log.info({ snapshot }, "the register was applied");
  } catch (cause) {
    if (!(cause instanceof ControlRefusal)) throw cause;
    for (const problem of cause.problems) log.error({ ...problem }, problem.message);
    if (!stands) stop(cause);
    log.error({}, `${cause.message}: what stood before goes on standing`);
  }
}

function leafMs(principal: Principal): number {
  const kind = parsePrincipal(principal)?.kind;
  const registered = standing().lifetimes.leafMs;
  // Operators are people and scripts that come now and then; an hour would send them back for a token each time.
  if (kind !== "service" && kind !== "gate") return 12 * hourMs;
  return registered ?? (config.apart ? hourMs : 12 * hourMs);
}

/** `orders` or `metrics.orders`: a gated port of the register. Fails closed. */
function isServedName(register: Register, dnsName: string): boolean {
  const [first = "", second] = dnsName.split(".");
  const name = second ?? first;
  const service = Object.hasOwn(register.services, name) ? register.services[name] : undefined;
  if (!service || dnsName.split(".").length > 2) return false;
  const ports = Object.values(service.ports).filter((port) => port.via === "gate");
  return second === undefined ? ports.length > 0 : ports.some((port) => port.name === first);
}

/** Whether somebody whom the join door let in may go on. Fails closed. */
async function standingOf(caller: JoinCaller): Promise<RefusalCode | undefined> {
  const leaf = await store.findIssued(caller.plane, caller.serial);
  if (leaf?.principal !== caller.uri || leaf.publicKey !== caller.publicKey)
    return "not_registered";
  if (await store.isRevoked(leaf)) return "revoked";
  return (await store.isRegistered(caller.uri)) ? undefined : "not_registered";
}

async function revokeLeaves(leaves: readonly IssuedRecord[]): Promise<void> {
  const lines = new Map(leaves.map((leaf) => [`${leaf.plane} ${leaf.lineage}`, leaf]));
  for (const leaf of lines.values()) {
    // Whoever goes on showing the spent token must not make a new snapshot of it each time.
    if (await store.isRevoked(leaf)) continue;
    const { plane, serial } = leaf;
    const { revocation } = await registry.revoke({ author: self, plane, serial });
    const { principal } = revocation;
    record(
      {
        at: clock(),
        plane: "join",
        kind: "action",
        decision: "allowed",
        caller: self.name,
        action: "revoke",
        detail: `${principal} serial ${serial}: its token came with a second key`,
      },
      { essential: true },
    );
  }
}

async function findEnrolled(): Promise<void> {
  const leaves = await store.newestLeaves(0);
  for (const { principal, removedMs } of await store.principals()) {
    const parts = parsePrincipal(principal);
    if (parts?.kind !== "gate" || removedMs !== undefined) continue;
    if (leaves.some((leaf) => leaf.principal === principal)) enrolled.add(parts.name);
  }
}

/** The administrator that `up` makes. It is this process's own doing, so a revoked one comes back under `up` alone. */
async function keepAdmin(dir: string): Promise<OwnLeaf> {
  const principal = principalOf({ trustDomain, kind: "admin", name: "first" });
  await register({ principal, role: "admin" });
  return await keepOwnLeaf({
    principal,
    issuance,
    clock,
    random: Math.random,
    log,
    async onNew(credentials) {
      await writeCredentials(dir, credentials);
      const api = `https://${controlDoor.address()}`;
      await writeFileDurably(
        join(dir, "context.json"),
        `${JSON.stringify({ api, principal, trustDomain }, null, 2)}\n`,
      );
    },
  });
}

async function inviteFirstAdmin(file: string): Promise<void> {
  const known = (await store.principals()).some(({ role }) => role === "admin");
  if (known) {
    log.warn({}, "there was an administrator already, so no token was written");
    return;
  }
  const principal = principalOf({ trustDomain, kind: "admin", name: "first" });
  await register({ principal, role: "admin" });
  const { token, record: made } = await issuance.createToken({
    principal,
    role: "admin",
    createdBy: self.name,
    ttlMs: hourMs,
  });
  await writeFileDurably(file, `${token}\n`);
  note("init_admin", `admin/first, until ${new Date(made.expiresMs).toISOString()}`);
  log.info(
    { file },
    "the first administrator's token was written; it can be used once, within an hour",
  );
}

/** Over the channel alone: an argument, a variable or a file would be seen by others. */
async function inviteLocalGate(name: string): Promise<void> {
  const principal = principalOf({ trustDomain, kind: "gate", name });
  if (enrolled.has(name) && (await holdsLivingLeaves(join(config.stateDir, "gates", name)))) return;
  invitedMs = clock();
  const { token } = await issuance.createToken({ principal, createdBy: self.name });
  link.send({ kind: "gate-token", token } as { kind: string });
}

/** A gate that is gone for good, because somebody revoked it, is not called back while control runs. */
async function inviteLapsedGate(name: string): Promise<void> {
  if (!enrolled.has(name) || clock() - invitedMs < inviteEveryMs) return;
  await inviteLocalGate(name);
}

/** A machine that slept past the end of its leaves finds its gate locked out: it is invited again. */
async function holdsLivingLeaves(gateHome: string): Promise<boolean> {
  try {
    for (const plane of ["control", "data"]) {
      const { identity } = await readCredentials(join(gateHome, plane));
      if (!(Date.parse(identity?.notAfter ?? "") > clock())) return false;
    }
    return true;
  } catch {
    return false;
  }
}

/** Once; whoever was removed stays removed, except what this process itself is answerable for. */
async function register(of: { principal: Principal; role?: "admin" }): Promise<void> {
  const known = await store.findPrincipal(of.principal);
  if (known && known.removedMs === undefined) return;
  await store.savePrincipal({
    ...of,
    owners: [],
    services: [],
    createdBy: self.name,
    createdMs: clock(),
  });
}

async function findHits(query: HitFilter): Promise<HitPage> {
  const hits: Hit[] = [];
  const asked = publisher?.query(query);
  for await (const hit of queryHits(hitsDir, query)) hits.push(hit);
  if (asked) for await (const page of asked.pages) hits.push(...page);
  hits.sort((a, b) => b.at - a.at);
  const absent = (asked?.absent() ?? []).map(({ gate }) => gate);
  return { hits: hits.slice(0, query.limit ?? hitsByDefault), absent };
}

/** Walking the logs costs the disk of every machine: whoever asks meanwhile gets the answer that is on its way. */
function verifyHits(): Promise<HitVerdict> {
  verifying ??= walkLogs().finally(() => {
    verifying = undefined;
  });
  return verifying;
}

/** Logs on this machine are read here, those elsewhere by their gates; all are held against the heads that lie in the store. */
async function walkLogs(): Promise<HitVerdict> {
  await keepAnchors();
  const gatesDir = join(config.stateDir, "gates");
  const here = (existsSync(gatesDir) ? readdirSync(gatesDir) : []).filter((name) =>
    existsSync(join(gatesDir, name, "hits")),
  );
  // Of many chains those that grew last.
  const kept = (await store.anchors()).toSorted((a, b) => b.at - a.at);
  const anchorsOf = (source: string) =>
    kept.filter((anchor) => anchor.source === source).map(withoutSource);
  const absent: string[] = [];
  const asked: (readonly [gate: string | undefined, verdict: LogVerdict])[] = [
    [undefined, verdictOf(await verifyLog([hitsDir], anchorsOf(self.name)))],
  ];
  for (const gate of here)
    asked.push([
      gate,
      verdictOf(await verifyLog([join(gatesDir, gate, "hits")], anchorsOf(`gate/${gate}`))),
    ]);
  const away = [...enrolled].filter((name) => !here.includes(name)).sort();
  await Promise.all(
    away.map(async (gate) => {
      try {
        const verdict = await publisher?.verify(gate, anchorsOf(`gate/${gate}`));
        if (verdict) asked.push([gate, verdict]);
      } catch (cause) {
        log.warn({ gate }, `its hit log could not be verified: ${(cause as Error).message}`);
        absent.push(gate);
      }
    }),
  );
  const named = <T>(gate: string | undefined, of: T) => ({ ...of, ...(gate && { gate }) });
  return {
    // A gate's own word that all is well is not taken against what it names.
    ok: asked.every(([, { ok, chains, problems }]) =>
      [ok, problems.length === 0, ...chains.map((chain) => chain.ok)].every(Boolean),
    ),
    chains: asked.flatMap(([gate, { chains }]) => chains.map((chain) => named(gate, chain))),
    problems: asked.flatMap(([gate, { problems }]) => problems.map((one) => named(gate, one))),
    absent: absent.sort(),
  };
}

function withoutSource({ chain, sequence, head }: Anchor) {
  return { chain, sequence, head };
}

async function keepAnchors(): Promise<void> {
  const own = recorder.heads().map((head) => ({ source: self.name, at: clock(), ...head }));
  const heads = [...freshHeads.values(), ...own];
  freshHeads.clear();
  if (heads.length === 0 || isLeaving) return;
  for (const { source, chain, sequence } of await store.saveAnchors(heads))
    raise({
      id: `log-changed:${source}:${chain}`,
      at: clock(),
      detector: "log-changed",
      severity: "critical",
      says: `the hit log of ${source} contradicts what it said before (chain ${chain}, line ${sequence}): run sallyport hits verify there`,
      hits: [],
      count: 1,
    });
}

function raiseTooManyChains(source: string): void {
  raise({
    id: `too-many-chains:${source}`,
    at: clock(),
    detector: "log-changed",
    severity: "critical",
    says: `${source} says that it keeps more than ${chainsMax} chains of hits: no more of them are anchored. A gate that was not restarted as often is not what it was`,
    hits: [],
    count: 1,
  });
}

async function rememberGates(): Promise<void> {
  for (const gate of publisher?.gates() ?? [])
    if (gate.lastSeen !== undefined) await store.saveGate(gate);
}

/** The same matter once, the newest last; of too many the oldest is forgotten. */
function raise(warning: Warning): void {
  const key = keyOf(warning);
  warnings.delete(key);
  warnings.set(key, warning);
  if (warning.gate !== undefined) {
    const mine = [...warnings].filter(([, { gate }]) => gate === warning.gate);
    for (const [oldest] of mine.slice(0, -warningsOfGateMax)) warnings.delete(oldest);
  }
  for (const oldest of warnings.keys()) {
    if (warnings.size <= warningsMax) break;
    warnings.delete(oldest);
  }
  areWarningsNew = true;
  notify(warning);
}

/** So that a restart does not make a critical warning go away unseen. */
async function recallWarnings(): Promise<void> {
  const kept = JSON.parse((await store.setting("warnings")) ?? "[]") as readonly Warning[];
  // What has come since this start stays the newest.
  const fresh = [...warnings];
  warnings.clear();
  for (const warning of kept)
    if (warning.at > clock() - warningsKeptMs) warnings.set(keyOf(warning), warning);
  for (const [key, warning] of fresh) {
    warnings.delete(key);
    warnings.set(key, warning);
  }
}

async function keepWarnings(): Promise<void> {
  if (!areWarningsNew || isLeaving) return;
  areWarningsNew = false;
  try {
    await store.saveSetting("warnings", JSON.stringify([...warnings.values()]));
  } catch (cause) {
    areWarningsNew = true;
    throw cause;
  }
}

function keyOf(warning: Warning): string {
  return `${warning.gate ?? ""} ${warning.id}`;
}

function notes(): string[] {
  const doors = [...controlDoor.problems(), ...joinDoor.problems()];
  return config.apart
    ? doors
    : [
        "whoever owns the gate owns the CA: control and gate run as one user on this machine",
        ...doors,
      ];
}

function readTrust(): Trust {
  const roots = (plane: Plane) =>
    certificatesIn(authorities[plane].bundlePem()).map((pem) => new X509Certificate(pem));
  return { trustDomain, bundles: { control: roots("control"), data: roots("data") } };
}

/** Says what is wrong and ends: starting again would change nothing. */
function stop(cause: unknown): never {
  const { message } = cause as Error;
  const hasHint = cause instanceof StoreUnusable || cause instanceof CredentialsUnusable;
  log.error(hasHint ? { hint: cause.hint } : {}, message);
  process.exit(2);
}

function stopIfUnusable(cause: unknown): never {
  if (cause instanceof CredentialsUnusable) stop(cause);
  throw cause;
}

/** Takes nothing new, lets what is under way finish, and leaves with everything written. */
async function leave(): Promise<void> {
  if (isLeaving) return;
  if (!isReady) process.exit(0); // nothing is open yet, and every write so far was whole by itself
  note("drain", `pid ${process.pid}`);
  await rememberGates().catch(() => {});
  await keepAnchors().catch(() => {});
  await keepWarnings().catch(() => {});
  isLeaving = true;
  for (const timer of [second, follower, minute, hour]) clearInterval(timer);
  await Promise.all([controlDoor.close(), joinDoor.close(), publisher?.close()]);
  await Promise.all([ownLeaf.close(), adminLeaf?.close()]);
  recorder.close();
  await store.close();
  process.exit(0);
}
