import type { Clock } from "../../base/clock.ts";
import type { Hit } from "../../model/hit.ts";
import type { Warning } from "../../model/warning.ts";
import { detectDecoy } from "./decoy.ts";
import { detectRefusalBurst } from "./refusal-burst.ts";
import { detectScanner } from "./scanner.ts";
import { detectWorkerDeath } from "./worker-death.ts";

/** What a detector saw. `id` is stable for the same matter. */
type Sighting = Pick<Warning, "id" | "detector" | "severity" | "says">;

/** One thing to look out for: has its own bounded memory, and answers hit by hit. */
export type Detector = (hit: Hit) => Sighting | undefined;

export type Watch = {
  /** Looks at one hit: a refusal, a fault, something on a decoy, a process's news. Others cost nothing and say nothing. */
  see(hit: Hit): void;
};

export type WatchSettings = {
  readonly clock: Clock;
  /** Called when something begins, and once a minute while it goes on, with the count so far. */
  readonly raise: (warning: Warning) => void;
};

const mattersMax = 1024;
const hitsMax = 20;
const againMs = 60_000;

type Matter = { count: number; hits: string[]; toldMs: number };

/** Early warning: looks at hits beside the log that recorded them. Bounded memory: of too many matters the oldest is forgotten. */
export function createWatch({ clock, raise }: WatchSettings): Watch {
  const detectors = [detectDecoy(), detectScanner(), detectRefusalBurst(), detectWorkerDeath()];
  const matters = new Map<string, Matter>();
  return {
    see(hit) {
      if (hit.decision === "allowed" && hit.plane !== "decoy") return;
      const now = clock();
      for (const detect of detectors) {
        const sighting = detect(hit);
        if (!sighting) continue;
        const matter = matters.get(sighting.id) ?? { count: 0, hits: [], toldMs: -againMs };
        matters.delete(sighting.id);
        matters.set(sighting.id, matter);
        for (const oldest of matters.keys()) {
          if (matters.size <= mattersMax) break;
          matters.delete(oldest);
        }
        matter.count += hit.count ?? 1;
        matter.hits.push(hit.id);
        if (matter.hits.length > hitsMax) matter.hits.shift();
        if (now - matter.toldMs < againMs) continue;
        matter.toldMs = now;
        raise({
          ...sighting,
          at: hit.at,
          hits: [...matter.hits],
          count: matter.count,
          ...(hit.gate === undefined ? {} : { gate: hit.gate }),
        });
      }
    },
  };
}
