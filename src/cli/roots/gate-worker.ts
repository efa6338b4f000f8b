import { randomBytes, X509Certificate } from "node:crypto";
import { flushCompileCache } from "node:module";
import { parentPort, workerData } from "node:worker_threads";
import { openHitLog } from "../../audit/hit-log/open-hit-log.ts";
import { classifyAddress, formatHostPort, parseAddress } from "../../base/address.ts";
import { admitsFrom, type Endpoint } from "../../base/guard.ts";
import { certificatesIn } from "../../base/secure-context.ts";
import type { Hit } from "../../model/hit.ts";
import type { Revocation } from "../../model/snapshot.ts";
import { applyPatch } from "../../policy/compile.ts";
import { type PackedPatch, unpackPatch } from "../../policy/pack.ts";
import { indexRevocations, type Trust } from "../../policy/peer.ts";
import type { View } from "../../policy/view.ts";
import { DataPlane } from "../../proxy/data-plane.ts";
import type { Needs } from "../../proxy/needs.ts";
import type {
  CredentialOrder,
  DoorOrder,
  Order,
  Report,
  WorkerStart,
} from "../../proxy/pool/messages.ts";
import { localAddresses } from "../bind-world.ts";
import { programLog } from "../program-log.ts";

// One worker thread of a gate: a data plane, its hit log, and orders from the main thread.

type DoorPlan = Omit<DoorOrder, "fd">;

const start = workerData as WorkerStart;
const port = parentPort;
if (port === null) throw new Error("this module is started by a gate, not by hand");

const log = programLog({ gate: start.gate, worker: start.worker });
const clock = () => Date.now();
// Every worker's `performance.now()` counts from its own start; the machine's monotonic clock is one.
const offsetMs = ownStartMs();
const monotonic = () => performance.now() + offsetMs;
const confirmed = new Float64Array(start.confirmed);

const recorder = openHitLog({
  dir: start.hitsDir,
  writer: { process: "worker", name: start.gate, boot: start.boot, worker: start.worker },
  clock,
  randomBytes,
  log,
});

let view: View | undefined;
let unpacking: Promise<void> = Promise.resolve();
/** Revocations that no view in force has yet. */
let revokedAhead: Revocation[] = [];
let ownDoors: readonly Endpoint[] = [];
/** By door: who may connect there, as the register in force says. */
const admitted = new Map<string, (ip: string) => boolean>();

// What early warning looks at: refusals, copied once they are in the log, at most so many a second.
const seenPerBeat = 200;
let seen: Hit[] = [];
let missed = 0;

const needs: Needs = {
  gate: start.gate,
  view: () => view,
  confirmedMs: () => confirmed[0] ?? 0,
  recorder: {
    add(hit) {
      const id = recorder.add(hit);
      if (hit.decision !== "allowed") {
        if (seen.length < seenPerBeat) seen.push({ ...hit, id });
        else missed++;
      }
      return id;
    },
    flush: () => recorder.flush(),
    get failing() {
      return recorder.failing;
    },
  },
  clock,
  monotonic,
  random: Math.random,
  log,
  limits: new Int32Array(start.limits),
  isOwnDoor,
};

const plane = new DataPlane(needs, start.credentials, trustOf(start.credentials));

const beat = setInterval(() => {
  recorder.tick();
  tell({
    kind: "beat",
    heads: recorder.heads(),
    counters: plane.counters(),
    auditFailing: recorder.failing,
  });
}, 1_000);
const watching = setInterval(() => {
  if (seen.length === 0) return;
  tell({ kind: "seen", hits: seen, missed });
  seen = [];
  missed = 0;
}, 100);

port.on("message", (order: Order) => {
  follow(order).then(
    () => tell({ kind: "done", number: order.number }),
    (cause: unknown) =>
      tell({
        kind: "done",
        number: order.number,
        problem: cause instanceof Error ? cause.message : String(cause),
      }),
  );
});

async function follow(order: Order): Promise<void> {
  switch (order.kind) {
    case "view":
      // One after the other: a patch is relative to the view before it.
      unpacking = unpacking.then(() => takeView(order.patch));
      // A worker that cannot follow must not go on with what it has: it ends, and its successor is told everything.
      unpacking.catch((cause: unknown) => setImmediate(() => endWith(cause)));
      return unpacking;
    case "revoke":
      // Ahead of the view that says the same, and of any that is still being unpacked and may not: from here on nobody it names
      // is let in.
      revokedAhead.push(order.revocation);
      if (view !== undefined) view = withRevocations(view);
      plane.revoke(order.revocation);
      return;
    case "credentials":
      plane.swapCredentials(order.credentials, trustOf(order.credentials));
      return;
    case "names":
      plane.addNames(order.names);
      return;
    case "own-doors":
      ownDoors = order.doors;
      return;
    case "open": {
      const { fd, ...plan } = order.order;
      const key = admitAt(plan);
      const admits = (ip: string): boolean => admitted.get(key)?.(ip) ?? false;
      await plane.open({ fd, allowed: plan.at, door: plan.door, admits });
      setImmediate(flushCompileCache); // a gate that is killed cannot do it then
      return;
    }
    case "admit":
      admitAt(order.order);
      return;
    case "shut":
      await plane.shut(order.door, order.at);
      return;
    case "drain":
      await plane.drain(order.withinMs);
      clearInterval(beat);
      clearInterval(watching);
      recorder.close();
      return;
  }
}

/** Notes who may connect at a door; returns the door's name. A decoy is for everybody: any touch of it is worth knowing. */
function admitAt({ door, at, bind, from, networks, interfaces }: DoorPlan): string {
  const key = `${door} ${formatHostPort(at.host, at.port)}`;
  const range = { networks, interfaces: () => interfaces };
  admitted.set(
    key,
    door === "decoy" ? () => true : admitsFrom(from, { bind, host: at.host }, range),
  );
  return key;
}

async function takeView(patch: PackedPatch): Promise<void> {
  const next = applyPatch(view, await unpackPatch(patch, () => new Promise(setImmediate)));
  // By content: a patch may have been made before a revocation that was heard first.
  revokedAhead = revokedAhead.filter((one) => !next.revocations.all.some((of) => isSame(of, one)));
  view = withRevocations(next);
  plane.viewChanged(view);
}

function withRevocations(of: View): View {
  if (revokedAhead.length === 0) return of;
  return { ...of, revocations: indexRevocations([...of.revocations.all, ...revokedAhead]) };
}

/** When this worker's `performance.now()` was 0, on the machine's clock: the tightest of some tries, for a thread can be put aside in each. */
function ownStartMs(): number {
  let best = { tookMs: Number.POSITIVE_INFINITY, startMs: 0 };
  for (let i = 0; i < 16; i++) {
    const before = performance.now();
    const nowMs = Number(process.hrtime.bigint()) / 1e6;
    const tookMs = performance.now() - before;
    if (tookMs < best.tookMs) best = { tookMs, startMs: nowMs - before - tookMs / 2 };
  }
  return best.startMs;
}

function isSame(a: Revocation, b: Revocation): boolean {
  return (
    a.principal === b.principal && a.serial === b.serial && a.lineage === b.lineage && a.at === b.at
  );
}

function endWith(cause: unknown): never {
  throw cause;
}

/** Judged by what the addresses mean: a mapped spelling is the same door, and a wildcard is every address of this machine. */
function isOwnDoor(host: string, at: number): boolean {
  const address = parseAddress(host)?.text ?? host;
  return ownDoors.some((door) => {
    if (door.port !== at) return false;
    if (classifyAddress(door.host) !== "wildcard")
      return (parseAddress(door.host)?.text ?? door.host) === address;
    return (
      classifyAddress(address) === "loopback" ||
      localAddresses().some((local) => parseAddress(local.address)?.text === address)
    );
  });
}

function tell(report: Report): void {
  port?.postMessage(report);
}

function trustOf(order: CredentialOrder): Trust {
  const parse = (pem: string) => certificatesIn(pem).map((one) => new X509Certificate(one));
  return {
    trustDomain: order.trustDomain,
    bundles: { data: parse(order.dataBundlePem), control: parse(order.controlBundlePem) },
  };
}
