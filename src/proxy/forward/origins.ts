import type { Clock, Random } from "../../base/clock.ts";
import { Refusal } from "../../model/refusal.ts";
import type { Upstream } from "../../model/register.ts";
import type { CompiledPort } from "../../policy/view.ts";
import { Origin } from "./origin.ts";
import type { UpstreamConnection } from "./upstream-connection.ts";

/** A connection and the origin to give it back to. */
export type Taken = { readonly connection: UpstreamConnection; readonly origin: Origin };

const nothing = (): void => undefined;

type World = {
  readonly monotonic: Clock;
  readonly clock: Clock;
  readonly random: Random;
  readonly isOwnDoor: (host: string, port: number) => boolean;
};

/** All upstreams of the view in force, by port. Ports that a new view leaves alone keep their connections. */
export class Origins {
  readonly #world: World;
  readonly #byPort = new Map<string, { port: CompiledPort; origins: Origin[] }>();
  /** The same by the port itself, which every request has at hand. */
  readonly #known = new Map<CompiledPort, readonly Origin[]>();

  constructor(world: World) {
    this.#world = world;
  }

  /**
   * Finds a connection for the port: the less loaded of two chosen at random, and while none of them can be reached, the next.
   * Nothing was sent when `failed` is called.
   */
  take(
    port: CompiledPort,
    caller: string,
    ready: (taken: Taken) => void,
    failed: (refusal: Refusal) => void,
  ): () => void {
    const origins = this.#of(port);
    const only = origins.length === 1 ? origins[0] : undefined;
    const resting = only?.rested(caller);
    // Nearly every request: one upstream, and a connection that rests.
    if (only !== undefined && resting !== undefined) {
      ready({ connection: resting, origin: only });
      return nothing;
    }
    const tried = new Set<Origin>();
    let cancel: () => void = () => undefined;
    const next = (last: Refusal | undefined): void => {
      const origin = this.#choose(origins, tried);
      if (origin === undefined) {
        failed(last ?? new Refusal("upstream_down", `${port.service} has no upstream`));
        return;
      }
      tried.add(origin);
      cancel = origin.take(
        { caller, connectMs: port.timeouts.connectMs },
        (connection) => ready({ connection, origin }),
        next,
      );
    };
    next(undefined);
    return () => cancel();
  }

  sweep(): void {
    for (const { origins } of this.#byPort.values()) for (const origin of origins) origin.sweep();
  }

  /** Closes the origins of ports that are no longer there. */
  retain(isThere: (service: string, port: string) => boolean): void {
    for (const [key, { port, origins }] of this.#byPort) {
      if (isThere(port.service, port.port)) continue;
      this.#byPort.delete(key);
      this.#known.delete(port);
      for (const origin of origins) origin.close();
    }
  }

  close(): void {
    this.retain(() => false);
  }

  #choose(origins: readonly Origin[], tried: ReadonlySet<Origin>): Origin | undefined {
    if (origins.length === 1) return tried.size === 0 ? origins[0] : undefined;
    const open = origins.filter((origin) => !tried.has(origin));
    const awake = open.filter((origin) => !origin.resting);
    const from = awake.length > 0 ? awake : open; // when all of them rest, one must try
    const a = from[Math.floor(this.#world.random() * from.length)];
    const b = from[Math.floor(this.#world.random() * from.length)];
    return a !== undefined && b !== undefined && b.load < a.load ? b : a;
  }

  #of(port: CompiledPort): readonly Origin[] {
    return this.#known.get(port) ?? this.#find(port);
  }

  #find(port: CompiledPort): readonly Origin[] {
    const key = `${port.service} ${port.port}`;
    const known = this.#byPort.get(key);
    const kept = new Map(known?.origins.map((origin) => [origin.name, origin]));
    const origins = port.upstreams.map((upstream) => {
      const origin = this.#origin(upstream, key);
      const before = kept.get(origin.name);
      kept.delete(origin.name);
      return before ?? origin;
    });
    for (const gone of kept.values()) gone.close();
    if (known !== undefined) this.#known.delete(known.port);
    this.#byPort.set(key, { port, origins });
    this.#known.set(port, origins);
    return origins;
  }

  #origin(upstream: Upstream, key: string): Origin {
    const rules = () => {
      const until = this.#byPort.get(key)?.port.plaintextUntilMs ?? 0;
      return { isOwnDoor: this.#world.isOwnDoor, mayLeaveHost: this.#world.clock() < until };
    };
    return new Origin(upstream, rules, this.#world.monotonic);
  }
}
