import type { X509Certificate } from "node:crypto";
import type { Socket } from "node:net";
import {
  createSecureContext,
  createServer,
  type SecureContext,
  type Server,
  type TLSSocket,
} from "node:tls";
import { formatHostPort } from "../../base/address.ts";
import type { Credentials } from "../../base/credentials.ts";
import { serverContext, serverOptions } from "../../base/secure-context.ts";
import type { RefusalCode } from "../../model/refusal.ts";
import { readClientHello } from "../../wire/client-hello.ts";
import { bounds } from "../bounds.ts";
import type { Needs } from "../needs.ts";
import type { Outbox } from "../record/outbox.ts";
import { closeInOrder } from "./close-in-order.ts";

/** The gate's leaves: its own, and one for each name that callers may put into SNI. */
export type ServerCredentials = {
  readonly own: Credentials;
  readonly byName: ReadonlyMap<string, Pick<Credentials, "keyPem" | "chainPem">>;
};

/** A finished handshake, before anybody has looked at the certificate. */
export type Secured = {
  readonly socket: TLSSocket;
  readonly leaf: X509Certificate | undefined;
  /** OpenSSL's own verdict; a hint for the record, never the decision. */
  readonly opensslSays: string | undefined;
  readonly sni: string | undefined;
  readonly peer: string;
  readonly local: string;
};

type Arrival = {
  readonly raw: Socket;
  /** What it is found by; a closed socket can no longer say. */
  readonly key: string;
  readonly address: string;
  readonly peer: string;
  readonly local: string;
  readonly atMs: number;
  readonly deadlineMs: number;
  /** What the hello offered, for the record. */
  offered: string;
  settled: boolean;
};

/**
 * From an accepted socket to a finished handshake. Owns each socket until it hands it to `onSecured`. Reads the first flight itself, so
 * that what is not TLS, and what a refused peer offered, is in the record; one deadline runs from accept to the end of the handshake.
 * Fails closed: addresses outside `admits`, too many handshakes, no TLS 1.3, silence: all end here, each as a hit.
 */
export class Arrivals {
  readonly #needs: Needs;
  readonly #outbox: Outbox;
  readonly #tls: Server;
  readonly #onSecured: (secured: Secured) => void;
  readonly #arrivals = new Map<string, Arrival>();
  /** Handshakes under way by the peer's address, oldest first. */
  readonly #bySource = new Map<string, Set<Arrival>>();
  #own: Credentials;
  readonly #names = new Map<string, Pick<Credentials, "keyPem" | "chainPem">>();
  /** Made when a caller first asks for the name; the longest unused first. */
  readonly #contexts = new Map<string, SecureContext>();
  readonly #openConnections: () => number;

  constructor(
    with_: { needs: Needs; outbox: Outbox; openConnections: () => number },
    credentials: ServerCredentials,
    onSecured: (secured: Secured) => void,
  ) {
    this.#needs = with_.needs;
    this.#outbox = with_.outbox;
    this.#openConnections = with_.openConnections;
    this.#onSecured = onSecured;
    this.#own = credentials.own;
    this.#tls = createServer({
      ...serverOptions(credentials.own),
      allowHalfOpen: true,
      // Ours is the deadline: Node's closes nothing. Its own is put out of the way.
      handshakeTimeout: bounds.handshakeMs * 2,
      SNICallback: (name, done) => {
        try {
          done(null, this.#contextOf(name.toLowerCase()));
        } catch (cause) {
          done(cause as Error);
        }
      },
    });
    this.#tls.on("secureConnection", (socket) => this.#secured(socket));
    this.#tls.on("tlsClientError", (error, socket) => {
      this.#lost(socket, error);
      socket.destroy();
    });
    this.swap(credentials);
  }

  /**
   * New leaves and roots for every handshake from now on. Those that exist keep theirs until they expire. Names that are not among
   * the new ones keep the leaf they have.
   */
  swap(credentials: ServerCredentials): void {
    // Throws on a mismatched key, and then the old ones stay.
    this.#tls.setSecureContext(serverContext(credentials.own));
    this.#own = credentials.own;
    this.#contexts.clear();
    this.addNames(credentials.byName);
  }

  /** Leaves for more names, or newer ones. */
  addNames(names: ServerCredentials["byName"]): void {
    for (const [name, one] of names) {
      this.#names.set(name, one);
      this.#contexts.delete(name);
    }
  }

  /** Undefined: the gate's own is shown. A context takes memory and time, so there are only those that callers ask for. */
  #contextOf(name: string): SecureContext | undefined {
    const leaf = this.#names.get(name);
    if (leaf === undefined) return undefined;
    const { bundlePem } = this.#own;
    const context =
      this.#contexts.get(name) ?? createSecureContext(serverContext({ ...leaf, bundlePem }));
    this.#contexts.delete(name);
    this.#contexts.set(name, context);
    const [oldest] = this.#contexts.keys();
    if (this.#contexts.size > contextsMax && oldest !== undefined) this.#contexts.delete(oldest);
    return context;
  }

  /** Takes ownership of a socket that was just accepted. */
  take(raw: Socket, admits: (address: string) => boolean): void {
    const address = raw.remoteAddress;
    raw.on("error", () => undefined); // "close" follows, and says what there is to say
    if (address === undefined) return void raw.destroy(); // gone already; the kernel has no name for it any more
    const now = this.#needs.monotonic();
    const arrival: Arrival = {
      raw,
      key: keyOf(raw),
      address,
      peer: formatHostPort(address, raw.remotePort ?? 0),
      local: formatHostPort(raw.localAddress ?? "", raw.localPort ?? 0),
      atMs: this.#needs.clock(),
      deadlineMs: now + bounds.handshakeMs,
      offered: "",
      settled: false,
    };
    if (!admits(address)) return this.#refuse(arrival, "address_not_allowed", "");
    if (this.#openConnections() >= bounds.connections)
      return this.#refuse(arrival, "too_many_connections", "");
    if (!this.#hasRoom(address, now)) return this.#refuse(arrival, "too_many_handshakes", "");
    raw.setNoDelay(true);
    this.#arrivals.set(arrival.key, arrival);
    const ofSource = this.#bySource.get(address) ?? new Set();
    this.#bySource.set(address, ofSource.add(arrival));
    raw.once("close", () => {
      if (!arrival.settled)
        this.#refuse(arrival, "handshake_failed", "closed during the handshake");
    });
    this.#readFirstFlight(arrival);
  }

  /** Ends handshakes that took too long. Called a few times a second. */
  sweep(monotonicMs: number): void {
    for (const arrival of this.#arrivals.values())
      if (monotonicMs > arrival.deadlineMs)
        this.#refuse(arrival, "handshake_timeout", `no handshake in ${bounds.handshakeMs} ms`);
  }

  /** Ends every handshake under way. */
  close(): void {
    for (const arrival of this.#arrivals.values()) {
      this.#settle(arrival);
      arrival.raw.destroy();
    }
  }

  /**
   * Where the places are taken, the oldest handshake that stalls goes: whoever opens connections and says nothing would otherwise keep
   * out all who come from the same address, be it a NAT's or this machine's. Those that get on are left alone, so that a crowd of
   * honest peers is served one after another. Fails closed: while nobody stalls, the newcomer goes.
   */
  #hasRoom(address: string, now: number): boolean {
    const ofSource = this.#bySource.get(address);
    const isCrowd = ofSource !== undefined && ofSource.size >= bounds.handshakesPerSource;
    if (!isCrowd && this.#arrivals.size < bounds.handshakes) return true;
    for (const other of isCrowd ? ofSource : this.#arrivals.values()) {
      const ageMs = now - other.deadlineMs + bounds.handshakeMs;
      if (ageMs < (other.offered === "" ? bounds.silentMs : bounds.stalledMs)) continue;
      this.#refuse(other, "too_many_handshakes", "made room for a newer one");
      return true;
    }
    return false;
  }

  #readFirstFlight(arrival: Arrival): void {
    const { raw } = arrival;
    let flight: Buffer = Buffer.alloc(0);
    let reads = 0;
    const onData = (chunk: Buffer): void => {
      flight = flight.length === 0 ? chunk : Buffer.concat([flight, chunk]);
      const read = readClientHello(flight);
      // Each look starts at the first byte again, so looks are limited as well.
      if (
        read.kind === "partial" &&
        flight.length < bounds.firstFlightBytes &&
        ++reads < bounds.firstFlightReads
      )
        return;
      raw.off("data", onData);
      raw.off("end", onEnd);
      if (read.kind === "not-tls")
        return this.#refuse(arrival, "not_tls", `first bytes: ${read.first}`);
      if (read.kind === "malformed") return this.#refuse(arrival, "handshake_failed", read.why);
      if (read.kind === "partial")
        return this.#refuse(
          arrival,
          "handshake_failed",
          "no whole ClientHello in 16 KiB or 64 pieces",
        );
      arrival.offered = describe(read);
      raw.pause();
      raw.unshift(flight);
      this.#tls.emit("connection", raw);
    };
    const onEnd = (): unknown => raw.destroy(); // half-closed before it said anything: nothing will follow
    raw.on("data", onData);
    raw.once("end", onEnd);
  }

  #secured(socket: TLSSocket): void {
    const arrival = this.#arrivals.get(keyOf(socket));
    if (arrival === undefined) return void socket.destroy(); // its deadline has passed
    this.#settle(arrival);
    socket.on("error", () => undefined);
    const { authorizationError } = socket;
    const sni = socket.servername;
    this.#onSecured({
      socket,
      leaf: socket.getPeerX509Certificate(),
      opensslSays: authorizationError ? String(authorizationError) : undefined,
      sni: typeof sni === "string" && sni !== "" ? sni.toLowerCase() : undefined,
      peer: arrival.peer,
      local: arrival.local,
    });
  }

  #lost(socket: TLSSocket, error: NodeJS.ErrnoException): void {
    const arrival = this.#arrivals.get(keyOf(socket));
    if (arrival !== undefined)
      this.#refuse(
        arrival,
        "handshake_failed",
        `${error.code ?? error.message} ${arrival.offered}`,
      );
  }

  #settle(arrival: Arrival): void {
    if (arrival.settled) return;
    arrival.settled = true;
    // A peer that resets and comes again from the same port may be here before the old socket's "close": the key is then the new one's.
    if (this.#arrivals.get(arrival.key) === arrival) this.#arrivals.delete(arrival.key);
    const ofSource = this.#bySource.get(arrival.address);
    ofSource?.delete(arrival);
    if (ofSource?.size === 0) this.#bySource.delete(arrival.address);
  }

  /** Nothing is sent: a peer that speaks no TLS learns nothing, and alerts would only help a scanner. */
  #refuse(arrival: Arrival, code: RefusalCode, detail: string): void {
    this.#settle(arrival);
    arrival.raw.destroy();
    const { needs, outbox } = { needs: this.#needs, outbox: this.#outbox };
    outbox.note(() =>
      needs.recorder.add({
        at: arrival.atMs,
        plane: "data",
        kind: "connection",
        decision: "refused",
        code,
        peer: arrival.peer,
        local: arrival.local,
        gate: needs.gate,
        status: 0,
        tookMs: needs.clock() - arrival.atMs,
        ...((detail || arrival.offered) && { detail: (detail || arrival.offered).slice(0, 512) }),
      }),
    );
  }
}

/** Contexts of names that are kept at a time. */
const contextsMax = 1_024;

/** Both ends: unique among the connections that are open, also where one peer uses one port for two doors. */
function keyOf(
  socket: Pick<Socket, "remoteAddress" | "remotePort" | "localAddress" | "localPort">,
): string {
  return `${socket.remoteAddress} ${socket.remotePort} ${socket.localAddress} ${socket.localPort}`;
}

function describe(hello: {
  sni?: string;
  alpn: string[];
  versions: string[];
  groups: string[];
}): string {
  return `sni=${hello.sni ?? "-"} alpn=${hello.alpn.join(",") || "-"} versions=${hello.versions.join(",")} groups=${hello.groups.join(",")}`;
}

/** Answers a peer whose handshake is complete but whose identity is not accepted, without reading a byte of what it sends. */
export function turnAway(socket: TLSSocket, bytes: string): void {
  if (socket.destroyed) return;
  socket.write(bytes, "latin1");
  closeInOrder(socket);
}
