import type { Clock, Random } from "../../base/clock.ts";

/** When to ask for the next leaf. Pure: told what happened, answers how long to wait. */
export type RenewalSchedule = {
  /** A leaf is in hand: found at the start, or just renewed. */
  holds(leaf: Validity, how: "found" | "renewed"): void;
  /** An attempt came to nothing. */
  failed(): void;
  /**
   * Somebody asked for it: due now, whatever the leaf's age and whatever was tried a moment ago. Six in a row; after that two every
   * 10 s at most, so that whoever asks again and again cannot make it go round in circles.
   */
  hurry(): void;
  /** Milliseconds until the next look, at most 30 s; 0: ask now. */
  waitMs(): number;
};

export type Validity = { readonly notBeforeMs: number; readonly notAfterMs: number };

/** A timer may sleep through a suspended machine or a changed clock; nothing is trusted for longer than this. */
const lookAgainMs = 30_000;
const backoffMsRange = [1_000, 300_000] as const;
/** Whatever a server answers, successes that nobody asked for are never closer together. */
const successesApartMs = 10_000;
/** Rests that may be cut short in a row: the three steps of a rotation, and names that change meanwhile. One comes back every so often. */
const hurriesMax = 6;
const hurryBackMs = 10_000;

/**
 * Two thirds into the leaf's life: the control plane may be away for a third of it before anybody notices. Earlier by up to a
 * twentieth, by chance: a fleet that started together must not renew together.
 */
export function renewAt(notBeforeMs: number, notAfterMs: number, random: Random): number {
  return notBeforeMs + (notAfterMs - notBeforeMs) * (2 / 3 - random() / 20);
}

/**
 * Follows two clocks. The wall clock knows what a leaf says and counts through sleep, but may jump; the monotonic one never
 * jumps, but may stand still while the machine sleeps. Renewal is due when either says so; pauses between attempts are
 * measured on the monotonic one alone, so that no jump makes them longer, or shorter than they should be.
 */
export function createRenewalSchedule(options: {
  readonly clock: Clock;
  /** Milliseconds since anything; never goes back. */
  readonly monotonic: Clock;
  readonly random: Random;
}): RenewalSchedule {
  const { clock, monotonic, random } = options;
  let dueMs = 0;
  let dueMonotonicMs = 0;
  let endsMs = 0;
  let restUntilMs = monotonic();
  let failures = 0;
  let hurries = hurriesMax;
  let hurriesAtMs = monotonic();

  function rest(atLeastMs: number): void {
    failures += 1;
    const [least, most] = backoffMsRange;
    // Less patience when less is left: a five-minute leaf has no five minutes to wait.
    const leftMs = endsMs - clock();
    const cap = leftMs > 0 ? Math.min(most, Math.max(least, leftMs / 5)) : most;
    const full = Math.min(cap, least * 2 ** Math.min(failures - 1, 16));
    const pauseMs = Math.max(least, full * (1 / 2 + random() / 2));
    restUntilMs = monotonic() + Math.max(pauseMs, atLeastMs);
  }

  return {
    holds(leaf, how) {
      endsMs = leaf.notAfterMs;
      dueMs = renewAt(leaf.notBeforeMs, leaf.notAfterMs, random);
      dueMonotonicMs = monotonic() + Math.max(0, dueMs - clock());
      if (how === "found") return;
      // A new leaf that is due already: two clocks disagree, or somebody plays with us. Neither is a reason to go round in circles.
      if (dueMs <= clock()) return rest(successesApartMs);
      failures = 0;
      restUntilMs = monotonic() + successesApartMs;
    },
    failed: () => rest(0),
    hurry() {
      const now = monotonic();
      dueMonotonicMs = now;
      if (now >= restUntilMs) return;
      hurries = Math.min(hurriesMax, hurries + (now - hurriesAtMs) / hurryBackMs);
      hurriesAtMs = now;
      if (hurries < 1) {
        restUntilMs = Math.min(restUntilMs, now + (1 - hurries) * hurryBackMs);
        return;
      }
      hurries -= 1;
      restUntilMs = now;
    },
    waitMs() {
      const now = monotonic();
      if (now < restUntilMs) return Math.min(restUntilMs - now, lookAgainMs);
      const untilDueMs = Math.min(dueMs - clock(), dueMonotonicMs - now);
      return Math.min(Math.max(0, untilDueMs), lookAgainMs);
    },
  };
}
