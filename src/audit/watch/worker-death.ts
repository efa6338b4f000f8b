import { Recent } from "./recent.ts";
import type { Detector } from "./watch.ts";

const withinMs = 60_000;
const manyMin = 3;

/** A worker died. Once may be chance; three times in a minute is a fault, or somebody who found one. */
export function detectWorkerDeath(): Detector {
  const recent = new Recent(withinMs);
  return (hit) => {
    if (hit.kind !== "process" || hit.action !== "worker_died") return undefined;
    const gate = hit.gate ?? "the gate";
    const { count } = recent.add(gate, hit.at, "");
    const isMany = count >= manyMin;
    return {
      id: isMany ? `workers-dying:${gate}` : `worker-death:${gate}`,
      detector: "worker-death",
      severity: isMany ? "critical" : "warning",
      says: isMany
        ? `workers of ${gate} die again and again: ${manyMin} or more in a minute`
        : `a worker of ${gate} died and was replaced`,
    };
  };
}
