/**
 * What happened lately, by key: events of the last `withinMs`, for at most `keysMax` keys; of too many keys the one that was
 * quiet longest is forgotten, so that a crowd costs memory no more than a table.
 */
export class Recent {
  readonly #withinMs: number;
  readonly #keysMax: number;
  readonly #windows = new Map<string, { sinceMs: number; count: number; kinds: Set<string> }>();

  constructor(withinMs: number, keysMax = 4096) {
    this.#withinMs = withinMs;
    this.#keysMax = keysMax;
  }

  /** Counts one event and says how many there were, and of how many kinds (at most 64 are told apart). */
  add(key: string, at: number, kind: string, count = 1): { count: number; kinds: number } {
    let window = this.#windows.get(key);
    if (window === undefined || at - window.sinceMs >= this.#withinMs)
      window = { sinceMs: at, count: 0, kinds: new Set() };
    // Moved to the end: the map's order is the order of the latest events.
    this.#windows.delete(key);
    this.#windows.set(key, window);
    for (const oldest of this.#windows.keys()) {
      if (this.#windows.size <= this.#keysMax) break;
      this.#windows.delete(oldest);
    }
    window.count += count;
    if (window.kinds.size < 64) window.kinds.add(kind);
    return { count: window.count, kinds: window.kinds.size };
  }
}
