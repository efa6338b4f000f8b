import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { AuthorityNeeds } from "../../control/needs.ts";
import type { Authority } from "../../identity/authority/authority.ts";
import type { Plane } from "../../model/principal.ts";

/** New keys, certificates and credentials, a file system block each, and their lines in the store. */
const rotationBytes = 4 * 1_048_576;

/**
 * Turns the authorities, a step at a time. When a step is taken its roots count at once: what fails after that (new leaves, which a
 * full disk can prevent) is logged and made up for later, and no reason to go on trusting a root that was retired.
 */
export function createRotation(options: {
  readonly authorities: Readonly<
    Record<Plane, Pick<Authority, "rotation" | "prepare" | "activate" | "retire">>
  >;
  readonly clock: Clock;
  readonly log: Log;
  readonly makeRoom: (bytes: number) => void;
  /** Both doors judge by the present roots from here on. */
  readonly swapRoots: () => void;
  /** Control's own leaf, and its administrator's. */
  readonly refresh: readonly (() => Promise<void> | undefined)[];
  /** Asks every connected gate to renew. */
  readonly tellGates: () => void;
}): AuthorityNeeds & {
  /** When an authority last took a step while this process ran, epoch ms; 0: never. */
  readonly lastMs: () => number;
} {
  const { authorities, log } = options;
  let lastMs = 0;
  let telling: NodeJS.Timeout | undefined;
  return {
    lastMs: () => lastMs,
    status: () =>
      (["control", "data"] as const).map((plane) => ({
        plane,
        ...authorities[plane].rotation(),
      })),
    async rotate(plane, step, { force }) {
      const authority = authorities[plane];
      options.makeRoom(rotationBytes);
      const state =
        step === "prepare" ? await authority.prepare() : await authority[step]({ force });
      options.swapRoots();
      for (const refresh of options.refresh)
        await refresh()?.catch((cause) =>
          log.error(
            { err: cause, plane, step },
            "the step was taken, but no new leaf could be made yet; tried again soon",
          ),
        );
      // Both planes are often turned in one call: told once, after the last.
      lastMs = options.clock();
      clearTimeout(telling);
      telling = setTimeout(options.tellGates, 250);
      return { plane, ...state };
    },
  };
}
