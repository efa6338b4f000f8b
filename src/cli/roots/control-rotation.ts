import { X509Certificate } from "node:crypto";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { AuthorityNeeds, AuthorityStatus, RotationStep } from "../../control/needs.ts";
import type { HeldRoots, PlaneRoots, Roots } from "../../feed/needs.ts";
import type { Publisher } from "../../feed/publish/publisher.ts";
import type { Authority } from "../../identity/authority/authority.ts";
import type { RotationState } from "../../model/issued.ts";
import type { Plane } from "../../model/principal.ts";
import type { Warning } from "../../model/warning.ts";

/** New keys, certificates and credentials, a file system block each, and their lines in the store. */
const rotationBytes = 4 * 1_048_576;
/** For connected gates to follow before a root signs or goes; and to confirm that it is gone. */
const followMs = 10_000;
const cutMs = 5_000;

export type Rotation = AuthorityNeeds & {
  /** When an authority last took a step while this process ran, epoch ms; 0: never. */
  readonly lastMs: () => number;
  /** What gates are told is trusted. */
  readonly roots: () => Roots;
  /** What a gate says of its roots; the end of the warning that it had not followed. */
  readonly heard: (gate: string, held: HeldRoots) => void;
};

/**
 * Turns the authorities, a step at a time. Gates that are connected come along first: no root signs that they do not know, and none goes
 * that their own leaves need, unless they did not manage within `followMs`; then they are named, and left behind. When a step is
 * taken its roots count at once: what fails after that (new leaves, which a full disk can prevent) is logged and made up for
 * later, and no reason to go on trusting a root that was retired.
 */
export function createRotation(options: {
  readonly authorities: Readonly<
    Record<Plane, Pick<Authority, "rotation" | "prepare" | "activate" | "retire" | "issuers">>
  >;
  readonly clock: Clock;
  readonly log: Log;
  readonly makeRoom: (bytes: number) => void;
  /** Both doors judge by the present roots from here on. */
  readonly swapRoots: () => void;
  /** Control's own leaf, and its administrator's. */
  readonly refresh: readonly (() => Promise<void> | undefined)[];
  readonly publisher: () =>
    | Pick<Publisher, "tellRoots" | "renewAll" | "unlike" | "gates">
    | undefined;
  readonly raise: (warning: Warning) => void;
  /** Overrides for tests, ms. */
  readonly waits?: { readonly followMs: number; readonly cutMs: number };
}): Rotation {
  const { authorities, clock, log, publisher } = options;
  const waits = options.waits ?? { followMs, cutMs };
  const leftBehind = new Set<string>();
  let lastMs = 0;
  let last: Promise<unknown> = Promise.resolve();

  const rootsNow = (): Roots => ({
    control: rootsOf(authorities.control.rotation()),
    data: rootsOf(authorities.data.rotation()),
  });

  /** Gates that are connected and cannot take the step; waited for only when it would be taken at all. */
  async function bringAlong(
    planes: readonly Plane[],
    step: RotationStep,
    force: boolean,
  ): Promise<readonly string[]> {
    const turning = planes.filter((plane) =>
      mayStep(authorities[plane].rotation(), step, force, clock()),
    );
    if (step === "prepare" || turning.length !== planes.length) return [];
    publisher()?.tellRoots();
    const isAlong = (held: HeldRoots | undefined): boolean =>
      held !== undefined &&
      turning.every((plane) => {
        const state = authorities[plane].rotation();
        const { trusted, leaf } = held[plane];
        return step === "activate"
          ? trusted.includes(state.next?.fingerprint ?? "")
          : leaf === state.active.fingerprint;
      });
    return (await publisher()?.unlike(isAlong, waits.followMs)) ?? [];
  }

  async function take(plane: Plane, step: RotationStep, force: boolean): Promise<AuthorityStatus> {
    const authority = authorities[plane];
    options.makeRoom(rotationBytes);
    const state = step === "prepare" ? await authority.prepare() : await authority[step]({ force });
    options.swapRoots();
    for (const refresh of options.refresh)
      await refresh()?.catch((cause) =>
        log.error(
          { err: cause, plane, step },
          "the step was taken, but no new leaf could be made yet; tried again soon",
        ),
      );
    lastMs = clock();
    return { plane, ...state };
  }

  function warn(gates: readonly string[], says: (gate: string) => string): void {
    for (const gate of gates) {
      leftBehind.add(gate);
      options.raise(warningOf(gate, clock(), "critical", says(gate)));
    }
  }

  async function rotate(
    planes: readonly Plane[],
    step: RotationStep,
    force: boolean,
  ): ReturnType<AuthorityNeeds["rotate"]> {
    const behind = new Set(await bringAlong(planes, step, force));
    const taken: AuthorityStatus[] = [];
    let refused: unknown;
    for (const plane of planes) {
      try {
        taken.push(await take(plane, step, force));
      } catch (cause) {
        refused = cause;
        break;
      }
    }
    if (taken.length > 0) {
      // What is retired goes ahead of the order to renew: it is cut at the gates whatever becomes of that.
      publisher()?.tellRoots();
      publisher()?.renewAll();
      warn(
        [...behind],
        (gate) =>
          `gate ${gate} did not follow the rotation (${step}) within ${waits.followMs / 1_000} s: callers that have the new root cannot verify it until it has renewed; when its log says that it cannot, it has to join again: sallyport token create --gate ${gate}`,
      );
    }
    // Told when they come; until then nobody knows what they do.
    const away = (publisher()?.gates() ?? []).filter(({ connected }) => !connected);
    if (step !== "prepare" && taken.length > 0) {
      for (const { name } of away) behind.add(name);
      warn(
        away.map(({ name }) => name),
        (gate) =>
          step === "activate"
            ? `gate ${gate} is away and does not know the new root: it refuses what that root signs until it is back`
            : `gate ${gate} is away and goes on trusting the retired root until it is back: if that root was stolen, stop the gate`,
      );
    }
    if (step === "retire" && taken.length > 0) {
      const now = rootsNow();
      const isCut = (held: HeldRoots | undefined): boolean =>
        held !== undefined &&
        taken.every(({ plane }) =>
          held[plane].trusted.every((name) => now[plane].trusted.includes(name)),
        );
      const uncut = (await publisher()?.unlike(isCut, waits.cutMs)) ?? [];
      for (const gate of uncut) behind.add(gate);
      warn(
        uncut,
        (gate) =>
          `gate ${gate} has not confirmed that the retired root is trusted no more: it may still let in what that root signed; if it was stolen, stop this gate`,
      );
    }
    if (refused !== undefined) throw Object.assign(refused as Error, { taken });
    return { authorities: taken, behind: [...behind].sort() };
  }

  return {
    lastMs: () => lastMs,
    roots: rootsNow,
    heard(gate, held) {
      const now = rootsNow();
      const isAlong = (["control", "data"] as const).every(
        (plane) =>
          held[plane].leaf === now[plane].active &&
          held[plane].trusted.every((name) => now[plane].trusted.includes(name)),
      );
      if (!isAlong || !leftBehind.delete(gate)) return;
      options.raise(
        warningOf(gate, clock(), "info", `gate ${gate} has followed the rotation by now`),
      );
    },
    status: () =>
      (["control", "data"] as const).map((plane) => ({
        plane,
        ...authorities[plane].rotation(),
      })),
    isOfRetiredRoot({ plane, certPem }) {
      const leaf = new X509Certificate(certPem);
      return !authorities[plane].issuers().some(({ issuing }) => leaf.checkIssued(issuing));
    },
    rotate(planes, step, { force }) {
      // One at a time: what one waits for, another may take away.
      const turn = () => rotate(planes, step, force);
      const next = last.then(turn, turn);
      last = next.catch(() => {});
      return next;
    },
  };
}

function rootsOf({ active, next, previous }: RotationState): PlaneRoots {
  return {
    active: active.fingerprint,
    trusted: [active, next, previous].flatMap((root) => (root ? [root.fingerprint] : [])),
  };
}

/** What the authority itself will say: a step that it refuses is not worth waiting for. */
function mayStep(state: RotationState, step: RotationStep, force: boolean, nowMs: number): boolean {
  const from = { prepare: "steady", activate: "prepared", retire: "activated" }[step];
  return state.step === from && (force || nowMs >= (state.readyAtMs ?? 0));
}

function warningOf(gate: string, at: number, severity: Warning["severity"], says: string): Warning {
  return {
    id: `rotation:${gate}`,
    at,
    detector: "rotation",
    severity,
    says,
    hits: [],
    count: 1,
    gate,
  };
}
