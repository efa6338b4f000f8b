import type { Register } from "../../model/register.ts";

/** One difference between two registers. */
export type Change = {
  /** Where, in the words of the register: `services.orders.allow[web-reads-orders].methods`. */
  readonly path: string;
  readonly kind: "added" | "removed" | "changed";
  /** As it was; absent when added. */
  readonly before?: unknown;
  /** As it will be; absent when removed. */
  readonly after?: unknown;
};

/**
 * What changes from one register to the next, by the path of the smallest part that differs, in the order of the register.
 * Things with a name are compared by name: moving a service or a port says nothing. Rules too, but their order is told
 * (`services.orders.allow`, the ids before and after), because of two rules with limits the first counts.
 */
export function diffRegisters(before: Register | undefined, after: Register): Change[] {
  const changes: Change[] = [];
  compare("", before ?? {}, after, changes);
  return changes;
}

/** One line a change, marked `+`, `-` or `~`. */
export function describeChange(change: Change): string {
  switch (change.kind) {
    case "added":
      return `+ ${change.path}: ${brief(change.after)}`;
    case "removed":
      return `- ${change.path}: ${brief(change.before)}`;
    case "changed":
      return `~ ${change.path}: ${brief(change.before)} → ${brief(change.after)}`;
  }
}

function compare(path: string, before: unknown, after: unknown, changes: Change[]): void {
  if (isRules(before) && isRules(after)) compareRules(path, before, after, changes);
  else if (isPlain(before) && isPlain(after)) {
    for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
      const inner = path === "" ? key : `${path}.${key}`;
      // Own keys only: a service may be called `constructor`.
      const old = Object.hasOwn(before, key) ? before[key] : undefined;
      const now = Object.hasOwn(after, key) ? after[key] : undefined;
      if (old === undefined && now === undefined) continue;
      if (isNames(path) && (old === undefined || now === undefined))
        addWhole(inner, old, now, changes);
      else compare(inner, old ?? emptyLike(now), now ?? emptyLike(old), changes);
    }
  } else if (JSON.stringify(before) !== JSON.stringify(after))
    addWhole(path, before, after, changes);
}

function compareRules(
  path: string,
  before: readonly RuleLike[],
  after: readonly RuleLike[],
  changes: Change[],
): void {
  const old = new Map(before.map((rule) => [rule.id, rule]));
  const now = new Map(after.map((rule) => [rule.id, rule]));
  for (const [id, rule] of old)
    if (!now.has(id)) addWhole(`${path}[${id}]`, rule, undefined, changes);
  for (const [id, rule] of now) {
    const known = old.get(id);
    if (known) compare(`${path}[${id}]`, known, rule, changes);
    else addWhole(`${path}[${id}]`, undefined, rule, changes);
  }
  const kept = [...old.keys()].filter((id) => now.has(id));
  const keptNow = [...now.keys()].filter((id) => old.has(id));
  if (kept.join("\n") !== keptNow.join("\n")) addWhole(path, kept, keptNow, changes);
}

function addWhole(path: string, before: unknown, after: unknown, changes: Change[]): void {
  if (before === undefined) changes.push({ path, kind: "added", after });
  else if (after === undefined) changes.push({ path, kind: "removed", before });
  else changes.push({ path, kind: "changed", before, after });
}

type RuleLike = { readonly id: string };

function isRules(value: unknown): value is readonly RuleLike[] {
  return (
    Array.isArray(value) &&
    value.every((item) => isPlain(item) && typeof item.id === "string" && "effect" in item)
  );
}

function isPlain(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether the keys below are names that people chose: what comes or goes there is one thing. */
function isNames(path: string): boolean {
  return path === "services" || path === "networks" || /^services\.[^.]+\.ports$/.test(path);
}

/** So that a section that comes whole is told part by part where its parts have names of ours. */
function emptyLike(other: unknown): unknown {
  return isPlain(other) ? {} : undefined;
}

function brief(value: unknown): string {
  const text = JSON.stringify(spoken(value)) ?? "nothing";
  return text.length > 160 ? `${text.slice(0, 157)}…` : text;
}

/** The parts that people wrote in short form, in that form again. */
function spoken(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(spoken);
  if (!isPlain(value)) return value;
  if (typeof value.text === "string" && "host" in value && "port" in value) {
    return "unsafeBind" in value ? { bind: value.text, unsafeBind: value.unsafeBind } : value.text;
  }
  if (value.kind === "tcp") return `${value.host}:${value.port}`;
  if (value.kind === "unix") return `unix:${value.path}`;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, inner]) => !(Array.isArray(inner) && inner.length === 0))
      .map(([key, inner]) => [key, spoken(inner)]),
  );
}
