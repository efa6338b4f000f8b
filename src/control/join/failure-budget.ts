import { parseAddress } from "../../base/address.ts";
import type { Clock } from "../../base/clock.ts";

/**
 * How often one source may be wrong about tokens: guessing 32 random bytes is hopeless anyway, but it costs a database look-up and
 * a line of the log each. Failures alone count, so that a hundred services can enrol from one address. An IPv6 source is a /64.
 */
export function createFailureBudget(clock: Clock): FailureBudget {
  // Source → when its failures will all be forgiven (GCRA's theoretical arrival time), the longest quiet first.
  const debts = new Map<string, number>();
  return {
    retryAfterMs(address) {
      const source = sourceOf(address);
      const debtMs = (debts.get(source) ?? 0) - clock();
      // More than can be owed: the clock was set back since.
      if (debtMs > debtMaxMs) {
        debts.delete(source);
        return 0;
      }
      return Math.max(0, debtMs - (burst - 1) * forgivenEveryMs);
    },
    fail(address) {
      const source = sourceOf(address);
      const now = clock();
      const until = Math.min(
        Math.max(debts.get(source) ?? 0, now) + forgivenEveryMs,
        now + debtMaxMs,
      );
      debts.delete(source);
      debts.set(source, until);
      const [quietest] = debts.keys();
      if (debts.size > sourcesMax && quietest !== undefined) debts.delete(quietest);
    },
  };
}

const burst = 10;
const forgivenEveryMs = 6_000;
const sourcesMax = 10_000;
/** Calls under way at once may overdraw; nobody waits for longer than this. */
const debtMaxMs = 20 * forgivenEveryMs;

export type FailureBudget = {
  /** 0: it may try. */
  retryAfterMs(address: string): number;
  fail(address: string): void;
};

/** Who counts as one: an IPv4 address (mapped ones included), or the /64 that one IPv6 host can fill by itself. */
export function sourceOf(address: string): string {
  const parsed = parseAddress(address);
  if (!parsed) return address;
  return parsed.family === 4 ? parsed.text : Buffer.from(parsed.bytes.slice(0, 8)).toString("hex");
}
