import { formatHostPort } from "../../base/address.ts";
import { type Endpoint, followBinds, resolveBind } from "../../base/guard.ts";
import type { Log } from "../../base/log.ts";
import type { Bind, Register } from "../../model/register.ts";
import type { DoorPlan, Pool } from "../../proxy/pool/pool.ts";
import { bindWorld, localAddresses } from "../bind-world.ts";
import type { SupervisorLink } from "../supervisor/link-to-supervisor.ts";

type Door = "data" | "decoy";
/** `wanted` has the port of the register, `at` the one that was bound: they differ where the register says 0. */
type Open = {
  readonly door: Door;
  readonly bind: Bind;
  readonly wanted: Endpoint;
  readonly at: Endpoint;
  /** What the workers were told last about who may connect, as JSON. */
  plan: string;
};

/**
 * Keeps a gate's data door and decoys open exactly where the register says, as interfaces come and go. An address that cannot be opened
 * is reported and tried again at the next look; the others are not touched.
 */
export class GateDoors {
  readonly #link: SupervisorLink;
  readonly #log: Log;
  readonly #copies: number;
  readonly #spare = new Map<string, number[]>();
  #open: Open[] = [];
  #problems: string[] = [];
  #working: Promise<void> = Promise.resolve();

  constructor(link: SupervisorLink, copies: number, log: Log) {
    this.#link = link;
    this.#copies = copies;
    this.#log = log;
  }

  /** What keeps a door shut, for people; empty: nothing. */
  get problems(): readonly string[] {
    return this.#problems;
  }

  addresses(door: Door): readonly Endpoint[] {
    return this.#open.filter((one) => one.door === door).map((one) => one.at);
  }

  /** A descriptor for one worker: one that was fetched in advance, or a new one. */
  async descriptor(at: Endpoint): Promise<number> {
    const spare = this.#spare.get(formatHostPort(at.host, at.port))?.pop();
    if (spare !== undefined) return spare;
    // By the port that is bound: to the supervisor, another port 0 would be another door.
    const { copies } = await this.#link.listen(at.host, at.port, 1);
    const [copy] = copies;
    if (copy === undefined) throw new Error("no descriptor came");
    return copy.fd;
  }

  /** Opens and closes what the register and the interfaces now ask for. One at a time. */
  follow(register: Register, pool: Pool): Promise<void> {
    const turn = this.#working.then(() => this.#follow(register, pool));
    // One look that failed must not be the last.
    this.#working = turn.catch((cause: unknown) =>
      this.#log.error({ err: String(cause) }, "the doors could not be looked after"),
    );
    return this.#working;
  }

  async #follow(register: Register, pool: Pool): Promise<void> {
    const problems: string[] = [];
    const wishes: [Door, Bind][] = [
      ...register.planes.data.binds.map((bind): [Door, Bind] => ["data", bind]),
      ...register.planes.decoys.map((bind): [Door, Bind] => ["decoy", bind]),
    ];
    const stay = new Set<Open>();
    for (const [door, bind] of wishes) {
      const world = bindWorld(register.networks);
      const resolved = await resolveBind(bind, world);
      for (const problem of resolved.problems)
        if (problem.severity === "error") problems.push(problem.message);
      const mine = this.#open.filter((one) => one.door === door && one.bind.text === bind.text);
      const change = followBinds(
        mine.map((one) => one.wanted),
        resolved,
      );
      for (const one of mine) {
        if (change.close.some((gone) => same(gone, one.wanted))) continue;
        stay.add(one);
        const plan = planOf(one, register);
        const text = JSON.stringify(plan);
        if (text === one.plan) continue;
        await pool.admit(plan);
        one.plan = text;
      }
      for (const wanted of change.open) {
        const opened = await this.#openOne({ door, bind, wanted }, register, pool, problems);
        if (opened) stay.add(opened);
      }
    }
    for (const one of this.#open) if (!stay.has(one)) await this.#shut(one, pool);
    this.#open = [...stay];
    await pool.setOwnDoors([...this.#open.map((one) => one.at), ...declaredDoors(register)]);
    if (problems.join() !== this.#problems.join())
      for (const problem of problems) this.#log.error({}, problem);
    this.#problems = problems;
  }

  async #openOne(
    wish: Pick<Open, "door" | "bind" | "wanted">,
    register: Register,
    pool: Pool,
    problems: string[],
  ): Promise<Open | undefined> {
    const { wanted } = wish;
    try {
      const got = await this.#link.listen(wanted.host, wanted.port, this.#copies);
      const at = { host: wanted.host, port: got.port };
      const plan = planOf({ ...wish, at }, register);
      const opened = { ...wish, at, plan: JSON.stringify(plan) };
      this.#open.push(opened);
      this.#spare.set(
        formatHostPort(at.host, at.port),
        got.copies.map((copy) => copy.fd),
      );
      await pool.open(plan);
      return opened;
    } catch (cause) {
      problems.push(cause instanceof Error ? cause.message : String(cause));
      return undefined;
    }
  }

  async #shut(one: Open, pool: Pool): Promise<void> {
    await pool.shut(one.door, one.at);
    this.#link.release(one.at.host, one.at.port);
  }
}

/** The other doors of this installation, as far as the register gives their addresses: no upstream may be one of them either. */
function declaredDoors({ planes }: Register): Endpoint[] {
  return [planes.control, planes.join, planes.ops]
    .flatMap((door) => door.binds)
    .filter((bind) => bind.kind === "address" && bind.port !== 0)
    .map(({ host, port }) => ({ host, port }));
}

function planOf(
  { door, bind, at }: Pick<Open, "door" | "bind" | "at">,
  register: Register,
): DoorPlan {
  const from = door === "data" ? register.planes.data.from : [];
  return { door, at, bind, from, networks: register.networks, interfaces: localAddresses() };
}

function same(a: Endpoint, b: Endpoint): boolean {
  return a.host === b.host && a.port === b.port;
}
