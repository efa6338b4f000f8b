import type { Register, Rule, Service } from "../../model/register.ts";
import { covers } from "./covers.ts";
import type { Remark } from "./lint-register.ts";

/** Rules that can never decide anything. An expired one is not among them: time never breaks a deployment. */
export function lintRules(
  register: Register,
  nowMs: number,
  isDamaged: (path: string) => boolean,
): Remark[] {
  return Object.entries(register.services).flatMap(([name, service]) => [
    ...neverMatches(name, service, isDamaged),
    ...shadowed(name, service, nowMs, isDamaged),
  ]);
}

function neverMatches(
  name: string,
  service: Service,
  isDamaged: (path: string) => boolean,
): Remark[] {
  const remarks: Remark[] = [];
  const say = (rule: Rule, path: string, why: string, hint: string) =>
    remarks.push({
      code: "rule-never-matches",
      severity: "error",
      message: `the rule ${JSON.stringify(rule.id)} can never match: ${why}`,
      hint,
      path,
    });
  const gated = Object.values(service.ports).filter((port) => port.via === "gate");
  for (const { rule, path } of rulesOf(name, service)) {
    if (rule.from.length === 0 && !isDamaged(`${path}.from`))
      say(rule, `${path}.from`, "it is for nobody", 'name callers, or write from: "*"');
    if (rule.methods?.length === 0 && !isDamaged(`${path}.methods`))
      say(rule, `${path}.methods`, "it has no method", 'remove "methods" to mean all of them');
    if (rule.paths?.length === 0 && !isDamaged(`${path}.paths`))
      say(rule, `${path}.paths`, "it has no path", 'remove "paths" to mean all of them');
    for (const [i, port] of rule.ports.entries())
      if (Object.hasOwn(service.ports, port) && service.ports[port]?.via === "direct")
        say(
          rule,
          `${path}.ports[${i}]`,
          `the port ${JSON.stringify(port)} is via: direct, so no request to it passes the gate`,
          "remove the port from the rule, or say via: gate",
        );
    if (rule.ports.length > 0 || isDamaged(`services.${name}`)) continue;
    if (gated.length === 0)
      say(
        rule,
        path,
        `the service ${JSON.stringify(name)} has no gated port`,
        "add one, or remove the rule",
      );
    else
      say(
        rule,
        path,
        "it names no port, and none is the main one",
        `say which: ports: [${gated.map((port) => port.name).join(", ")}]`,
      );
  }
  return remarks;
}

/** Paths of one service that are held against each other, each against all: about a second's work. */
const comparedPathsMax = 10_000;

function shadowed(
  name: string,
  service: Service,
  nowMs: number,
  isDamaged: (path: string) => boolean,
): Remark[] {
  const remarks: Remark[] = [];
  // What can match at all, now or later.
  const live = rulesOf(name, service)
    .filter(
      ({ rule, path }) =>
        !isDamaged(path) &&
        rule.from.length > 0 &&
        rule.ports.length > 0 &&
        rule.methods?.length !== 0 &&
        rule.paths?.length !== 0 &&
        (rule.expiresMs === undefined || rule.expiresMs > nowMs),
    )
    .map((each, at) => ({ ...each, at }));
  const paths = live.reduce((sum, { rule }) => sum + (rule.paths?.length ?? 1), 0);
  if (paths > comparedPathsMax)
    return [
      {
        code: "rules-not-compared",
        severity: "warning",
        message: `${live.length} rules with ${paths} paths are too many to find out which of them shadow others`,
        hint: "use fewer, wider patterns, or split the service",
        path: `services.${name}`,
      },
    ];
  for (const { rule, path, at } of live) {
    const over = live.find(
      (other) =>
        other.at !== at &&
        outlasts(other.rule, rule) &&
        covers(other.rule, rule) &&
        beats(other.rule, rule, other.at < at),
    );
    if (!over) continue;
    const [mine, theirs] = [JSON.stringify(rule.id), JSON.stringify(over.rule.id)];
    if (over.rule.effect === "deny" && rule.effect === "allow")
      remarks.push({
        code: "rule-never-matches",
        severity: "error",
        message: `the rule ${mine} can never match: ${theirs} denies all that it allows, and deny wins`,
        hint: "narrow the deny rule, or remove this one",
        path,
      });
    else if (over.at < at)
      remarks.push({
        code: "rule-shadowed",
        severity: "error",
        message: `the rule ${mine} never decides: ${theirs} stands before it and covers all of it`,
        hint: rule.limit
          ? "put this one first, so that its limit counts"
          : "remove it, or put it first",
        path,
      });
    else
      remarks.push({
        code: "rule-shadowed",
        severity: "warning",
        message: `the rule ${mine} changes nothing: ${theirs} ${rule.effect === "deny" ? "denies" : "allows"} all of it, too`,
        hint: "remove it, or narrow the other",
        path,
      });
  }
  return remarks;
}

/** Whether `other` is in force whenever `rule` is. */
function outlasts(other: Rule, rule: Rule): boolean {
  return (
    other.hours === undefined &&
    (other.expiresMs === undefined ||
      (rule.expiresMs !== undefined && rule.expiresMs <= other.expiresMs))
  );
}

/** Whether `rule`, covered by `other`, makes no difference. Deny wins; among allow rules the first decides, with its limit. */
function beats(other: Rule, rule: Rule, isBefore: boolean): boolean {
  if (rule.effect === "deny") return other.effect === "deny";
  if (other.effect === "deny") return true;
  return (
    isBefore || (rule.limit === undefined && other.limit === undefined && isWorthless(other, rule))
  );
}

/** A narrower rule before a wider one only names what it allows; of two that are the same only the later is told. */
function isWorthless(other: Rule, rule: Rule): boolean {
  return !covers(rule, other);
}

function rulesOf(name: string, service: Service): readonly { rule: Rule; path: string }[] {
  return (["deny", "allow"] as const).flatMap((effect) =>
    service[effect].map((rule, i) => ({ rule, path: `services.${name}.${effect}[${i}]` })),
  );
}
