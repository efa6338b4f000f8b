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
  /** Milliseconds until the next attempt, as both clocks stand now; a clock that is set may bring it forward. */
  untilAttemptMs(): number;
  /** Whether the newest leaf was past its time, or before it, in the moment in which it came: our clock and its issuer's disagree. */
  isDisputed(): boolean;
};

export type Validity = { readonly notBeforeMs: number; readonly notAfterMs: number };

/** A timer may sleep through a suspended machine or a changed clock; nothing is trusted for longer than this. */
const lookAgainMs = 30_000;
const backoffMsRange = [1_000, 300_000] as const;
/** Whatever a server answers, successes that nobody asked for are never closer together. */
const successesApartMs = 10_000;
/** First pause after a leaf that is disputed; each one in a row doubles it. */
const disputeMs = 60_000;
/** Leaves begin this long before they are issued, for clocks that are behind. */
const backdatedMs = 60_000;
/** Both clocks drift apart by parts of a thousandth; beyond this the wall clock was set, or the machine slept. */
const clockSetMs = 2_000;
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
 * jumps, but may stand still while the machine sleeps. Renewal is due when either says so. Pauses are measured on the monotonic
 * one; the wall clock only shortens them: where the leaf is valid by it, no pause is longer than a quarter of what is left.
 *
 * A leaf that is due in the moment in which it comes, or not valid yet, is disputed: asking for another one changes nothing while
 * the clocks stand so. The next attempts then are 1 min, 2 min, 4 min … apart, up to the time at which the leaf would be renewed if
 * its issuer's clock were right; once the wall clock has been set, the leaf is judged by it as any other.
 */
export function createRenewalSchedule(options: {
  readonly clock: Clock;
  /** Milliseconds since anything; never goes back. */
  readonly monotonic: Clock;
  readonly random: Random;
}): RenewalSchedule {
  const { clock, monotonic, random } = options;
  let validity: Validity = { notBeforeMs: 0, notAfterMs: 0 };
  let dueMs = 0;
  let dueMonotonicMs = 0;
  let restBeganMs = monotonic();
  let restUntilMs = restBeganMs;
  let failures = 0;
  let disputes = 0;
  /** How far the wall clock was ahead of the other one when a disputed leaf came; undefined: it is not disputed. */
  let disputedAheadMs: number | undefined;
  let hurries = hurriesMax;
  let hurriesAtMs = restBeganMs;

  function rest(pauseMs: number): void {
    restBeganMs = monotonic();
    restUntilMs = restBeganMs + pauseMs;
  }

  /** Of a leaf that is valid now; undefined: it is not. */
  function leftMs(): number | undefined {
    const now = clock();
    const isValid = validity.notBeforeMs <= now && now < validity.notAfterMs;
    return isValid ? validity.notAfterMs - now : undefined;
  }

  /** The clocks still stand as they did when they disagreed. */
  function disputeStands(): boolean {
    if (disputedAheadMs === undefined) return false;
    return Math.abs(clock() - monotonic() - disputedAheadMs) < clockSetMs;
  }

  function restLeftMs(): number {
    const restMs = restUntilMs - monotonic();
    const left = leftMs();
    if (left === undefined || (failures === 0 && disputeStands())) return restMs;
    const restedMs = monotonic() - restBeganMs;
    const leastMs = (failures > 0 ? backoffMsRange[0] : successesApartMs) - restedMs;
    // What is left shrinks while we wait.
    return Math.min(restMs, Math.max(leastMs, (left / 4 - restedMs) / (1 + 1 / 4)));
  }

  function untilAttemptMs(): number {
    const untilDueMs = disputeStands()
      ? 0
      : Math.min(dueMs - clock(), dueMonotonicMs - monotonic());
    return Math.max(0, restLeftMs(), untilDueMs);
  }

  function dispute(leaf: Validity): void {
    disputes += 1;
    disputedAheadMs = clock() - monotonic();
    const wouldBeDueMs = Math.max(0, dueMs - leaf.notBeforeMs - backdatedMs);
    dueMonotonicMs = monotonic() + wouldBeDueMs;
    const full = disputeMs * 2 ** Math.min(disputes - 1, 16);
    rest(Math.min(full, Math.max(disputeMs, wouldBeDueMs)));
  }

  return {
    holds(leaf, how) {
      validity = leaf;
      disputedAheadMs = undefined;
      failures = 0;
      dueMs = renewAt(leaf.notBeforeMs, leaf.notAfterMs, random);
      dueMonotonicMs = monotonic() + Math.max(0, dueMs - clock());
      if (how === "found") return;
      if (leftMs() === undefined || dueMs - clock() < successesApartMs) return dispute(leaf);
      disputes = 0;
      rest(successesApartMs);
    },
    failed() {
      failures += 1;
      const [least, most] = backoffMsRange;
      const full = Math.min(most, least * 2 ** Math.min(failures - 1, 16));
      rest(Math.max(least, full * (1 / 2 + random() / 2)));
    },
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
    waitMs: () => Math.min(untilAttemptMs(), lookAgainMs),
    untilAttemptMs,
    isDisputed: () => disputedAheadMs !== undefined,
  };
}
