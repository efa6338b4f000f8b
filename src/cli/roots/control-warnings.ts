import type { Clock } from "../../base/clock.ts";
import type { ControlStore } from "../../control/store/store.ts";
import type { Warning } from "../../model/warning.ts";

/** The warnings that stand at this control process. */
export type Warnings = {
  raise(warning: Warning): void;
  /** The newest first. */
  list(): readonly Warning[];
  /** Brings back what stood before a restart, so that one does not make a critical warning go away unseen. */
  recall(): Promise<void>;
  /** Stores them if there is news. Throws when the store does, and tries again at the next call. */
  keep(): Promise<void>;
};

const warningsMax = 1_000;
/** Of one gate, so that a gate that was taken over cannot push out what the others warn of. */
const warningsOfGateMax = 100;
/** Over a restart. */
const keptMs = 7 * 24 * 3_600_000;

/** The same matter once, the newest last; of too many the oldest is forgotten. `notify` is told of each. */
export function createWarnings(options: {
  readonly store: Pick<ControlStore, "setting" | "saveSetting">;
  readonly clock: Clock;
  readonly notify: (warning: Warning) => void;
}): Warnings {
  const { clock, notify, store } = options;
  const standing = new Map<string, Warning>();
  let isNew = false;
  return {
    raise(warning) {
      const key = keyOf(warning);
      standing.delete(key);
      standing.set(key, warning);
      if (warning.gate !== undefined) {
        const mine = [...standing].filter(([, { gate }]) => gate === warning.gate);
        for (const [oldest] of mine.slice(0, -warningsOfGateMax)) standing.delete(oldest);
      }
      for (const oldest of standing.keys()) {
        if (standing.size <= warningsMax) break;
        standing.delete(oldest);
      }
      isNew = true;
      notify(warning);
    },
    list: () => [...standing.values()].sort((a, b) => b.at - a.at),
    async recall() {
      const kept = JSON.parse((await store.setting("warnings")) ?? "[]") as readonly Warning[];
      // What has come since this start stays the newest.
      const fresh = [...standing];
      standing.clear();
      for (const warning of kept)
        if (warning.at > clock() - keptMs) standing.set(keyOf(warning), warning);
      for (const [key, warning] of fresh) {
        standing.delete(key);
        standing.set(key, warning);
      }
    },
    async keep() {
      if (!isNew) return;
      isNew = false;
      try {
        await store.saveSetting("warnings", JSON.stringify([...standing.values()]));
      } catch (cause) {
        isNew = true;
        throw cause;
      }
    },
  };
}

function keyOf(warning: Warning): string {
  return `${warning.gate ?? ""} ${warning.id}`;
}
