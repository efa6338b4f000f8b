import type { Clock, Random } from "../../base/clock.ts";
import type { Running } from "../../base/lifecycle.ts";
import type { Log } from "../../base/log.ts";
import {
  CredentialsUnusable,
  readCredentials,
  type StoredCredentials,
} from "../credentials/credential-directory.ts";
import { JoinRefused } from "../enroll/join-request.ts";
import { leafOf } from "../leaf-facts.ts";
import { renew } from "./renew.ts";
import { createRenewalSchedule } from "./renewal-schedule.ts";
import { type Hook, runHook } from "./run-hook.ts";

export type RenewalOptions = {
  /** A directory of credentials, as `enroll` writes them. */
  readonly dir: string;
  readonly clock: Clock;
  /** Milliseconds since anything; never goes back. `performance.now`. */
  readonly monotonic: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Asked before each renewal: the same set with the roots it may be shown to. Default: as it lies on disk. */
  readonly withTrust?: (held: StoredCredentials) => StoredCredentials;
  /** The new set is on disk. A server swaps its secure context here. */
  readonly onRenewed?: (next: StoredCredentials) => void | Promise<void>;
  /** An attempt failed; the old leaf stays in use. For metrics and warnings. */
  readonly onFailed?: (cause: unknown) => void;
  /**
   * The leaf has expired by both clocks, and control grants it no grace (any more): only a token helps. Called once, and nothing
   * is asked for after it. Default: attempts go on, 5 min apart, for somebody may enrol anew into the directory.
   */
  readonly onOver?: (refusal: JoinRefused) => void;
  readonly hook?: Hook;
};

export type Renewal = Running & {
  /** Renews now: an authority has changed. Bounded as `RenewalSchedule.hurry` is. */
  soon(): void;
};

const hookAgainMs = 30_000;
const hookAttemptsMax = 5;

/**
 * Renews the identity in a directory for as long as it runs, at two thirds of each leaf's life. The old leaf stays in use until
 * the new one is whole; a refusal or an outage is met with growing pauses, never with a loop, and so are clocks that disagree. A failed hook is run again, up to
 * five times. Throws `CredentialsUnusable` at once when the directory holds nothing to renew; later it only logs.
 */
export async function startRenewal(options: RenewalOptions): Promise<Renewal> {
  const { dir, log } = options;
  const schedule = createRenewalSchedule(options);
  const stopping = new AbortController();
  let serial = "";
  let notAfterMs = 0;
  let timer: NodeJS.Timeout | undefined;
  let isHurried = false;
  let isOver = false;
  let isDisputed = false;
  let hookAttempts = 0;
  let hookAtMs = Number.POSITIVE_INFINITY;
  let working: Promise<void> = Promise.resolve();

  function take(held: StoredCredentials, how: "found" | "renewed"): void {
    const leaf = leafOf(held.chainPem);
    if (leaf.serial === serial) return;
    serial = leaf.serial;
    notAfterMs = leaf.notAfterMs;
    schedule.holds(leaf, how);
    // Once for each time they begin to disagree.
    if (schedule.isDisputed() && !isDisputed)
      log.warn(
        {
          here: new Date(options.clock()).toISOString(),
          notBefore: new Date(leaf.notBeforeMs).toISOString(),
          notAfter: new Date(leaf.notAfterMs).toISOString(),
          again: untilAttempt(),
        },
        "a certificate that has just been issued is past its time here, or before it: the clocks of this machine and of the control plane disagree; set the one that is wrong",
      );
    isDisputed = schedule.isDisputed();
  }

  function untilAttempt(): string {
    return `${Math.ceil(schedule.untilAttemptMs() / 1_000)} s`;
  }

  const first = await readCredentials(dir);
  if (!first.identity)
    throw new CredentialsUnusable(
      `${dir} holds no identity.json, so nobody knows where to renew`,
      "enrol again: sallyport enroll --token-file FILE --out DIR",
    );
  take(first, "found");
  look();

  function look(): void {
    if (stopping.signal.aborted || isOver) return;
    const untilHookMs = Math.max(0, hookAtMs - options.monotonic());
    timer = setTimeout(
      () => {
        working = work().finally(look);
      },
      Math.min(schedule.waitMs(), untilHookMs),
    );
  }

  async function work(): Promise<void> {
    if (schedule.waitMs() === 0) await attempt();
    if (hookAtMs <= options.monotonic() && !stopping.signal.aborted) await callHook();
  }

  async function attempt(): Promise<void> {
    try {
      // Somebody may have enrolled anew into the directory: then there is nothing to do yet.
      const before = serial;
      take(await readCredentials(dir), "found");
      if (serial !== before && schedule.waitMs() > 0) return;
      isHurried = false;
      const next = await renew({
        dir,
        clock: options.clock,
        signal: stopping.signal,
        ...(options.withTrust && { withTrust: options.withTrust }),
      });
      const known = serial;
      take(next, "renewed");
      if (serial === known) schedule.failed();
      // Asked for anew while this one was under way.
      if (isHurried) schedule.hurry();
      log.info(
        { principal: next.identity?.principal, serial, notAfter: next.identity?.notAfter },
        "the certificate was renewed",
      );
      hookAttempts = 0;
      hookAtMs = options.hook ? options.monotonic() : Number.POSITIVE_INFINITY;
      await options.onRenewed?.(next);
    } catch (cause) {
      if (stopping.signal.aborted) return;
      schedule.failed();
      // Asked for while this one was under way: that order has not been tried yet.
      if (isHurried) schedule.hurry();
      options.onFailed?.(cause);
      const refused = cause instanceof JoinRefused;
      // Where one clock alone says so, that clock may be wrong.
      isOver =
        options.onOver !== undefined &&
        refused &&
        cause.code === "expired" &&
        notAfterMs <= options.clock();
      log.warn(
        {
          serial,
          ...(refused && { code: cause.code }),
          ...(!isOver && { again: untilAttempt() }),
        },
        `the certificate could not be renewed: ${(cause as Error).message}`,
      );
      if (isOver) options.onOver?.(cause as JoinRefused);
    }
  }

  async function callHook(): Promise<void> {
    if (!options.hook) return;
    hookAttempts += 1;
    const principal = first.identity?.principal ?? "";
    const outcome = await runHook(options.hook, { principal, dir }, stopping.signal);
    const fields = { hook: outcome.says, output: outcome.output };
    if (outcome.ok) {
      hookAtMs = Number.POSITIVE_INFINITY;
      return log.info(fields, "the hook ran");
    }
    const again = hookAttempts < hookAttemptsMax && !stopping.signal.aborted;
    hookAtMs = again ? options.monotonic() + hookAgainMs : Number.POSITIVE_INFINITY;
    log.error(fields, again ? "the hook failed and will run again" : "the hook failed");
  }

  return {
    soon() {
      isHurried = true;
      schedule.hurry();
      clearTimeout(timer);
      working = working.then(() => {
        clearTimeout(timer);
        look();
      });
    },
    async close() {
      stopping.abort();
      clearTimeout(timer);
      await working;
      clearTimeout(timer);
    },
  };
}
