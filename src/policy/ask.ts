import { isWithin } from "./hours.ts";
import { lenientReadings } from "./path.ts";
import { hashSegment } from "./segment.ts";
import type { CompiledPort, CompiledRule, RuleTables, TrieNode, View } from "./view.ts";

/**
 * The rule that decides: a deny rule if any matches, else the first allow rule in the order of the register, else `undefined`,
 * which means no. Fails closed.
 *
 * `caller` is the name of a registered service (the question says nothing about others: `from: "*"` is every registered service, and
 * the proxy refuses the rest before it asks). `path` is canonical; `method` is upper case. A rule past its `expires` matches
 * nothing any more, whether it allows or denies. Without a usable clock nothing is allowed.
 */
export function ask(
  port: CompiledPort,
  caller: string,
  method: string,
  path: string,
  nowMs: number,
): CompiledRule | undefined {
  if (!(nowMs > 0) || path.charCodeAt(0) !== slash) return undefined;
  const { deny } = port;
  if (deny.any !== undefined || deny.byCaller.size > 0) {
    const denied = findFirst(deny, caller, method, path, nowMs);
    if (denied) return denied;
    // A denial must also hold for a server that reads the same path less strictly.
    for (const reading of lenientReadings(path)) {
      const rule = findFirst(deny, caller, method, reading, nowMs);
      if (rule) return rule;
    }
  }
  return findFirst(port.allow, caller, method, path, nowMs);
}

/** The port that a host name (lower case, without its port: see `parseHost`) stands for. */
export function routeOf(view: View, host: string): CompiledPort | undefined {
  return view.routes.get(host);
}

const slash = 0x2f;

function findFirst(
  tables: RuleTables,
  caller: string,
  method: string,
  path: string,
  nowMs: number,
): CompiledRule | undefined {
  const own = tables.byCaller.get(caller);
  const found = own && walk(own.root, 1, path, method, nowMs, undefined);
  return tables.any ? walk(tables.any.root, 1, path, method, nowMs, found) : found;
}

/**
 * The earliest rule that matches `path` from `start` on, at or under `node`, or `best` where that comes first. Recursion is as deep as
 * the longest pattern, and visits no node twice.
 */
function walk(
  node: TrieNode,
  start: number,
  path: string,
  method: string,
  nowMs: number,
  best: CompiledRule | undefined,
): CompiledRule | undefined {
  let first = earliest(node.below, method, nowMs, best);
  if (start > path.length) return earliest(node.here, method, nowMs, first);
  const { literals, variable } = node;
  if (literals === undefined && variable === undefined) return first;
  const next = path.indexOf("/", start);
  const end = next === -1 ? path.length : next;
  const bucket = literals?.get(hashSegment(path, start, end));
  if (bucket !== undefined) {
    for (let i = 0; i < bucket.length; i++) {
      const literal = bucket[i];
      if (literal && literal.text.length === end - start && path.startsWith(literal.text, start))
        first = walk(literal.node, end + 1, path, method, nowMs, first);
    }
  }
  if (variable !== undefined && end > start)
    first = walk(variable, end + 1, path, method, nowMs, first);
  return first;
}

function earliest(
  rules: readonly CompiledRule[],
  method: string,
  nowMs: number,
  best: CompiledRule | undefined,
): CompiledRule | undefined {
  // Rules stand in the order of the register, so the first match is the earliest here.
  for (let i = 0; i < rules.length; i++) {
    const rule = rules[i];
    if (rule === undefined || (best !== undefined && best.order < rule.order)) return best;
    if (holds(rule, method, nowMs)) return rule;
  }
  return best;
}

function holds(rule: CompiledRule, method: string, nowMs: number): boolean {
  return (
    (rule.methods === undefined || rule.methods.has(method)) &&
    (rule.expiresMs === 0 || nowMs < rule.expiresMs) &&
    (rule.hours === undefined || isWithin(rule.hours, nowMs))
  );
}
