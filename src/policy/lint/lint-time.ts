import type { Register } from "../../model/register.ts";
import { bindsOf } from "./binds-of.ts";
import type { Remark } from "./lint-register.ts";

const dayMs = 86_400_000;
/** People are told this many days before something runs out. */
const daysBefore = [1, 7, 30];

type Dated = {
  readonly path: string;
  readonly at: number;
  readonly what: string;
  readonly outcome: string;
};

/** What has expired and what soon will: never an error, because time must not break a deployment or a rollback. */
export function lintTime(register: Register, nowMs: number): Remark[] {
  return datesOf(register).flatMap(({ path, at, what, outcome }) => {
    const day = new Date(at).toISOString().slice(0, 10);
    if (at <= nowMs)
      return [
        {
          code: "expired",
          severity: "time",
          message: `${what} expired on ${day}: ${outcome}`,
          hint: "remove it, or give it a new date",
          path,
        },
      ];
    const days = daysBefore.find((each) => at - nowMs <= each * dayMs);
    if (days === undefined) return [];
    const left = Math.ceil((at - nowMs) / dayMs);
    return [
      {
        code: `expires-within-${days}d`,
        severity: "time",
        message: `${what} expires on ${day}, in ${left} ${left === 1 ? "day" : "days"}; then ${outcome}`,
        hint: "decide before: a new date, or another way",
        path,
      },
    ];
  });
}

function datesOf(register: Register): readonly Dated[] {
  const dates: Dated[] = [];
  const seen = new Set<object>();
  for (const { bind, door, path } of bindsOf(register)) {
    // One excuse beside several binds is told once.
    if (!bind.unsafeBind || seen.has(bind.unsafeBind)) continue;
    seen.add(bind.unsafeBind);
    dates.push({
      path: `${path.replace(/\.bind\[\d+\]$/, "")}.unsafeBind.expires`,
      at: bind.unsafeBind.expiresMs,
      what: `the unsafeBind of ${bind.text} (${door})`,
      outcome: "that address stays closed",
    });
  }
  for (const [name, service] of Object.entries(register.services)) {
    for (const port of Object.values(service.ports))
      if (port.plaintext)
        dates.push({
          path: `services.${name}.ports.${port.name}.plaintext.expires`,
          at: port.plaintext.expiresMs,
          what: `the plaintext excuse of ${name}/${port.name}`,
          outcome: "nobody accepts any more that it can be read on the way",
        });
    for (const effect of ["allow", "deny"] as const)
      for (const [i, rule] of service[effect].entries())
        if (rule.expiresMs !== undefined)
          dates.push({
            path: `services.${name}.${effect}[${i}].expires`,
            at: rule.expiresMs,
            what: `the rule ${JSON.stringify(rule.id)}`,
            outcome: effect === "allow" ? "it lets nobody in" : "it keeps nobody out",
          });
  }
  return dates;
}
