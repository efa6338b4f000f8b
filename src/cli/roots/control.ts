import { randomBytes, X509Certificate } from "node:crypto";
import { join } from "node:path";
import { findLeftHeads } from "../../audit/hit-log/left-heads.ts";
import { openHitLog } from "../../audit/hit-log/open-hit-log.ts";
import { notifyLog } from "../../audit/notify/log.ts";
import { createWatch } from "../../audit/watch/watch.ts";
import { followEveryMs } from "../../base/guard.ts";
import { certificatesIn } from "../../base/secure-context.ts";
import { createApp } from "../../control/api/app.ts";
import { openApiDoor } from "../../control/api/serve.ts";
import { discover } from "../../control/join/discover.ts";
import type { JoinCaller } from "../../control/join/needs.ts";
import { startJoinDoor } from "../../control/join/start-join-door.ts";
import type { Needs, RecordHit } from "../../control/needs.ts";
import { openRegistry } from "../../control/registry/registry.ts";
import { openStore } from "../../control/store/sqlite.ts";
import { StoreUnusable } from "../../control/store/store.ts";
import { createPublisher } from "../../feed/publish/create-publisher.ts";
import type { Publisher } from "../../feed/publish/publisher.ts";
import { openAuthority } from "../../identity/authority/authority.ts";
import { openSnapshotKey } from "../../identity/authority/snapshot-key.ts";
import {
  CredentialsUnusable,
  writeCredentials,
} from "../../identity/credentials/credential-directory.ts";
import { makePrivateDirectory, writeFileDurably } from "../../identity/durable-files.ts";
import { createIssuance, type Issuance } from "../../identity/issue/issuance.ts";
import { type Plane, parsePrincipal, principalOf } from "../../model/principal.ts";
import type { RefusalCode } from "../../model/refusal.ts";
import type { Register } from "../../model/register.ts";
import { snapshotName } from "../../model/snapshot.ts";
import type { Trust } from "../../policy/peer.ts";
import { programLog } from "../program-log.ts";
import { linkToSupervisor, readRootConfig } from "../supervisor/link-to-supervisor.ts";
import { openAnchors } from "./control-anchors.ts";
import { followDoor } from "./control-doors.ts";
import { joinHits } from "./control-hits.ts";
import { createInvitations } from "./control-invitations.ts";
import { keepOwnLeaf, type OwnLeaf } from "./control-leaves.ts";
import { answerMisuse } from "./control-misuse.ts";
import { beginAgain, isServedName, leafMs, takeRegister } from "./control-register.ts";
import { keepReserve } from "./control-reserve.ts";
import { createRotation } from "./control-rotation.ts";
import { createWarnings } from "./control-warnings.ts";

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
const boot = randomBytes(9).toString("base64url");
const leftHeads = findLeftHeads({ dir: hitsDir, boot, log });
const recorder = openHitLog({
  dir: hitsDir,
  writer: { process: "control", name: config.name, boot },
  clock,
  randomBytes,
  log,
});
const warnings = createWarnings({ store, clock, notify: notifyLog(log) });
const { raise } = warnings;
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
const start = { registry, self, log, stop };
if (config.restore) note("restore", `snapshot ${await beginAgain(start)}`);
await takeRegister(start, config.registerFiles ?? [], config.apart);

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
  leafMs: (principal) => leafMs(standing(), principal, config.apart),
  snapshotKeyPem: snapshotKey.publicKeyPem,
  joinAddress: () => joinDoor.address() ?? stop(new Error("the join door is not open")),
  mayServe: (_gate, dnsName) => isServedName(standing(), dnsName),
  onIssued(leaf) {
    const parts = parsePrincipal(leaf.principal);
    if (parts?.kind === "gate") enrolled.add(parts.name);
  },
  ...answerMisuse({ store, registry, record, raise, clock, by: self.name }),
});
await findEnrolled();
await warnings.recall();

const gatesDir = join(config.stateDir, "gates");
const anchors = await openAnchors({
  store,
  clock,
  own: {
    name: self.name,
    heads: () => [...recorder.heads(), ...leftHeads.heads()],
    kept: leftHeads.kept,
  },
  raise,
  isLeaving: () => isLeaving,
});
const allHits = joinHits({
  dir: hitsDir,
  gatesDir,
  ownName: self.name,
  store,
  keepAnchors: anchors.keep,
  publisher: () => publisher,
  enrolled,
  log,
});
const rotation = createRotation({
  authorities,
  clock,
  log,
  makeRoom: reserve.makeRoom,
  swapRoots() {
    trust = readTrust();
    const bundlePem = authorities.control.bundlePem();
    for (const door of controlDoor.opened()) door.swap({ ...ownLeaf.credentials(), bundlePem });
    for (const door of joinDoor.opened()) door.swap();
  },
  refresh: [() => ownLeaf.refresh(), () => adminLeaf?.refresh()],
  publisher: () => publisher,
  raise,
});

const needs: Needs = {
  clock,
  log,
  sign: snapshotKey.signSnapshot,
  feed,
  record,
  canRecord: () => !recorder.failing || recorder.probe(),
  queryHits: allHits.find,
  verifyHits: allHits.verify,
  warnings: warnings.list,
  createToken: issuance.createToken,
  authorities: rotation,
};
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
    for (const door of controlDoor.opened()) door.swap(credentials);
    for (const door of joinDoor.opened()) door.swap();
    await writeCredentials(join(home, "identity"), credentials);
  },
}).catch(stopIfUnusable);

publisher = createPublisher({
  clock,
  log,
  latest: () => registry.current()?.signed,
  enrolled: () => [...enrolled].sort(),
  keys: () => [],
  heads: () => recorder.heads(),
  onHeads: anchors.heard,
  onWarning: (_gate, warning) => raise(warning),
  roots: rotation.roots,
  onRoots: rotation.heard,
  isOutdated({ name, notAfterMs }) {
    const issuedMs =
      notAfterMs -
      leafMs(standing(), principalOf({ trustDomain, kind: "gate", name }), config.apart);
    return issuedMs < rotation.lastMs();
  },
});

await Promise.all([controlDoor.follow(standing()), joinDoor.follow(standing())]);
for (const door of [controlDoor, joinDoor])
  if (door.opened().length === 0)
    stop(new Error(`no door could be opened: ${door.problems().join("; ")}`));

const invitations = createInvitations({
  store,
  issuance,
  trustDomain,
  gatesDir,
  rotatedMs: rotation.lastMs,
  isOurs: (plane, chainPem) => !rotation.isOfRetiredRoot({ plane, certPem: chainPem }),
  enrolled,
  by: self.name,
  clock,
  log,
  note,
  sendGateToken: (token) => link.send({ kind: "gate-token", token } as { kind: string }),
});
const adminLeaf =
  config.adminDir === undefined
    ? undefined
    : await keepAdmin(config.adminDir).catch(stopIfUnusable);
if (config.initAdminFile !== undefined) await invitations.firstAdmin(config.initAdminFile);
if (config.localGate !== undefined) await invitations.localGate(config.localGate);
link.on("died", (message) => {
  const { name, code, signal } = message;
  note("process_died", `${name}: ${signal ?? `code ${code}`}`, "fault");
});

const second = setInterval(() => {
  recorder.tick();
  void anchors.keep().catch((cause) => log.error({ err: cause }, "anchors could not be kept"));
}, 1_000);
const follower = setInterval(() => {
  void controlDoor.follow(standing());
  void joinDoor.follow(standing());
  warnings.keep().catch((cause) => log.error({ err: cause }, "warnings could not be kept"));
  if (config.localGate !== undefined)
    invitations
      .lapsedGate(config.localGate)
      .catch((cause) =>
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

/** The register that stands; there is one from `takeRegister` on. */
function standing(): Register {
  return registry.current()?.snapshot.register ?? stop(new Error("no register stands"));
}

/** Whether somebody whom the join door let in may go on. Fails closed. */
async function standingOf(caller: JoinCaller): Promise<RefusalCode | undefined> {
  const leaf = await store.findIssued(caller.plane, caller.serial);
  if (leaf?.principal !== caller.uri || leaf.publicKey !== caller.publicKey)
    return "not_registered";
  if (await store.isRevoked(leaf)) return "revoked";
  return (await store.isRegistered(caller.uri)) ? undefined : "not_registered";
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
  await invitations.register({ principal, role: "admin" });
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

async function rememberGates(): Promise<void> {
  for (const gate of publisher?.gates() ?? [])
    if (gate.lastSeen !== undefined) await store.saveGate(gate);
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
  await anchors.keep().catch(() => {});
  await warnings.keep().catch(() => {});
  isLeaving = true;
  for (const timer of [second, follower, minute, hour]) clearInterval(timer);
  await Promise.all([controlDoor.close(), joinDoor.close(), publisher?.close()]);
  await Promise.all([ownLeaf.close(), adminLeaf?.close()]);
  recorder.close();
  await store.close();
  process.exit(0);
}
