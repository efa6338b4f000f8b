import { setTimeout as pause } from "node:timers/promises";
import { followHits, queryHits } from "../audit/hit-log/query.ts";
import type { Hit } from "../model/hit.ts";
import type { HitFilter } from "../model/hit-filter.ts";
import type { Context } from "./context.ts";
import { Exit } from "./exit.ts";
import { output } from "./output.ts";

/** Where hits come from: files of this machine, or a control plane that asks its gates. */
export type HitSource = {
  /** The newest first, at most `filter.limit`. */
  find(filter: HitFilter): AsyncIterable<Hit>;
  /** Resolves once it is settled where following begins; then each hit from there on, once. */
  follow(filter: HitFilter): Promise<AsyncIterable<Hit>>;
};

/** Reads the files of this machine. */
export function hitsFromFiles(dirs: readonly string[]): HitSource {
  return {
    find: (filter) => queryHits(dirs, filter),
    follow: async (filter) => followHits(dirs, filter),
  };
}

type Page = { readonly hits: readonly Hit[]; readonly absent: readonly string[] };
type Timings = {
  readonly everyMs: number;
  /** What each look goes back, and what one look in a while does. */
  readonly narrowMs: number;
  readonly wideMs: number;
  readonly wideEveryMs: number;
};

const pageMax = 10_000;
// A line carries the time at which its request began and is written when the answer does. Most follow within seconds; for an
// upload that takes minutes, one look in a while goes back further.
const timingsByDefault: Timings = {
  everyMs: 1_000,
  narrowMs: 15_000,
  wideMs: 330_000,
  wideEveryMs: 30_000,
};
/** Of one look: beyond it, whoever follows a busy place without a filter sees the newest. */
const followedMax = 1_000_000;
/** A gate that was away for longer is not caught up with. */
const awayMaxMs = 86_400_000;

/**
 * Asks control, which asks its gates; those that are away are named on standard error. Following polls: what was shown is
 * remembered by its id, and a gate or a control plane that was away is caught up with. Throws `Exit`, as the context does.
 */
export function hitsFromControl(context: Context, overrides: Partial<Timings> = {}): HitSource {
  const timings = { ...timingsByDefault, ...overrides };
  const absentSince = new Map<string, number>();
  /** Ids of our own questions: each is a hit itself, and following would show nothing but them. */
  const own = new Set<string>();

  async function ask(query: Readonly<Record<string, string | number>>): Promise<Page> {
    const { body, hit } = await context.call("GET", "/v1/hits", { query, timeoutMs: 60_000 });
    if (hit !== undefined) own.add(hit);
    const page = body as Page;
    for (const gate of page.absent)
      if (!absentSince.has(gate)) {
        absentSince.set(gate, Date.now());
        output.note(`gate ${gate} could not be asked: what it saw is missing here`);
      }
    return page;
  }

  /** Page after page, the newest first, until there are no more or enough. Returns the gates that were absent. */
  async function* find(filter: HitFilter): AsyncGenerator<Hit, ReadonlySet<string>> {
    const { limit = pageMax, ...rest } = filter;
    const given = new Set<string>();
    const absent = new Set<string>();
    let untilMs = filter.untilMs;
    for (let left = limit; left > 0; ) {
      const asked = Math.min(pageMax, left);
      const page = await ask({ ...rest, limit: asked, ...(untilMs !== undefined && { untilMs }) });
      for (const gate of page.absent) absent.add(gate);
      const fresh = page.hits.filter(({ id }) => !given.has(id));
      for (const hit of fresh) {
        given.add(hit.id);
        yield hit;
      }
      left -= fresh.length;
      const oldest = page.hits.at(-1);
      if (oldest === undefined || page.hits.length < asked || fresh.length === 0) break;
      untilMs = oldest.at + 1; // those of the same millisecond come again, and are known
    }
    return absent;
  }

  /** How far control's clock is before ours: its hits carry its time. */
  async function controlAheadMs(): Promise<number> {
    const askedMs = Date.now();
    const { hit } = await context.call("GET", "/v1/hits", { query: { limit: 1 } });
    if (hit === undefined) return 0;
    own.add(hit);
    const [question] = (await ask({ id: hit })).hits;
    return question === undefined ? 0 : question.at - askedMs;
  }

  return {
    find,
    async follow({ limit: _, ...filter }) {
      const seen = new Map<string, number>();
      const look = async (sinceMs: number): Promise<Look> => {
        const fresh: Hit[] = [];
        const coming = find({ ...filter, sinceMs: Math.max(0, sinceMs), limit: followedMax });
        for (;;) {
          const { done, value } = await coming.next();
          if (done) return { fresh: fresh.reverse(), absent: value };
          if (seen.has(value.id) || own.has(value.id)) continue;
          seen.set(value.id, value.at);
          fresh.push(value);
        }
      };
      const aheadMs = await controlAheadMs();
      const now = (): number => Date.now() + aheadMs;
      await look(now() - timings.wideMs); // what is there already is no news
      return poll(look, now, seen);
    },
  };

  async function* poll(
    look: (sinceMs: number) => Promise<Look>,
    now: () => number,
    seen: Map<string, number>,
  ): AsyncGenerator<Hit> {
    let answeredMs = now();
    let widelyMs = answeredMs;
    let isLost = false;
    /** From when on something may have been missed. */
    let missedMs = Number.POSITIVE_INFINITY;
    for (;;) {
      await pause(timings.everyMs);
      const at = now();
      const isWide = missedMs < at || at - widelyMs >= timings.wideEveryMs;
      const since = Math.max(at - awayMaxMs, Math.min(at, missedMs) - timings.wideMs);
      let found: Look;
      try {
        found = await look(isWide ? since : at - timings.narrowMs);
      } catch (cause) {
        if (!(cause instanceof Exit) || cause.code !== 3) throw cause;
        if (!isLost) output.note(`${cause.message}; waiting for it`);
        isLost = true;
        missedMs = Math.min(missedMs, answeredMs);
        continue;
      }
      if (isLost) output.note("control answers again");
      isLost = false;
      answeredMs = at;
      if (isWide) {
        widelyMs = at;
        missedMs = Number.POSITIVE_INFINITY;
        const oldest = Math.min(since, ...absentSince.values()) - timings.wideMs;
        for (const [id, then] of seen) if (then < oldest) seen.delete(id);
      }
      for (const [gate, sinceMs] of absentSince) {
        if (found.absent.has(gate)) continue;
        absentSince.delete(gate);
        output.note(`gate ${gate} answers again`);
        missedMs = Math.min(missedMs, sinceMs);
      }
      yield* found.fresh;
    }
  }
}

type Look = { readonly fresh: readonly Hit[]; readonly absent: ReadonlySet<string> };
