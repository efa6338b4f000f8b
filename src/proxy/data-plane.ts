import type { Socket } from "node:net";
import { formatHostPort } from "../base/address.ts";
import type { Endpoint } from "../base/guard.ts";
import type { Running } from "../base/lifecycle.ts";
import { Refusal } from "../model/refusal.ts";
import type { Revocation } from "../model/snapshot.ts";
import type { Trust } from "../policy/peer.ts";
import type { View } from "../policy/view.ts";
import { Arrivals, type Secured, type ServerCredentials, turnAway } from "./accept/arrivals.ts";
import { receiveOnDecoy } from "./accept/decoy.ts";
import { listenOn } from "./accept/listen.ts";
import { bounds } from "./bounds.ts";
import { Origins } from "./forward/origins.ts";
import { identify, type Stranger } from "./identify/identify.ts";
import type { Needs } from "./needs.ts";
import { Outbox } from "./record/outbox.ts";
import { refusalBytes } from "./refuse.ts";
import { type House, Session } from "./session.ts";
import { Sessions } from "./sessions.ts";

/** One descriptor to listen on, and whom it is for. */
export type DoorDescriptor = {
  readonly fd: number;
  readonly allowed: Endpoint;
  readonly door: "data" | "decoy";
  /** By the peer's address, asked before the first byte is read. */
  readonly admits: (address: string) => boolean;
};

/**
 * The data plane of one worker: doors, handshakes, sessions and upstream connections, on one thread and without a lock. Everything it
 * knows is handed in and swapped whole.
 */
export class DataPlane {
  readonly #needs: Needs;
  readonly #outbox: Outbox;
  readonly #origins: Origins;
  readonly #sessions = new Sessions();
  readonly #arrivals: Arrivals;
  readonly #house: House;
  readonly #doors = new Map<string, Running>();
  readonly #timer: NodeJS.Timeout;
  #trust: Trust;
  #draining = false;
  #settled: (() => void) | undefined;

  constructor(needs: Needs, credentials: ServerCredentials, trust: Trust) {
    this.#needs = needs;
    this.#trust = trust;
    this.#outbox = new Outbox(needs.recorder);
    this.#origins = new Origins(needs);
    this.#house = {
      needs,
      outbox: this.#outbox,
      origins: this.#origins,
      via: `${needs.gate}.gate.${trust.trustDomain}`,
      draining: () => this.#draining,
      counts: { requests: 0, refused: 0 },
    };
    this.#arrivals = new Arrivals(
      { needs, outbox: this.#outbox, openConnections: () => this.#sessions.size },
      credentials,
      (secured) => this.#receive(secured),
    );
    let sweeps = 0;
    this.#timer = setInterval(() => {
      const now = needs.monotonic();
      this.#arrivals.sweep(now);
      this.#sessions.sweep(now, needs.clock());
      if (++sweeps % 4 === 0) this.#origins.sweep();
    }, bounds.sweepMs);
  }

  /** Opens a door. Rejects when the descriptor is not bound where it should be. */
  async open(descriptor: DoorDescriptor): Promise<void> {
    const take =
      descriptor.door === "decoy"
        ? (socket: Socket) => receiveOnDecoy(socket, this.#needs, this.#outbox)
        : (socket: Socket) => this.#arrivals.take(socket, descriptor.admits);
    const name = formatHostPort(descriptor.allowed.host, descriptor.allowed.port);
    this.#doors.set(`${descriptor.door} ${name}`, await listenOn(descriptor, take));
  }

  /** Closes a door; what came through it stays. */
  async shut(door: "data" | "decoy", at: Endpoint): Promise<void> {
    const key = `${door} ${formatHostPort(at.host, at.port)}`;
    await this.#doors.get(key)?.close();
    this.#doors.delete(key);
  }

  /** For every handshake from here on. Fails closed: what is open under a root that is trusted no more is cut. */
  swapCredentials(credentials: ServerCredentials, trust: Trust): void {
    this.#trust = trust;
    this.#arrivals.swap(credentials);
    this.#sessions.retrust(trust);
  }

  /** More leaves to choose from by SNI, beside those that are there. */
  addNames(names: ServerCredentials["byName"]): void {
    this.#arrivals.addNames(names);
  }

  /** A new view is in force (`needs.view` gives it): everything open is asked again, now. */
  viewChanged(view: View): void {
    this.#sessions.reconsider(view);
    this.#origins.retain((service, port) => view.services.get(service)?.ports.has(port) ?? false);
  }

  /** A revocation that came ahead of its view. `needs.view` must refuse the principal from now on. */
  revoke(revocation: Revocation): void {
    this.#sessions.revoke(revocation);
  }

  /** Numbers for the ops door. */
  counters(): Readonly<Record<"requests" | "refused" | "connections", number>> {
    return { ...this.#house.counts, connections: this.#sessions.size };
  }

  /** Stops accepting, lets what is under way finish, and resolves when nothing is left or `withinMs` is over. */
  async drain(withinMs: number): Promise<void> {
    this.#draining = true;
    for (const door of this.#doors.values()) await door.close();
    this.#arrivals.close();
    this.#sessions.drain();
    if (this.#sessions.size > 0)
      await new Promise<void>((done) => {
        const timer = setTimeout(done, withinMs);
        this.#settled = () => {
          clearTimeout(timer);
          done();
        };
      });
    await this.close();
  }

  async close(): Promise<void> {
    this.#draining = true;
    clearInterval(this.#timer);
    for (const door of this.#doors.values()) await door.close();
    this.#arrivals.close();
    this.#sessions.close();
    this.#origins.close();
    this.#outbox.flush();
  }

  #receive(secured: Secured): void {
    const { needs } = this.#house;
    const judged = identify(secured, needs.view(), { trust: this.#trust, nowMs: needs.clock() });
    if ("stranger" in judged) return this.#turnAway(secured, judged.stranger);
    const { socket, sni, peer: address, local } = secured;
    const session = new Session(socket, judged.caller, {
      house: this.#house,
      peer: { address, local, sni },
      onClose: (closed) => this.#closed(closed),
    });
    if (!this.#sessions.add(session)) session.cut("too_many_connections");
    else if (this.#draining) session.drain();
  }

  #closed(session: Session): void {
    this.#sessions.remove(session);
    if (this.#sessions.size === 0) this.#settled?.();
  }

  /** Its handshake is complete, so it is told why, in fixed words and without reading a byte of what it sends. */
  #turnAway(secured: Secured, stranger: Stranger): void {
    const { needs, outbox } = this.#house;
    this.#house.counts.refused++;
    const { caller, code } = stranger;
    const refusal = new Refusal(code, stranger.detail);
    let hit: string | undefined;
    const answer = (): void =>
      turnAway(secured.socket, refusalBytes(refusal, { hit, close: true, bodiless: false }));
    outbox.put({
      record() {
        hit = needs.recorder.add({
          at: needs.clock(),
          plane: "data",
          kind: "connection",
          decision: "refused",
          code,
          ...(caller && { caller: caller.shortName, serial: caller.serial }),
          ...(stranger.claimed !== undefined && { claimed: stranger.claimed }),
          peer: secured.peer,
          local: secured.local,
          gate: needs.gate,
          status: refusal.status,
          detail: `${stranger.detail} sni=${secured.sni ?? "-"}`.slice(0, 512),
        });
      },
      release: answer,
      withhold: () => secured.socket.destroy(),
    });
  }
}
