import { sourceOf } from "../source.ts";
import { Recent } from "./recent.ts";
import type { Detector } from "./watch.ts";

const withinMs = 60_000;
const kindsMin = 8;

/** A source without an identity is refused in many different ways within a minute: it is trying doors. */
export function detectScanner(): Detector {
  const recent = new Recent(withinMs);
  return (hit) => {
    if (hit.decision !== "refused" || hit.caller !== undefined || hit.plane === "decoy")
      return undefined;
    const source = sourceOf(hit.peer);
    const kind = `${hit.code} ${hit.local} ${hit.service} ${hit.path}`;
    const { kinds } = recent.add(source, hit.at, kind, hit.count);
    if (kinds < kindsMin) return undefined;
    return {
      id: `scanner:${source}`,
      detector: "scanner",
      severity: "warning",
      says: `${source} shows no identity and is trying doors: ${kindsMin} or more different refusals in a minute`,
    };
  };
}
