import type { Socket } from "node:net";
import { formatHostPort } from "../../base/address.ts";
import type { Clock } from "../../base/clock.ts";
import { Refusal } from "../../model/refusal.ts";
import type { Upstream } from "../../model/register.ts";
import { bounds } from "../bounds.ts";
import { type DialRules, open, resolve, whyForbidden } from "./dial.ts";
import { UpstreamConnection } from "./upstream-connection.ts";

/** A request that waits for a connection. */
type Waiting = {
  /** Name of the service that asks. */
  readonly caller: string;
  readonly connectMs: number;
  ready(connection: UpstreamConnection): void;
  failed(refusal: Refusal): void;
  cancelled: boolean;
};

/**
 * One upstream address of the register with its connections. Hands out a resting connection at once; else dials. A connection is
 * only handed out while nothing says that the far side has closed it or is about to: a request is never sent twice.
 */
export class Origin {
  readonly name: string;
  readonly #upstream: Upstream;
  readonly #rules: () => DialRules;
  readonly #clock: Clock;
  readonly #idle: UpstreamConnection[] = [];
  readonly #waiting: Waiting[] = [];
  /** Every connection, and the IP address that was dialled for it. */
  readonly #open = new Map<UpstreamConnection, string | undefined>();
  #dialling = 0;
  #addresses: readonly string[] = [];
  #resolvedMs = Number.NEGATIVE_INFINITY;
  #resolving: Promise<readonly string[]> | undefined;
  #turn = 0;
  #failures = 0;
  #restUntilMs = 0;
  #closed = false;

  constructor(upstream: Upstream, rules: () => DialRules, monotonic: Clock) {
    this.#upstream = upstream;
    this.#rules = rules;
    this.#clock = monotonic;
    this.name =
      upstream.kind === "unix"
        ? `unix:${upstream.path}`
        : formatHostPort(upstream.host, upstream.port);
  }

  /** Requests that it is serving or that wait for it: what balancing compares. */
  get load(): number {
    return this.#open.size - this.#idle.length + this.#dialling + this.#waiting.length;
  }

  /** Whether it lately failed to connect and is being spared. */
  get resting(): boolean {
    return this.#clock() < this.#restUntilMs;
  }

  /**
   * Calls `ready` with a connection, at once if one rests, or `failed` with `upstream_down`, `upstream_timeout`,
   * `upstream_forbidden` or `overloaded`. The function returned takes the wish back.
   */
  take(
    for_: { readonly caller: string; readonly connectMs: number },
    ready: (connection: UpstreamConnection) => void,
    failed: (refusal: Refusal) => void,
  ): () => void {
    const resting = this.rested(for_.caller);
    if (resting !== undefined) {
      ready(resting);
      return () => undefined;
    }
    if (this.#waiting.length >= bounds.upstreamWaiting) {
      failed(new Refusal("overloaded", `${this.#waiting.length} requests wait for ${this.name}`));
      return () => undefined;
    }
    const waiting: Waiting = { ...for_, ready, failed, cancelled: false };
    this.#waiting.push(waiting);
    // What rests may only carry others: the oldest of it makes room.
    if (this.#isFull) this.#idle[0]?.destroy();
    this.#dialMore();
    return () => {
      waiting.cancelled = true;
      const at = this.#waiting.indexOf(waiting);
      if (at >= 0) this.#waiting.splice(at, 1);
    };
  }

  /** A connection that rests and may carry this caller's request now; its until `give`. Undefined when there is none. */
  rested(caller: string): UpstreamConnection | undefined {
    const now = this.#clock();
    // The one used last: the others may go to rest.
    for (let at = this.#idle.length - 1; at >= 0; at--) {
      const connection = this.#idle[at] as UpstreamConnection;
      if (!connection.mayCarry(caller)) continue;
      if (at === this.#idle.length - 1) this.#idle.pop();
      else this.#idle.splice(at, 1);
      if (connection.reusable && connection.idleUntilMs > now) return connection;
      connection.destroy();
    }
    return undefined;
  }

  /** Gives a connection back after an exchange. */
  give(connection: UpstreamConnection): void {
    if (!connection.reusable || this.#closed) {
      connection.destroy();
      return;
    }
    const at = this.#waiting.findIndex(({ caller }) => connection.mayCarry(caller));
    const [next] = at < 0 ? [] : this.#waiting.splice(at, 1);
    if (next !== undefined) {
      next.ready(connection);
      return;
    }
    // Others wait, for whom it is not fit: where there is no room for another, it makes room.
    if (this.#waiting.length > 0 && this.#isFull) {
      connection.destroy();
      return;
    }
    const said = connection.keepAliveSeconds;
    // A second less than was promised: the far side's clock started before ours.
    const restMs = said === undefined ? bounds.upstreamIdleMs : said * 1_000 - 1_000;
    if (restMs <= 0 || this.#idle.length >= bounds.upstreamIdleMost) {
      connection.destroy();
      return;
    }
    connection.idleUntilMs = this.#clock() + restMs;
    this.#idle.push(connection);
  }

  /**
   * Closes resting connections that are past their time, and all that may not be dialled any more: an excuse runs out under load as well,
   * when no connection ever rests. Called now and then.
   */
  sweep(): void {
    const upstream = this.#upstream;
    if (upstream.kind === "tcp") {
      const rules = this.#rules();
      for (const [connection, address] of this.#open)
        if (address !== undefined && whyForbidden(address, upstream.port, rules) !== undefined)
          connection.retire();
    }
    const now = this.#clock();
    for (const connection of this.#idle.filter((one) => one.idleUntilMs <= now))
      connection.destroy();
  }

  /** Hands out nothing more and closes what rests; exchanges in flight end by themselves. */
  close(): void {
    this.#closed = true;
    for (const connection of this.#idle.splice(0)) connection.destroy();
    for (const waiting of this.#waiting.splice(0))
      waiting.failed(new Refusal("draining", "the gate is closing"));
  }

  onGone(connection: UpstreamConnection): void {
    this.#open.delete(connection);
    const at = this.#idle.indexOf(connection);
    if (at >= 0) this.#idle.splice(at, 1);
    this.#dialMore();
  }

  get #isFull(): boolean {
    return this.#open.size + this.#dialling >= bounds.upstreamConnections;
  }

  #dialMore(): void {
    while (!this.#closed && this.#dialling < this.#waiting.length && !this.#isFull)
      this.#dial(this.#waiting[this.#dialling]?.connectMs ?? 1_000);
  }

  #dial(connectMs: number): void {
    this.#dialling++;
    const over = (refusal?: Refusal): void => {
      this.#dialling--;
      if (refusal !== undefined) this.#notConnected(refusal);
      else this.#dialMore();
    };
    if (this.#upstream.kind === "unix") {
      this.#connect(this.#upstream, this.name, connectMs, over);
      return;
    }
    const { host, port } = this.#upstream;
    const go = (addresses: readonly string[]): void => {
      const address = addresses[this.#turn++ % addresses.length] ?? host;
      const why = whyForbidden(address, port, this.#rules());
      if (why !== undefined)
        return over(new Refusal("upstream_forbidden", `${formatHostPort(address, port)}: ${why}`));
      this.#connect(
        { kind: "tcp", host: address, port },
        formatHostPort(address, port),
        connectMs,
        over,
      );
    };
    const known = this.#current(host);
    if (known.length > 0) go(known);
    else
      this.#lookUp(host).then(go, (cause) =>
        over(cause instanceof Refusal ? cause : new Refusal("upstream_down", String(cause))),
      );
  }

  /** What the name meant lately; starts another look when that is getting old. */
  #current(host: string): readonly string[] {
    if (this.#clock() - this.#resolvedMs > bounds.resolveMs) {
      // The old answer serves until the new one is here, and when there is none.
      this.#lookUp(host).catch(() => undefined);
    }
    return this.#addresses;
  }

  #lookUp(host: string): Promise<readonly string[]> {
    this.#resolving ??= resolve(host)
      .then((addresses) => {
        this.#addresses = addresses;
        return addresses;
      })
      .finally(() => {
        this.#resolvedMs = this.#clock();
        this.#resolving = undefined;
      });
    return this.#resolving;
  }

  #connect(
    to: Parameters<typeof open>[0],
    address: string,
    connectMs: number,
    over: (refusal?: Refusal) => void,
  ): void {
    let connection: UpstreamConnection | undefined;
    let settled = false;
    const settle = (refusal?: Refusal): void => {
      if (settled) return;
      settled = true;
      clearTimeout(timer);
      if (refusal !== undefined) socket.destroy();
      over(refusal);
    };
    const socket: Socket = open(to, {
      bytes: (bytes) => connection?.receive(bytes),
      open: () => {
        if (settled) return void socket.destroy();
        this.#failures = 0;
        this.#restUntilMs = 0;
        connection = new UpstreamConnection(socket, address, this);
        this.#open.set(connection, to.kind === "tcp" ? to.host : undefined);
        // Handed on before anything else is dialled: whoever waits for it must not be counted as still waiting.
        this.give(connection);
        settle();
      },
      error: (code) => settle(new Refusal("upstream_down", `${address}: ${code}`)),
    });
    const timer = setTimeout(
      () => settle(new Refusal("upstream_down", `${address}: no connection in ${connectMs} ms`)),
      connectMs,
    );
  }

  /** Every request that would have shared this dial hears of it: it would have failed alike. */
  #notConnected(refusal: Refusal): void {
    this.#failures++;
    const restMs = bounds.upstreamRestMs * 2 ** Math.min(this.#failures - 1, 10);
    this.#restUntilMs = this.#clock() + Math.min(restMs, bounds.upstreamRestMostMs);
    this.#waiting.shift()?.failed(refusal);
    this.#dialMore();
  }
}
