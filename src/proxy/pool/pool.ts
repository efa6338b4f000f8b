import { Worker } from "node:worker_threads";
import { formatHostPort } from "../../base/address.ts";
import type { Endpoint } from "../../base/guard.ts";
import type { Log } from "../../base/log.ts";
import type { Hit } from "../../model/hit.ts";
import type { Revocation } from "../../model/snapshot.ts";
import { applyPatch, diffServices, type ViewHeader } from "../../policy/compile.ts";
import { packPatch } from "../../policy/pack.ts";
import type { CompiledService, View } from "../../policy/view.ts";
import type {
  CredentialOrder,
  DoorOrder,
  NameCredentials,
  Order,
  Report,
  WorkerStart,
} from "./messages.ts";

export type PoolNeeds = {
  readonly size: number;
  /** Module that a worker runs. */
  readonly module: URL;
  readonly start: Omit<WorkerStart, "worker" | "credentials">;
  /** One descriptor of an address, for one worker. Rejects with a message for people. */
  readonly descriptor: (at: Endpoint) => Promise<number>;
  readonly log: Log;
  readonly onSeen: (hits: readonly Hit[], missed: number) => void;
  /** A worker ended without being told to; its successor is on the way. */
  readonly onDeath: (worker: number, why: string) => void;
  /** No worker can be started any more: the process should end and be started again. */
  readonly onHopeless: (why: string) => void;
};

/** A door without the descriptor, which each worker gets for itself. */
export type DoorPlan = Omit<DoorOrder, "fd">;

type OrderBody = Order extends infer T ? (T extends Order ? Omit<T, "number"> : never) : never;

type Member = {
  readonly index: number;
  readonly worker: Worker;
  readonly waiting: Map<number, { done(): void; failed(cause: Error): void }>;
  /** What it has been sent, so that a patch holds only what it lacks. */
  services: ReadonlyMap<string, CompiledService> | undefined;
  beat: Extract<Report, { kind: "beat" }> | undefined;
  /** Doors it was told to open, so that none is opened twice while it is being equipped. */
  readonly doors: Set<string>;
  leaving: boolean;
  /** It has ended; until its successor is hired, its place is empty. */
  gone: boolean;
};

const retryMs = [0, 100, 500, 1_000] as const;
/** A worker that dies this often in a minute will not be saved by being started once more. */
const deathsAMinute = 20;

/**
 * The workers of a gate, and what each of them has been told. A worker that dies is replaced and told everything again; the others never
 * notice. Views, credentials and doors are kept here, so that there is one truth about them.
 */
export class Pool {
  readonly #needs: PoolNeeds;
  #members: Member[] = [];
  #number = 0;
  #credentials: CredentialOrder | undefined;
  #view: View | undefined;
  #header: ViewHeader | undefined;
  #doors: DoorPlan[] = [];
  #ownDoors: readonly Endpoint[] = [];
  #deaths: number[] = [];
  #closing = false;

  constructor(needs: PoolNeeds) {
    this.#needs = needs;
  }

  /** Starts the workers. Call once, with the first credentials. */
  async start(credentials: CredentialOrder): Promise<void> {
    this.#credentials = credentials;
    for (let i = 0; i < this.#needs.size; i++) this.#members.push(this.#hire(i));
    await this.#all({ kind: "own-doors", doors: this.#ownDoors });
  }

  /** The view every worker is being brought to. */
  get view(): View | undefined {
    return this.#view;
  }

  /** Resolves when every worker decides by the new view and has asked what is open again. */
  async setView(header: ViewHeader, services: ReadonlyMap<string, CompiledService>): Promise<void> {
    this.#header = header;
    const whole = diffServices(this.#view?.services, services.values());
    this.#view = applyPatch(this.#view, { ...header, ...whole });
    await Promise.all(this.#members.map((member) => this.#bringUp(member)));
  }

  /** Resolves when no worker admits what is revoked and what was open is cut. */
  async revoke(revocation: Revocation): Promise<void> {
    // A worker that is hired before the next snapshot must know it too.
    if (this.#header !== undefined)
      this.#header = {
        ...this.#header,
        revocations: [...this.#header.revocations, revocation],
      };
    await this.#all({ kind: "revoke", revocation });
  }

  async setCredentials(credentials: CredentialOrder): Promise<void> {
    this.#credentials = credentials;
    // Names come by the batch: all of them at once would hold up every worker.
    await this.#all({ kind: "credentials", credentials: { ...credentials, byName: new Map() } });
  }

  /** Leaves for more names, or newer ones; a worker that is hired later must be given them with `credentials.byName`. */
  async addNames(names: NameCredentials): Promise<void> {
    await this.#all({ kind: "names", names });
  }

  /** Addresses that no upstream may be: ours. */
  async setOwnDoors(doors: readonly Endpoint[]): Promise<void> {
    this.#ownDoors = doors;
    await this.#all({ kind: "own-doors", doors });
  }

  /** Opens a door in every worker. Rejects when any of them cannot. */
  async open(plan: DoorPlan): Promise<void> {
    this.#doors.push(plan);
    await Promise.all(this.#members.map((member) => this.#openIn(member, plan)));
  }

  /** Has every worker ask by the new plan who may connect. What is open stays: each request is asked for itself. */
  async admit(plan: DoorPlan): Promise<void> {
    const key = keyOf(plan.door, plan.at);
    this.#doors = this.#doors.map((one) => (keyOf(one.door, one.at) === key ? plan : one));
    await this.#all({ kind: "admit", order: plan });
  }

  async shut(door: "data" | "decoy", at: Endpoint): Promise<void> {
    this.#doors = this.#doors.filter(
      (plan) => plan.door !== door || plan.at.host !== at.host || plan.at.port !== at.port,
    );
    for (const member of this.#members) member.doors.delete(keyOf(door, at));
    await this.#all({ kind: "shut", door, at });
  }

  /** What the workers said last: heads of their chains, counters added up. */
  report(): {
    heads: Extract<Report, { kind: "beat" }>["heads"];
    counters: Record<string, number>;
    auditFailing: boolean;
    workers: number;
  } {
    const counters: Record<string, number> = {};
    for (const { beat } of this.#members)
      for (const [name, value] of Object.entries(beat?.counters ?? {}))
        counters[name] = (counters[name] ?? 0) + value;
    return {
      // What one that is gone said last is behind what it wrote last, which is read from its log.
      heads: this.#members.flatMap((member) => (member.gone ? [] : (member.beat?.heads ?? []))),
      counters,
      auditFailing: this.#members.some((member) => member.beat?.auditFailing === true),
      workers: this.#members.length,
    };
  }

  /** Lets every worker finish what it has begun, at most `withinMs`, and ends them. */
  async drain(withinMs: number): Promise<void> {
    this.#closing = true;
    for (const member of this.#members) member.leaving = true;
    await this.#all({ kind: "drain", withinMs });
    await Promise.all(this.#members.map((member) => member.worker.terminate()));
    this.#members = [];
  }

  async #all(order: OrderBody): Promise<void> {
    await Promise.all(this.#members.map((member) => this.#ask(member, order)));
  }

  /** Resolves when the worker has done it. A worker that dies meanwhile needs nothing more from this order: its successor starts with it. */
  #ask(member: Member, order: OrderBody): Promise<void> {
    if (member.gone) return Promise.resolve();
    const number = ++this.#number;
    return new Promise((done, failed) => {
      member.waiting.set(number, { done, failed });
      member.worker.postMessage({ ...order, number });
    });
  }

  async #bringUp(member: Member): Promise<void> {
    const view = this.#view;
    const header = this.#header;
    if (view === undefined || header === undefined) return;
    const patch = { ...header, ...diffServices(member.services, view.services.values()) };
    member.services = view.services;
    await this.#ask(member, { kind: "view", patch: packPatch(patch) });
  }

  async #openIn(member: Member, plan: DoorPlan): Promise<void> {
    const key = keyOf(plan.door, plan.at);
    if (member.gone || member.doors.has(key)) return;
    member.doors.add(key);
    const fd = await this.#needs.descriptor(plan.at);
    await this.#ask(member, { kind: "open", order: { ...plan, fd } });
  }

  #hire(index: number): Member {
    if (this.#credentials === undefined) throw new Error("a worker without credentials");
    const workerData: WorkerStart = {
      ...this.#needs.start,
      worker: index,
      credentials: this.#credentials,
    };
    const worker = new Worker(this.#needs.module, { workerData, name: `gate-worker-${index}` });
    const member: Member = {
      index,
      worker,
      waiting: new Map(),
      services: undefined,
      beat: undefined,
      doors: new Set(),
      leaving: false,
      gone: false,
    };
    let why = "ended";
    worker.on("message", (report: Report) => this.#hear(member, report));
    worker.on("error", (error) => {
      why = error instanceof Error ? (error.stack ?? error.message) : String(error);
    });
    worker.on("exit", (code) => this.#left(member, `${why} (code ${code})`));
    return member;
  }

  #hear(member: Member, report: Report): void {
    if (report.kind === "beat") member.beat = report;
    else if (report.kind === "seen") this.#needs.onSeen(report.hits, report.missed);
    else {
      const waiting = member.waiting.get(report.number);
      member.waiting.delete(report.number);
      if (report.problem === undefined) waiting?.done();
      else waiting?.failed(new Error(report.problem));
    }
  }

  #left(member: Member, why: string): void {
    member.gone = true;
    for (const waiting of member.waiting.values()) waiting.done();
    member.waiting.clear();
    if (member.leaving || this.#closing) return;
    this.#needs.onDeath(member.index, why);
    const now = performance.now();
    this.#deaths = [...this.#deaths.filter((at) => now - at < 60_000), now];
    if (this.#deaths.length > deathsAMinute) {
      this.#closing = true;
      this.#needs.onHopeless(
        `${this.#deaths.length} workers died within a minute; the last: ${why}`,
      );
      return;
    }
    const waitMs = retryMs[Math.min(this.#deaths.length - 1, retryMs.length - 1)] ?? 1_000;
    setTimeout(() => this.#replace(member), waitMs);
  }

  #replace(gone: Member): void {
    if (this.#closing) return;
    const member = this.#hire(gone.index);
    this.#members = this.#members.map((one) => (one === gone ? member : one));
    this.#equip(member).catch((cause: unknown) => {
      this.#needs.log.error(
        { err: cause, worker: member.index },
        "a new worker could not be set up",
      );
      void member.worker.terminate();
    });
  }

  /** Everything a worker must know before its doors open. */
  async #equip(member: Member): Promise<void> {
    await this.#ask(member, { kind: "own-doors", doors: this.#ownDoors });
    await this.#bringUp(member);
    for (const plan of this.#doors) await this.#openIn(member, plan);
  }
}

function keyOf(door: DoorPlan["door"], at: Endpoint): string {
  return `${door} ${formatHostPort(at.host, at.port)}`;
}
