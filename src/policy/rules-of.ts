import type { CompiledRule, CompiledService, RuleTables, TrieNode } from "./view.ts";

/** Every rule of a compiled service; one that several tables hold may come more than once. */
export function* rulesOf(service: CompiledService): Generator<CompiledRule> {
  for (const port of service.ports.values()) {
    yield* rulesIn(port.deny);
    yield* rulesIn(port.allow);
  }
}

function* rulesIn(tables: RuleTables): Generator<CompiledRule> {
  for (const table of new Set(tables.byCaller.values())) yield* rulesUnder(table.root);
  if (tables.any) yield* rulesUnder(tables.any.root);
}

function* rulesUnder(node: TrieNode): Generator<CompiledRule> {
  yield* node.here;
  yield* node.below;
  for (const bucket of node.literals?.values() ?? [])
    for (const literal of bucket) yield* rulesUnder(literal.node);
  if (node.variable) yield* rulesUnder(node.variable);
}
