import { createHash, randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, platform } from "node:os";
import { extname, join } from "node:path";
import { findLeftHeads } from "../../audit/hit-log/left-heads.ts";
import { openHitLog } from "../../audit/hit-log/open-hit-log.ts";
import { queryHits } from "../../audit/hit-log/query.ts";
import { verifyLog } from "../../audit/hit-log/verify.ts";
import { createWatch } from "../../audit/watch/watch.ts";
import { formatHostPort } from "../../base/address.ts";
import { admitsFrom, followEveryMs, resolveBind } from "../../base/guard.ts";
import type { Running } from "../../base/lifecycle.ts";
import type { HeldRoots, Roots } from "../../feed/needs.ts";
import { startSubscription } from "../../feed/subscribe/start-subscription.ts";
import type { Subscription } from "../../feed/subscribe/subscription.ts";
import {
  readCredentials,
  type StoredCredentials,
} from "../../identity/credentials/credential-directory.ts";
import { enrollGate } from "../../identity/enroll/enroll.ts";
import { JoinRefused } from "../../identity/enroll/join-request.ts";
import { startNameLeaves } from "../../identity/names/name-leaves.ts";
import { type Renewal, startRenewal } from "../../identity/renew/start-renewal.ts";
import type { Register } from "../../model/register.ts";
import type { Snapshot } from "../../model/snapshot.ts";
import { compileService } from "../../policy/compile.ts";
import { SlotTable } from "../../policy/slots.ts";
import type { CompiledService } from "../../policy/view.ts";
import { openOpsDoor } from "../../proxy/ops/ops-door.ts";
import type { CredentialOrder } from "../../proxy/pool/messages.ts";
import { Pool } from "../../proxy/pool/pool.ts";
import { bindWorld, localAddresses } from "../bind-world.ts";
import { verdictOf } from "../log-verdict.ts";
import { programLog } from "../program-log.ts";
import { readDrainMs } from "../settings.ts";
import { linkToSupervisor, readRootConfig } from "../supervisor/link-to-supervisor.ts";
import { version } from "../version.ts";
import { GateDoors } from "./gate-doors.ts";
import { openGateRoots } from "./gate-roots.ts";

/** What the supervisor starts this root with. */
export type GateConfig = {
  readonly stateDir: string;
  readonly name: string;
  /** Join doors to use instead of the one that the token named. */
  readonly join?: readonly string[];
  /** Where the first enrolment's token is; else it comes over the channel. */
  readonly tokenFile?: string;
  /** Control is elsewhere: nobody hands over a token. */
  readonly apart?: boolean;
  /** Worker threads; by default one a core, one on macOS and Windows. */
  readonly workers?: number;
};

type GateIdentity = {
  readonly control: StoredCredentials;
  readonly data: StoredCredentials;
  /** SPKI PEM of the key that signs snapshots. */
  readonly snapshotKey: string;
};

// The main thread of a gate: its identity, the feed, compiling, the ops door. It carries no traffic and sees no CA key.

const config = readRootConfig<GateConfig>();
const log = programLog({ gate: config.name });
const clock = () => Date.now();
const monotonic = () => performance.now();
let leaving = false;
let started = false;
const running: Running[] = [];
const link = linkToSupervisor(() => void leave());

const home = join(config.stateDir, "gates", config.name);
const controlDir = join(home, "control");
const dataDir = join(home, "data");
const hitsDir = join(home, "hits");
mkdirSync(home, { recursive: true, mode: 0o700 });
const roots = openGateRoots({ file: join(home, "roots.json"), log });
/** Of the last token that was used here: one that is handed over again would look like a copy. */
const usedTokenFile = join(home, "used-token.sha256");

/** Pairs of a rule and a caller that can have a rate limit at once: four bytes each. */
const slotCapacity = 1 << 20;
const limits = new SharedArrayBuffer(slotCapacity * 4);
const words = new Int32Array(limits);
const confirmed = new SharedArrayBuffer(8);
const confirmedMs = new Float64Array(confirmed);
const slots = new SlotTable(slotCapacity);
const size =
  config.workers ??
  (platform() === "darwin" || platform() === "win32" ? 1 : availableParallelism());
const boot = randomBytes(9).toString("base64url");

const leftHeads = findLeftHeads({ dir: hitsDir, boot, log });
const recorder = openHitLog({
  dir: hitsDir,
  writer: { process: "gate", name: config.name, boot },
  clock,
  randomBytes,
  log,
});
const note = (action: string, decision: "allowed" | "fault", detail: string): void => {
  const hit = { at: clock(), plane: "data", kind: "process", decision, action } as const;
  const id = recorder.add({ ...hit, gate: config.name, detail: detail.slice(0, 512) });
  recorder.flush();
  watch.see({ ...hit, id, gate: config.name, detail });
};
const watch = createWatch({
  clock,
  raise(warning) {
    log.warn({ warning: warning.id, hits: warning.hits }, warning.says);
    subscription?.warn({ ...warning, gate: config.name });
  },
});

const identity = await ownIdentity();
let control: StoredCredentials = identity.control;
let data: StoredCredentials = identity.data;
let register: Register | undefined;
let subscription: Subscription | undefined;
let served: { readonly of?: object; readonly names: readonly string[] } = { names: [] };
let deaths = 0;
let announced = false;
let opsPort: string | undefined;
/** Services whose `staleAfter` has passed and of which a warning was given. */
let stale = new Set<string>();
/** Where control's own chains stood when it last said so. */
let anchors: readonly { chain: string; sequence: number; head: string }[] = [];

const doors = new GateDoors(link, size, log);
const pool = new Pool({
  size,
  module: new URL(`./gate-worker${extname(import.meta.filename)}`, import.meta.url),
  start: { gate: config.name, boot, hitsDir, limits, confirmed },
  descriptor: (at) => doors.descriptor(at),
  log,
  onSeen: (hits) => {
    for (const hit of hits) watch.see(hit);
  },
  onDeath(worker, why) {
    deaths++;
    leftHeads.died(worker);
    log.error({ worker }, `a worker died and is being replaced: ${why}`);
    note("worker_died", "fault", `worker ${worker}: ${why}`);
  },
  onHopeless(why) {
    log.error({}, why);
    note("gate_gives_up", "fault", why);
    process.exit(1);
  },
});
const names = startNameLeaves({
  dir: dataDir,
  file: join(home, "names.json"),
  clock,
  monotonic,
  random: Math.random,
  log,
  wanted: servedNames,
  withTrust: roots.narrowed,
  onArrived: (arrived) => pool.addNames(arrived),
});
running.push(names);
await pool.start(credentialOrder());

/** By which every worker goes; undefined: control has not said, or they are being told. */
let heldRoots: HeldRoots | undefined = roots.held({ control, data });
let saidStrandedMs = Number.NEGATIVE_INFINITY;
/** What OpenSSL or the join door says where the other end's root is not known. For advice alone. */
const strangersSay =
  /self-signed certificate|unable to (?:get|verify)|unknown_issuer|trust bundle is empty/i;

const dataRenewal = await startRenewal({
  dir: dataDir,
  clock,
  monotonic,
  random: Math.random,
  log,
  withTrust: roots.narrowed,
  async onRenewed(next) {
    // Under a new root names go along, and what is told to control is true of them as well; many of them take their time.
    await names.settled(5_000);
    data = next;
    await useCredentials();
  },
  onFailed: sayWhenStranded,
});
const controlRenewal: Renewal = await startRenewal({
  dir: controlDir,
  clock,
  monotonic,
  random: Math.random,
  log,
  withTrust: roots.narrowed,
  async onRenewed(next) {
    control = next;
    await useCredentials();
  },
  onFailed: sayWhenStranded,
});
running.push(dataRenewal, controlRenewal);

subscription = await startSubscription({
  join: config.join ?? [identity.control.identity?.join ?? ""],
  gate: config.name,
  version,
  credentials: () => ({
    keyPem: control.keyPem,
    chainPem: control.chainPem,
    bundlePem: roots.narrowed(control).identity?.controlBundle ?? control.bundlePem,
  }),
  dir: home,
  pinnedKey: identity.snapshotKey,
  clock,
  random: Math.random,
  log,
  onSnapshot: serve,
  onRevocation(revocation, done) {
    pool.revoke(revocation).then(done, (cause: unknown) => {
      log.error({ err: cause }, "a revocation could not be carried out in every worker");
    });
  },
  onQuery: (filter) => pages(queryHits(hitsDir, filter)),
  onVerify: async (kept) => verdictOf(await verifyLog([hitsDir], kept)),
  onRenew() {
    dataRenewal.soon();
    controlRenewal.soon();
  },
  onRoots(next) {
    takeRoots(next).catch((cause) =>
      log.error({ err: cause }, "the roots could not be changed in every worker"),
    );
  },
  heldRoots: () => heldRoots,
  onControlHeads: (heads) => {
    anchors = heads;
  },
  heads: () => [...recorder.heads(), ...pool.report().heads],
  left: leftHeads,
  status,
  serving: () => ({
    addresses: doors.addresses("data").map((at) => formatHostPort(at.host, at.port)),
    // As many as a line of the feed may name.
    servedNames: [...names.all().keys()].slice(0, 4_096),
  }),
});
running.push(subscription);

const second = setInterval(() => {
  recorder.tick();
  const contact = subscription?.state().lastContactMs;
  if (contact !== undefined) confirmedMs[0] = contact;
  warnWhenStale();
  sayWhenCutOff();
}, 1_000);
const follower = setInterval(() => {
  if (register !== undefined) void doors.follow(register, pool);
}, followEveryMs);
// Under `up`, control invites a gate again whose leaves are no good any more. Those of a machine that slept past their end are taken
// up by starting anew; those of a root that was retired at once.
link.on("token", (message) => {
  if (!isLiving({ control, data })) return void leave();
  joinAgain(String(message.token)).catch((cause) =>
    log.error({ err: cause }, "this gate could not join again; it is invited again in a minute"),
  );
});
started = true;
note("start", "allowed", `pid ${process.pid}, ${size} workers, snapshot ${snapshotNow()}`);

/** Compiles a verified snapshot and has every worker decide by it. Returns what is wrong with it. */
async function serve(snapshot: Snapshot): Promise<string | undefined> {
  const next = snapshot.register;
  try {
    const callers = Object.keys(next.services);
    const services = new Map<string, CompiledService>();
    for (const service of Object.values(next.services))
      services.set(
        service.name,
        compileService(service, callers, (rule, caller) => slots.slotFor(rule, caller)),
      );
    const { epoch, version: number, at, revocations } = snapshot;
    const header = { epoch, version: number, at, trustDomain: next.trustDomain, revocations };
    await pool.setView(header, services);
  } catch (cause) {
    return cause instanceof Error ? cause.message : String(cause);
  }
  if (confirmedMs[0] === 0) confirmedMs[0] = snapshot.at;
  const { view } = pool;
  if (view !== undefined) {
    slots.keep(view);
    for (const slot of slots.retire(view)) Atomics.store(words, slot, 0);
  }
  register = next;
  // Names that are new have no leaf yet: without one, callers that send SNI are shown the gate's own.
  names.look();
  // From here on the view is in force: a door that cannot be opened is reported, and does not undo it.
  await doors.follow(next, pool);
  await openOps(next).catch((cause: unknown) => log.error({ err: String(cause) }, "ops door"));
  if (!announced) {
    announced = true;
    const [first] = doors.addresses("data");
    link.ready({
      ...(first && { data: formatHostPort(first.host, first.port) }),
      ...(opsPort !== undefined && { ops: opsPort }),
      ...Object.fromEntries(
        doors.addresses("decoy").map((at, i) => [`decoy${i}`, formatHostPort(at.host, at.port)]),
      ),
    });
  }
  return undefined;
}

/** Hands what the gate holds to every worker, and tells control once they go by it. */
async function useCredentials(): Promise<void> {
  const next = roots.held({ control, data });
  await pool.setCredentials(credentialOrder());
  heldRoots = next;
  subscription?.rootsChanged();
}

/** Fails closed: what was retired is trusted no more before anything else is tried. Then what is lacking is asked for. */
async function takeRoots(next: Roots): Promise<void> {
  const { isNews, kept } = roots.take(next);
  if (isNews) heldRoots = undefined;
  if (roots.lacks("data", data)) dataRenewal.soon();
  if (roots.lacks("control", control)) controlRenewal.soon();
  if (heldRoots === undefined) {
    await useCredentials();
    note("roots", "allowed", `data ${next.data.active}, control ${next.control.active}`);
  }
  await kept;
}

/** With a token of the channel, as at the first start. Callers notice nothing but the new leaf. */
async function joinAgain(token: string): Promise<void> {
  if (leaving || isUsed(token)) return;
  const enrolled = await enrol(token);
  // Another control plane's snapshots are another life.
  if (enrolled.snapshotKey !== identity.snapshotKey) return leave();
  ({ control, data } = enrolled);
  await useCredentials();
  note("joined_again", "allowed", "the root of its certificates was retired");
  // A token buys no names.
  names.look();
}

/** A gate that nobody invites has to say what to do, now and then. */
function sayWhenStranded(cause: unknown): void {
  const held = roots.held({ control, data });
  const isStranded =
    (cause instanceof JoinRefused && cause.code === "unknown_issuer") ||
    (held !== undefined && (held.control.leaf === null || held.data.leaf === null));
  if (isStranded) sayStranded();
}

/** Neither end may know the other any more where a gate was away while the roots changed: then it is the feed that fails. */
function sayWhenCutOff(): void {
  const state = subscription?.state();
  if (state === undefined || state.connected) return;
  if (strangersSay.test(state.problem ?? "")) sayStranded();
}

function sayStranded(): void {
  if (clock() - saidStrandedMs < 60_000) return;
  saidStrandedMs = clock();
  const todo =
    config.apart === true
      ? `where control runs: sallyport token create --gate ${config.name}; then stop this gate and start it with --join-token-file`
      : "control beside it invites it again within a minute";
  log.error(
    {},
    `this gate and control do not know each other's root: one was retired, and its certificates cannot be renewed. It has to join again: ${todo}`,
  );
}

/** Opened once: its address changes with a restart. */
async function openOps(next: Register): Promise<void> {
  if (opsPort !== undefined) return;
  for (const bind of next.planes.ops.binds) {
    const world = bindWorld(next.networks);
    const { addresses, problems } = await resolveBind(bind, world);
    for (const problem of problems) log.warn({}, problem.message);
    for (const at of addresses) {
      const admits = admitsFrom(
        next.planes.ops.from,
        { bind, host: at.host },
        { networks: next.networks, interfaces: localAddresses },
      );
      try {
        const door = await openOpsDoor(at, admits, { notReady, metrics });
        running.push(door);
        opsPort ??= formatHostPort(at.host, door.port);
      } catch (cause) {
        log.error({ err: cause }, "the ops door cannot be opened");
      }
    }
  }
}

/** Whoever said how old a view may be is told when it is older, whatever the gate then does. */
function warnWhenStale(): void {
  const ageMs = clock() - (confirmedMs[0] ?? 0);
  const passed = new Set<string>();
  for (const { name, staleAfter } of pool.view?.services.values() ?? [])
    if (staleAfter !== undefined && ageMs > staleAfter.afterMs) passed.add(name);
  for (const name of passed) {
    if (stale.has(name)) continue;
    const then = pool.view?.services.get(name)?.staleAfter?.then;
    const minutes = Math.round(ageMs / 60_000);
    const says = `control was last heard ${minutes} min ago; ${name} is ${then === "refuse" ? "refused" : "served all the same"}`;
    log.warn({ service: name }, says);
    subscription?.warn({
      id: `stale-snapshot:${config.name}:${name}`,
      at: clock(),
      detector: "stale-snapshot",
      severity: "warning",
      says,
      hits: [],
      count: 1,
      gate: config.name,
    });
  }
  stale = passed;
}

function notReady(): string | undefined {
  if (leaving) return "draining";
  if (pool.view === undefined) return "no snapshot yet";
  if (doors.addresses("data").length === 0) return "no data door is open";
  if (pool.report().auditFailing) return "the hit log cannot be written";
  return undefined;
}

function metrics(): Record<string, number> {
  const { counters, workers, auditFailing } = pool.report();
  const state = subscription?.state();
  return {
    requests_total: counters.requests ?? 0,
    refused_total: counters.refused ?? 0,
    connections: counters.connections ?? 0,
    workers,
    worker_deaths_total: deaths,
    snapshot_epoch: pool.view?.epoch ?? 0,
    snapshot_version: pool.view?.version ?? 0,
    snapshot_age_seconds: Math.max(0, Math.round((clock() - (confirmedMs[0] ?? 0)) / 1_000)),
    control_connected: state?.connected === true ? 1 : 0,
    audit_failing: auditFailing ? 1 : 0,
    names_missing: names.missing(),
    leaf_expires_seconds: Math.round((Date.parse(data.identity?.notAfter ?? "") - clock()) / 1_000),
  };
}

function status(): object {
  return {
    ...metrics(),
    boot,
    doorProblems: doors.problems,
    leafNotAfter: data.identity?.notAfter,
    controlLeafNotAfter: control.identity?.notAfter,
    controlHeadsKept: anchors.length,
    chainsLeft: leftHeads.count(),
  };
}

/** Every name that a caller may put into SNI: `orders`, `metrics.orders`. The same array until the view changes. */
function servedNames(): readonly string[] {
  const view = pool.view;
  if (view === undefined) return [];
  if (served.of !== view)
    served = {
      of: view,
      names: [...view.routes]
        .filter(([name, at]) => name === at.service || name === `${at.port}.${at.service}`)
        .map(([name]) => name)
        .sort(),
    };
  return served.names;
}

function credentialOrder(): CredentialOrder {
  const trusted = roots.narrowed(data);
  // A handshake needs some root to be completed, so that whoever is turned away is told why. Callers are judged by `dataBundlePem`.
  const bundlePem = trusted.bundlePem || data.bundlePem;
  const own = { keyPem: data.keyPem, chainPem: data.chainPem, bundlePem };
  return {
    trustDomain: trustDomainOf(data),
    own,
    byName: names.all(),
    dataBundlePem: trusted.bundlePem,
    controlBundlePem: roots.narrowed(control).identity?.controlBundle ?? control.bundlePem,
  };
}

function trustDomainOf(held: StoredCredentials): string {
  return new URL(held.identity?.principal ?? "spiffe://unknown").hostname;
}

function snapshotNow(): string {
  return pool.view === undefined ? "none" : `${pool.view.epoch}.${pool.view.version}`;
}

/** What is on disk from an earlier start, or what a token buys now. */
async function ownIdentity(): Promise<GateIdentity> {
  const keyFile = join(home, "snapshot-key.pem");
  const held = await readHeld(keyFile);
  // An expired gate cannot renew. Where somebody can invite it again it waits for that; else it says so, over and over.
  const canAsk = config.tokenFile !== undefined || config.apart !== true;
  if (held !== undefined && (isLiving(held) || !canAsk)) {
    if (!isInvitedAgain()) return held;
    return await enrol(await firstToken()).catch((cause) => {
      log.error({ err: cause }, "the new token bought nothing; this gate goes on as before");
      return held;
    });
  }
  return await enrol(await firstToken());
}

/** Throws when the token buys nothing; then what was held before is still there. */
async function enrol(token: string): Promise<GateIdentity> {
  writeFileSync(usedTokenFile, tokenHash(token), { mode: 0o600 });
  const enrolled = await enrollGate({
    token,
    controlOut: controlDir,
    dataOut: dataDir,
    clock,
  }).catch((cause) => {
    // Nobody has seen it: it is as good as before.
    if (!(cause instanceof JoinRefused)) rmSync(usedTokenFile, { force: true });
    throw cause;
  });
  writeFileSync(join(home, "snapshot-key.pem"), enrolled.snapshotKeyPem, { mode: 0o600 });
  await roots.forget();
  return { ...enrolled, snapshotKey: enrolled.snapshotKeyPem };
}

/** Somebody put another token into the file than the one that was used before: this gate is to join anew. */
function isInvitedAgain(): boolean {
  if (config.tokenFile === undefined || !existsSync(usedTokenFile)) return false; // an older start may have used it
  return !isUsed(readFileSync(config.tokenFile, "utf8").trim());
}

function isUsed(token: string): boolean {
  return existsSync(usedTokenFile) && readFileSync(usedTokenFile, "utf8") === tokenHash(token);
}

function tokenHash(token: string): string {
  return createHash("sha256").update(token.trim()).digest("hex");
}

async function readHeld(keyFile: string): Promise<GateIdentity | undefined> {
  try {
    return {
      control: await readCredentials(controlDir),
      data: await readCredentials(dataDir),
      snapshotKey: readFileSync(keyFile, "utf8"),
    };
  } catch {
    return undefined;
  }
}

function isLiving({ control, data }: Pick<GateIdentity, "control" | "data">): boolean {
  return [control, data].every((one) => Date.parse(one.identity?.notAfter ?? "") > clock());
}

function firstToken(): Promise<string> {
  if (config.tokenFile !== undefined)
    return Promise.resolve(readFileSync(config.tokenFile, "utf8").trim());
  return new Promise((take) => link.on("token", (message) => take(String(message.token))));
}

async function* pages<T>(hits: AsyncIterable<T>): AsyncIterable<readonly T[]> {
  let page: T[] = [];
  for await (const hit of hits) {
    page.push(hit);
    if (page.length < 200) continue;
    yield page;
    page = [];
  }
  if (page.length > 0) yield page;
}

/** Takes nothing new, lets what is under way finish, and leaves with everything written. */
async function leave(): Promise<void> {
  if (leaving) return;
  leaving = true;
  if (!started) process.exit(0); // nothing is open yet
  clearInterval(second);
  clearInterval(follower);
  note("drain", "allowed", `pid ${process.pid}`);
  await pool.drain(readDrainMs() - 1_000);
  for (const one of running.reverse()) await one.close();
  recorder.close();
  process.exit(0);
}
