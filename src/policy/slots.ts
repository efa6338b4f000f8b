import { isNewer, type Snapshot } from "../model/snapshot.ts";
import { rulesOf } from "./rules-of.ts";
import type { View } from "./view.ts";

type Version = Pick<Snapshot, "epoch" | "version">;
type Entry = { readonly slot: number; unusedSince: Version | undefined };

/** More (rule, caller) pairs with a limit than the shared table has room for. The snapshot that needs them is refused whole. */
export class SlotsExhausted extends Error {}

/**
 * Gives every (rule, caller) a place in the shared table of rate limits. A place outlives snapshots, and goes to another pair only
 * when every worker confirmed a view without it: a late worker must never count one caller on another's account.
 *
 * `slotFor` while compiling, then `keep(view)` with the view that is published, then `retire(version)` whenever all workers confirmed.
 */
export class SlotTable {
  /** Slots are integers from 0 up to this. */
  readonly capacity: number;
  readonly #entries = new Map<string, Entry>();
  readonly #free: number[] = [];
  #next = 0;

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  /** Pairs that hold a slot, those waiting to be freed included. */
  get size(): number {
    return this.#entries.size;
  }

  /** The slot of the pair, now and as long as a view has it. `rule` is `service/id`. Throws `SlotsExhausted`. */
  slotFor(rule: string, caller: string): number {
    const key = keyOf(rule, caller);
    const known = this.#entries.get(key);
    if (known) return known.slot;
    const slot = this.#free.pop() ?? (this.#next < this.capacity ? this.#next++ : undefined);
    if (slot === undefined)
      throw new SlotsExhausted(
        `no room for the rate limit of ${caller} by rule ${rule}: ${this.capacity} pairs of a rule and a caller ` +
          `have one already (a limit on from: "*" takes one for every service)`,
      );
    this.#entries.set(key, { slot, unusedSince: undefined });
    return slot;
  }

  /** Notes which pairs `view` still has. The others wait for `retire`; one that is back is kept with its slot. */
  keep(view: View): void {
    const used = new Set<number>();
    for (const service of view.services.values())
      for (const rule of rulesOf(service))
        for (const slot of rule.limit?.slots.values() ?? []) used.add(slot);
    const since = { epoch: view.epoch, version: view.version };
    for (const entry of this.#entries.values()) {
      if (used.has(entry.slot)) entry.unusedSince = undefined;
      else entry.unusedSince ??= since;
    }
  }

  /**
   * Frees what views have been without since `confirmed` or earlier, the version that every worker has reached. Returns the freed
   * slots: their owner puts the counters back to the start before the next `slotFor`.
   */
  retire(confirmed: Version): readonly number[] {
    const freed: number[] = [];
    for (const [key, { slot, unusedSince }] of this.#entries) {
      if (unusedSince && !isNewer(unusedSince, confirmed)) {
        this.#entries.delete(key);
        freed.push(slot);
      }
    }
    this.#free.push(...freed);
    return freed;
  }
}

// A name has no line break, so that no two pairs share a key.
function keyOf(rule: string, caller: string): string {
  return `${rule}\n${caller}`;
}
