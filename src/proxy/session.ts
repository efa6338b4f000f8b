import type { Socket } from "node:net";
import type { Hit } from "../model/hit.ts";
import { Refusal, type RefusalCode } from "../model/refusal.ts";
import { snapshotName } from "../model/snapshot.ts";
import type { View } from "../policy/view.ts";
import { type RequestHead, RequestParser } from "../wire/http1/request-parser.ts";
import type { WireError } from "../wire/wire-error.ts";
import { closeInOrder } from "./accept/close-in-order.ts";
import { readLent } from "./accept/lent-reads.ts";
import { DeniedBy } from "./authorize/permit.ts";
import { bounds } from "./bounds.ts";
import { type Client, Exchange } from "./forward/exchange.ts";
import type { Origins } from "./forward/origins.ts";
import type { Caller } from "./identify/caller.ts";
import { RateLimited } from "./limit/limit.ts";
import type { Needs } from "./needs.ts";
import type { Outbox } from "./record/outbox.ts";
import { refusalBytes } from "./refuse.ts";
import { type Attempt, serve } from "./serve.ts";

/** A line of the hit log while it is put together. */
type Filling = { -readonly [K in keyof Omit<Hit, "id">]: Hit[K] };

/** What a session shares with all others of its worker. */
export type House = {
  readonly needs: Needs;
  readonly outbox: Outbox;
  readonly origins: Origins;
  /** How this gate names itself in `Via`. */
  readonly via: string;
  /** True from SIGTERM on: every response ends its connection. */
  readonly draining: () => boolean;
  /** What early warning wants to see: refusals, as they are recorded. */
  readonly counts: { requests: number; refused: number };
};

/** Where the connection came from and went to, for the record. */
export type Peer = {
  readonly address: string;
  readonly local: string;
  readonly sni: string | undefined;
};

/**
 * One connection of an identified caller: reads requests, one at a time and in order, and answers them. Owns the socket; closes it when
 * the caller is done, when its leaf expires, or when it is cut.
 */
export class Session implements Client {
  readonly caller: Caller;
  readonly peer: Peer;
  readonly #socket: Socket;
  readonly #house: House;
  readonly #parser: RequestParser;
  readonly #onClose: (session: Session) => void;
  #attempt: Attempt | undefined;
  #startedMs = 0;
  #exchange: Exchange | undefined;
  /** The exchange whose upstream is not asked for yet. */
  #unstarted: Exchange | undefined;
  /** When what is being waited for must have come, monotonic ms. */
  #deadlineMs: number;
  #ending = false;
  /** A refusal waits for its record; the next request waits for the refusal. */
  #refusing = false;
  /** The next request waits until the caller has taken what it was answered. */
  #choked = false;
  /** It asks nothing more; what it has asked is still answered. */
  #peerEnded = false;
  #closed = false;
  /** Whether a request, or what was meant as one, has come. */
  #asked = false;
  /** Whether the connection itself has its line. */
  #noted = false;
  /** Whether the parser lets underscores into field names, because some service accepts them. */
  readonly #underscores: boolean;

  constructor(
    socket: Socket,
    caller: Caller,
    with_: { house: House; peer: Peer; onClose: (session: Session) => void },
  ) {
    this.#socket = socket;
    this.caller = caller;
    this.peer = with_.peer;
    const { house } = with_;
    this.#house = house;
    this.#underscores = acceptsUnderscores(house.needs.view());
    this.#onClose = with_.onClose;
    this.#deadlineMs = this.#house.needs.monotonic() + bounds.idleMs;
    this.#parser = new RequestParser(
      {
        onHead: (head) => this.#onHead(head),
        onBody: (chunk) => this.#onBody(chunk),
        onEnd: (trailers) => this.#onEnd(trailers),
        onError: (error) => this.#onParseError(error),
      },
      // Whether underscores pass is the service's choice, which is only known with the Host: `#onHead` decides.
      {
        headBytesMax: bounds.headBytes,
        headersMax: bounds.headers,
        underscoreHeaders: this.#underscores,
      },
    );
    readLent(socket, (chunk) => this.#onData(chunk));
    socket.on("drain", () => this.#onDrain());
    socket.on("end", () => this.#onPeerEnd());
    socket.on("error", () => undefined); // "close" follows
    socket.on("close", () => this.#onSocketClose());
  }

  /** Ends what takes too long, and the connection with its leaf. Called a few times a second. */
  sweep(monotonicMs: number, clockMs: number): void {
    if (clockMs >= this.caller.notAfterMs) return this.cut("expired");
    if (this.#exchange !== undefined) return this.#exchange.sweep(monotonicMs);
    if (this.#ending || this.#refusing || monotonicMs < this.#deadlineMs) return;
    if (this.#parser.state === "head")
      this.#refuseHead(new Refusal("head_timeout", "the head took too long"));
    else this.#end();
  }

  /** Ends the connection at once, whatever it carries. The record says why. */
  cut(code: RefusalCode): void {
    if (this.#closed || this.#socket.destroyed) return;
    const exchange = this.#exchange;
    if (exchange !== undefined) exchange.abort(code);
    else if (!this.#ending) this.#noteConnection(code); // what is ending anyway has had its line
    this.#ending = true;
    this.#socket.destroy();
  }

  /** Asks again what is under way, after the view changed. Fails closed: a rule that is gone takes its request with it. */
  reconsider(view: View): void {
    if (!view.services.has(this.caller.name)) return this.cut("not_registered");
    const exchange = this.#exchange;
    if (exchange === undefined) return;
    const { port } = exchange.permit.target;
    const now = view.services.get(port.service)?.ports.get(port.port);
    if (now === undefined || !exchange.permit.standsIn(now, this.#house.needs.clock()))
      this.cut("not_authorized");
  }

  /** Lets the exchange under way finish and closes; a connection that rests closes now. */
  drain(): void {
    if (this.#exchange === undefined && !this.#refusing && this.#parser.state === "idle")
      this.#end();
  }

  // What the caller sends.

  #onData(chunk: Buffer): void {
    this.#asked = true;
    if (this.#ending) return;
    this.#parser.push(chunk);
    this.#startExchange();
    // What came after a request that is not answered yet waits in the parser; more than one read of it waits in the kernel.
    if (this.#parser.buffered > 0) this.#socket.pause();
    else if (this.#parser.state === "head" && this.#startedMs === 0) this.#beginHead();
  }

  #beginHead(): void {
    this.#startedMs = this.#house.needs.monotonic();
    this.#deadlineMs = this.#startedMs + bounds.headMs;
  }

  #onHead(head: RequestHead): void {
    const { needs, origins, via } = this.#house;
    const startedMs = this.#startedMs || needs.monotonic();
    this.#startedMs = 0;
    const attempt: Attempt = {
      head,
      caller: this.caller,
      sni: this.peer.sni,
      atMs: needs.clock(),
      port: undefined,
      target: undefined,
      view: undefined,
    };
    this.#attempt = attempt;
    this.#house.counts.requests++;
    try {
      const permit = serve(attempt, needs);
      if (this.#underscores && !permit.target.port.accept.underscoreHeaders)
        refuseUnderscores(head);
      const exchange = new Exchange(head, permit, {
        client: this,
        via,
        times: { clockMs: attempt.atMs, startedMs },
      });
      this.#exchange = exchange;
      // A chunked body can turn out malformed: what came in the same read is judged before the service hears of the request.
      if (head.body === "chunked") this.#unstarted = exchange;
      else exchange.start(origins);
    } catch (cause) {
      this.#exchange = undefined;
      this.#refuseAttempt(asRefusal(cause, needs), attempt, startedMs);
    }
  }

  /** Begins what waited for the end of the read that brought it. */
  #startExchange(): void {
    const exchange = this.#unstarted;
    this.#unstarted = undefined;
    if (exchange === undefined || exchange !== this.#exchange) return;
    try {
      exchange.start(this.#house.origins);
    } catch (cause) {
      this.refuse(asRefusal(cause, this.#house.needs), exchange);
    }
  }

  #onBody(chunk: Buffer): void {
    // Of a refused request nothing is kept; `#refuseAttempt` has begun to close.
    if (this.#exchange?.requestBody(chunk) === false) this.#socket.pause();
  }

  #onEnd(trailers: readonly string[] | undefined): void {
    this.#parser.pause(); // the next request waits until this one is answered
    this.#exchange?.requestEnd(trailers);
  }

  #onParseError(error: WireError): void {
    // Behind a request that was refused with its body unread, nothing is an error of its own.
    if (this.#ending) return;
    // A body that turns out malformed after its head went on: the upstream connection is reset with it.
    if (this.#exchange !== undefined) this.#exchange.onFailed(error.code, error.detail);
    else this.#refuseHead(new Refusal(error.code, error.detail));
  }

  #onPeerEnd(): void {
    if (this.#ending) return;
    this.#peerEnded = true;
    this.#parser.end(); // in the middle of a message that is an error; after one, the answer still goes out
    this.#startExchange();
    this.#endWithPeer();
  }

  /** A caller that has half-closed is let go with its last answer. */
  #endWithPeer(): void {
    const answering = this.#exchange !== undefined || this.#refusing || this.#choked;
    if (this.#peerEnded && !answering && !this.#ending) this.#end();
  }

  #onSocketClose(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#exchange?.abort("client_gone");
    this.#exchange = undefined;
    if (!this.#asked && !this.#noted) this.#noteConnection(undefined); // it proved who it is, looked, and left
    this.#onClose(this);
  }

  // What an exchange asks for.

  hold(exchange: Exchange): void {
    this.#house.outbox.put(exchange);
  }

  write(data: Buffer | string): boolean {
    // An empty write would make Node read once more, from inside a read, into bytes that are lent out.
    if (this.#closed || data.length === 0) return true;
    return typeof data === "string" ? this.#socket.write(data, "latin1") : this.#socket.write(data);
  }

  together(write: () => void): void {
    this.#socket.cork();
    write();
    this.#socket.uncork();
  }

  pauseRequest(): void {
    this.#socket.pause();
  }

  resumeRequest(): void {
    if (this.#parser.buffered === 0 && !this.#closed) this.#socket.resume();
  }

  mustClose(): boolean {
    const { needs, draining } = this.#house;
    return (
      this.#ending ||
      (this.#peerEnded && this.#parser.buffered === 0) ||
      draining() ||
      needs.clock() > this.caller.notAfterMs - bounds.expirySoonMs
    );
  }

  done(exchange: Exchange, keepAlive: boolean): void {
    if (this.#exchange !== exchange) return;
    this.#exchange = undefined;
    this.#attempt = undefined;
    if (exchange.code !== undefined) return void this.#socket.destroy(); // cut short: no clean end
    // Since its head went out, the gate may have begun to drain, or the leaf come near its end.
    if (!keepAlive || this.mustClose()) return this.#end();
    this.#next();
  }

  /** Reads on. Whoever sends requests and takes no answers waits: what it was answered is all that is kept for it. */
  #next(): void {
    this.#deadlineMs = this.#house.needs.monotonic() + bounds.idleMs;
    this.#choked = this.#socket.writableNeedDrain;
    if (this.#choked) return void this.#socket.pause();
    this.#parser.resume();
    this.#startExchange();
    if (this.#exchange === undefined && this.#parser.state === "head") this.#beginHead();
    if (this.#parser.buffered === 0) this.#socket.resume();
    this.#endWithPeer();
  }

  #onDrain(): void {
    this.#exchange?.onClientDrain();
    if (this.#choked && !this.#ending) this.#next();
  }

  refuse(refusal: Refusal, exchange: Exchange): void {
    this.#exchange = undefined;
    const attempt = this.#attempt;
    if (attempt === undefined) return void this.#socket.destroy();
    this.#refuseAttempt(refusal, attempt, exchange.times.startedMs, exchange);
  }

  note(record: () => void): void {
    this.#house.outbox.note(record);
  }

  mayGoUnrecorded(exchange: Exchange): boolean {
    return exchange.permit.target.port.audit === "bestEffort";
  }

  lineOpen(exchange: Exchange): string {
    const { needs } = this.#house;
    const { target, rule } = exchange.permit;
    const { caller, peer } = this;
    // Once for every request, so by assignment: five spreads cost as much as printing the line.
    const hit: Filling = {
      at: exchange.times.clockMs,
      plane: "data",
      kind: "request",
      decision: "allowed",
      caller: caller.shortName,
      serial: caller.serial,
      peer: peer.address,
      local: peer.local,
      gate: needs.gate,
      service: target.port.service,
      port: target.port.port,
      method: target.method,
      path: target.path,
      rule: rule.id,
      status: exchange.status,
    };
    const view = this.#attempt?.view;
    if (view !== undefined) hit.snapshot = nameOf(view);
    if (exchange.upstream !== undefined) hit.upstream = exchange.upstream;
    if (exchange.finished || exchange.code !== undefined) {
      hit.bytesIn = exchange.bytesIn;
      hit.bytesOut = exchange.bytesOut;
      hit.tookMs = needs.monotonic() - exchange.times.startedMs;
    }
    if (exchange.code !== undefined) hit.code = exchange.code;
    if (exchange.canary !== undefined) hit.canary = exchange.canary;
    return needs.recorder.add(hit);
  }

  lineClose(exchange: Exchange): void {
    const { needs } = this.#house;
    needs.recorder.add({
      at: needs.clock(),
      plane: "data",
      kind: "close",
      decision: "allowed",
      ...(exchange.code !== undefined && { code: exchange.code }),
      caller: this.caller.shortName,
      gate: needs.gate,
      service: exchange.permit.target.port.service,
      status: exchange.status,
      ...this.#measures(exchange),
      ...(exchange.hit !== undefined && { of: exchange.hit }),
    });
  }

  #measures(exchange: Exchange): { bytesIn: number; bytesOut: number; tookMs: number } {
    const tookMs = this.#house.needs.monotonic() - exchange.times.startedMs;
    return { bytesIn: exchange.bytesIn, bytesOut: exchange.bytesOut, tookMs };
  }

  #snapshot(): { snapshot?: string } {
    const view = this.#attempt?.view;
    return view === undefined ? {} : { snapshot: nameOf(view) };
  }

  // How a no reaches the caller.

  /** A head that never became a request. */
  #refuseHead(refusal: Refusal): void {
    this.#attempt = undefined;
    this.#sendRefusal(refusal, undefined, this.#startedMs || this.#house.needs.monotonic());
  }

  #refuseAttempt(refusal: Refusal, attempt: Attempt, startedMs: number, exchange?: Exchange): void {
    this.#sendRefusal(refusal, attempt, startedMs, exchange);
  }

  #sendRefusal(
    refusal: Refusal,
    attempt: Attempt | undefined,
    startedMs: number,
    exchange?: Exchange,
  ): void {
    this.#house.counts.refused++;
    // A request whose body is not read to its end cannot be followed by another on this connection.
    const whole =
      attempt !== undefined && (attempt.head.body === "none" || this.#parser.state === "idle");
    const close = !whole || !attempt.head.keepAlive || this.mustClose();
    if (close) this.#ending = true;
    this.#refusing = true;
    const bodiless = attempt?.head.method === "HEAD";
    let hit = "";
    this.#house.outbox.put({
      record: () => {
        hit = this.#lineRefused(refusal, attempt, startedMs, exchange);
      },
      release: () => this.#answer(refusalBytes(refusal, { hit, close, bodiless }), close),
      withhold: () => {
        const unavailable = new Refusal("audit_unavailable", "the hit log cannot be written");
        this.#answer(refusalBytes(unavailable, { hit: undefined, close: true, bodiless }), true);
      },
    });
  }

  #lineRefused(
    refusal: Refusal,
    attempt: Attempt | undefined,
    startedMs: number,
    exchange: Exchange | undefined,
  ): string {
    const { needs } = this.#house;
    const { port, target } = attempt ?? {};
    const rule =
      refusal instanceof DeniedBy || refusal instanceof RateLimited
        ? refusal.rule
        : exchange?.permit.rule.id;
    return needs.recorder.add({
      at: attempt?.atMs ?? needs.clock(),
      plane: "data",
      kind: "request",
      decision: refusal.code === "fault" ? "fault" : "refused",
      code: refusal.code,
      caller: this.caller.shortName,
      serial: this.caller.serial,
      peer: this.peer.address,
      local: this.peer.local,
      gate: needs.gate,
      ...(port && { service: port.service, port: port.port }),
      ...(attempt && { method: attempt.head.method, path: target?.path ?? attempt.head.path }),
      ...(rule !== undefined && { rule }),
      status: refusal.status,
      ...(exchange?.upstream !== undefined && { upstream: exchange.upstream }),
      ...this.#snapshot(),
      bytesIn: exchange?.bytesIn ?? 0,
      tookMs: needs.monotonic() - startedMs,
      ...(exchange?.canary !== undefined && { canary: exchange.canary }),
      detail: refusal.message.slice(0, 512),
    });
  }

  #noteConnection(code: RefusalCode | undefined): void {
    this.#noted = true;
    const { needs, outbox } = this.#house;
    outbox.note(() =>
      needs.recorder.add({
        at: needs.clock(),
        plane: "data",
        kind: "connection",
        decision: code === undefined ? "allowed" : "refused",
        ...(code !== undefined && { code }),
        caller: this.caller.shortName,
        serial: this.caller.serial,
        peer: this.peer.address,
        local: this.peer.local,
        gate: needs.gate,
        status: 0,
      }),
    );
  }

  #answer(bytes: string, close: boolean): void {
    this.#refusing = false;
    if (this.#closed) return;
    this.#attempt = undefined;
    this.write(bytes);
    if (close || this.mustClose()) this.#end();
    else this.#next();
  }

  #end(): void {
    if (this.#closed) return;
    this.#ending = true;
    closeInOrder(this.#socket);
  }
}

const underscoresOf = new WeakMap<View, boolean>();

/** Whether any service does: found once a view, not once a connection. */
function acceptsUnderscores(view: View | undefined): boolean {
  if (view === undefined) return false;
  let known = underscoresOf.get(view);
  if (known === undefined) {
    known = [...view.services.values()].some((one) => one.accept.underscoreHeaders);
    underscoresOf.set(view, known);
  }
  return known;
}

function refuseUnderscores(head: RequestHead): void {
  for (let which = 0; which < head.fields.count; which++)
    if (head.fields.name(which).includes("_"))
      throw new Refusal("bad_header", "a field name with an underscore");
}

let lastView: View | undefined;
let lastName = "";

/** The view's name, made once a view. */
function nameOf(view: View): string {
  if (view !== lastView) {
    lastView = view;
    lastName = snapshotName(view);
  }
  return lastName;
}

/** A no is expected; anything else that was thrown is a bug of ours: refused as a fault, told to the log. */
function asRefusal(cause: unknown, needs: Needs): Refusal {
  if (cause instanceof Refusal) return cause;
  needs.log.error({ err: cause }, "a fault while serving a request");
  return new Refusal("fault", cause instanceof Error ? cause.message : String(cause), { cause });
}
