import type { RateLimit } from "../../model/register.ts";

/** How finely an emission interval is told: the rate is exact, the burst is exact to 1/64 of a request. */
const unitsPerRequest = 64;

/**
 * How far two workers' readings of one clock may lie apart: a thread that the kernel put aside between reading and counting. Beyond
 * it the word counts as unused, which admits; up to it as full, which refuses for no longer than this.
 */
const apartMsMax = 1_000;

/** Units a millisecond for a limit: chosen per limit, so that one request is always exactly 64 units. */
export function unitsPerMs(limit: RateLimit): number {
  return (limit.count * unitsPerRequest) / limit.perMs;
}

/**
 * Generic cell rate algorithm: one 32-bit word a key, the theoretical arrival time in the limit's own units, compared with
 * wrap-around arithmetic. Returns 0 when admitted, else the milliseconds until one request would be. Shared memory and
 * compare-and-swap make it one limit over all workers. `nowMs` must come from the clock that all of them share.
 */
export function admit(table: Int32Array, slot: number, limit: RateLimit, nowMs: number): number {
  const scale = unitsPerMs(limit);
  const now = Math.floor(nowMs * scale) | 0;
  const most = limit.burst * unitsPerRequest;
  const apart = Math.ceil(scale * apartMsMax);
  for (;;) {
    const arrival = Atomics.load(table, slot);
    const ahead = (arrival - now) | 0;
    // In the past, or a word that nobody used yet and that happens to read as the far future: start from now. Another worker
    // may have read the clock later than this one and counted since; what it wrote is a little more than full, not far away.
    const start = ahead < 0 || ahead > most + apart ? now : arrival;
    const next = (start + unitsPerRequest) | 0;
    const over = ((next - now) | 0) - most;
    if (over > 0) return over / scale;
    if (Atomics.compareExchange(table, slot, arrival, next) === arrival) return 0;
  }
}
