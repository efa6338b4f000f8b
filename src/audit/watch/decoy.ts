import { sourceOf } from "../source.ts";
import type { Detector } from "./watch.ts";

/** A port that nobody has a reason to touch was touched. Once is enough. */
export function detectDecoy(): Detector {
  return (hit) => {
    if (hit.plane !== "decoy") return undefined;
    const source = sourceOf(hit.peer);
    return {
      id: `decoy:${source}`,
      detector: "decoy",
      severity: "critical",
      says: `${source} touched the decoy ${hit.local ?? "port"}: nobody has a reason to`,
    };
  };
}
