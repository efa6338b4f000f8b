import { Recent } from "./recent.ts";
import type { Detector } from "./watch.ts";

const withinMs = 10_000;
const countMin = 50;

/** A known caller is refused again and again: a broken deployment, a rule that went missing, or a stolen identity. */
export function detectRefusalBurst(): Detector {
  const recent = new Recent(withinMs);
  return (hit) => {
    // A rate limit says no as a matter of course.
    if (hit.decision !== "refused" || hit.caller === undefined || hit.code === "rate_limited")
      return undefined;
    const { count } = recent.add(hit.caller, hit.at, "", hit.count);
    if (count < countMin) return undefined;
    return {
      id: `refusal-burst:${hit.caller}`,
      detector: "refusal-burst",
      severity: "warning",
      says: `${hit.caller} was refused ${countMin} times or more in ten seconds, lately with ${hit.code ?? "no code"}`,
    };
  };
}
