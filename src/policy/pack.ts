import type {
  CompiledPort,
  CompiledRule,
  CompiledService,
  Literal,
  RuleTable,
  RuleTables,
  TrieNode,
  ViewPatch,
} from "./view.ts";

/**
 * A patch on its way to a worker: its compiled services are cut into small pieces of JSON. Structured clone builds everything in one
 * go, which stalls a worker for 70 ms where one service has 10,000 rules; strings cross at once and are unpacked a piece at a time.
 */
export type PackedPatch = Omit<ViewPatch, "changed"> & { readonly pieces: readonly string[] };

/** Entries in a piece: well under a millisecond to unpack. */
const pieceEntriesMax = 200;

/** What the worker receives by `postMessage` instead of the patch. */
export function packPatch(patch: ViewPatch): PackedPatch {
  const { changed, ...rest } = patch;
  const pieces: string[] = [];
  let piece: Entry[] = [];
  let weight = 0;
  for (const entry of entriesOf(changed)) {
    piece.push(entry);
    weight += entry[0] === "literals" || entry[0] === "callers" ? entry[1].length : 1;
    if (weight < pieceEntriesMax) continue;
    pieces.push(JSON.stringify(piece));
    piece = [];
    weight = 0;
  }
  if (piece.length > 0) pieces.push(JSON.stringify(piece));
  return { ...rest, pieces };
}

/**
 * Puts the patch together again, for `applyPatch`. Calls `pause` after each piece: `() => new Promise(setImmediate)` lets what waits go
 * first. Patches must be unpacked and applied one after the other, in the order they came.
 */
export async function unpackPatch(
  packed: PackedPatch,
  pause: () => Promise<unknown>,
): Promise<ViewPatch> {
  const { pieces, ...rest } = packed;
  const unpacking = new Unpacking();
  for (const piece of pieces) {
    for (const entry of JSON.parse(piece) as Entry[]) unpacking.take(entry);
    await pause();
  }
  return { ...rest, changed: unpacking.services };
}

/**
 * Rules and nodes are named by their place in the order of arrival; each comes before what refers to it. The rows of a table come
 * before the node or the port that they belong to, in several entries where they are many.
 */
type Entry =
  | ["rule", PackedRule]
  | ["literals", [hash: number, text: string, node: number][]]
  | ["node", here: number[], below: number[], variable: number]
  | ["callers", [caller: string, node: number][]]
  | ["tables", any: number]
  | ["port", Omit<CompiledPort, "deny" | "allow">]
  | ["service", Omit<CompiledService, "hosts" | "ports">, hosts: [string, string][]];

type PackedRule = Omit<CompiledRule, "methods" | "limit"> & {
  readonly methods: string[] | null;
  readonly limit: { count: number; perMs: number; burst: number; slots: [string, number][] } | null;
};

const none = -1;

/** Entries of one service: its rules and nodes from the leaves up, its ports, then the service. */
function* entriesOf(services: readonly CompiledService[]): Generator<Entry> {
  const rules = new Map<CompiledRule, number>();
  const nodes = new Map<TrieNode, number>();

  function* refer(list: readonly CompiledRule[]): Generator<Entry, number[]> {
    const indices: number[] = [];
    for (const rule of list) {
      const known = rules.get(rule);
      if (known === undefined) yield ["rule", packRule(rule)];
      const index = known ?? rules.size;
      rules.set(rule, index);
      indices.push(index);
    }
    return indices;
  }

  function* visit(node: TrieNode | undefined): Generator<Entry, number> {
    if (!node) return none;
    const known = nodes.get(node);
    if (known !== undefined) return known;
    const here = yield* refer(node.here);
    const below = yield* refer(node.below);
    const literals: [number, string, number][] = [];
    for (const [hash, bucket] of node.literals ?? [])
      for (const { text, node: next } of bucket) literals.push([hash, text, yield* visit(next)]);
    const variable = yield* visit(node.variable);
    for (const rows of cut(literals)) yield ["literals", rows];
    yield ["node", here, below, variable];
    nodes.set(node, nodes.size);
    return nodes.size - 1;
  }

  function* pack(tables: RuleTables): Generator<Entry> {
    const any = yield* visit(tables.any?.root);
    const callers: [string, number][] = [];
    for (const [caller, table] of tables.byCaller) callers.push([caller, yield* visit(table.root)]);
    for (const rows of cut(callers)) yield ["callers", rows];
    yield ["tables", any];
  }

  for (const { hosts, ports, ...service } of services) {
    for (const { deny, allow, ...port } of ports.values()) {
      yield* pack(deny);
      yield* pack(allow);
      yield ["port", port];
    }
    yield ["service", service, [...hosts]];
  }
}

function* cut<T>(rows: readonly T[]): Generator<T[]> {
  for (let i = 0; i < rows.length; i += pieceEntriesMax) yield rows.slice(i, i + pieceEntriesMax);
}

function packRule(rule: CompiledRule): PackedRule {
  const { methods, limit } = rule;
  return {
    ...rule,
    methods: methods ? [...methods] : null,
    limit: limit ? { ...limit, slots: [...limit.slots] } : null,
  };
}

class Unpacking {
  readonly services: CompiledService[] = [];
  readonly #rules: CompiledRule[] = [];
  readonly #nodes: TrieNode[] = [];
  readonly #shared = new Map<number, RuleTable>();
  // What the entries so far have made of the node, port and service that come next.
  #literals: Map<number, Literal[]> | undefined;
  #byCaller = new Map<string, RuleTable>();
  #tables: RuleTables[] = [];
  #ports = new Map<string, CompiledPort>();

  take(entry: Entry): void {
    switch (entry[0]) {
      case "rule":
        this.#rules.push(unpackRule(entry[1]));
        break;
      case "literals":
        for (const row of entry[1]) this.#addLiteral(...row);
        break;
      case "node": {
        const [, here, below, variable] = entry;
        this.#nodes.push({
          here: here.map((index) => at(this.#rules, index)),
          below: below.map((index) => at(this.#rules, index)),
          literals: this.#literals,
          variable: variable === none ? undefined : at(this.#nodes, variable),
        });
        this.#literals = undefined;
        break;
      }
      case "callers":
        for (const [caller, node] of entry[1]) this.#byCaller.set(caller, this.#table(node));
        break;
      case "tables": {
        const any = entry[1] === none ? undefined : this.#table(entry[1]);
        this.#tables.push({ byCaller: this.#byCaller, any });
        this.#byCaller = new Map();
        break;
      }
      case "port": {
        const port = entry[1];
        this.#ports.set(port.port, {
          ...port,
          deny: at(this.#tables, 0),
          allow: at(this.#tables, 1),
        });
        this.#tables = [];
        break;
      }
      case "service":
        this.services.push({ ...entry[1], hosts: new Map(entry[2]), ports: this.#ports });
        this.#ports = new Map();
        break;
    }
  }

  #addLiteral(hash: number, text: string, node: number): void {
    this.#literals ??= new Map();
    const literal = { text, node: at(this.#nodes, node) };
    const bucket = this.#literals.get(hash);
    if (bucket) bucket.push(literal);
    else this.#literals.set(hash, [literal]);
  }

  #table(node: number): RuleTable {
    const table = this.#shared.get(node) ?? { root: at(this.#nodes, node) };
    this.#shared.set(node, table);
    return table;
  }
}

function unpackRule({ methods, limit, ...rule }: PackedRule): CompiledRule {
  return {
    ...rule,
    hours: rule.hours,
    methods: methods ? new Set(methods) : undefined,
    limit: limit ? { ...limit, slots: new Map(limit.slots) } : undefined,
  };
}

/** Fails closed: a reference to what has not come ends the patch, not in a rule that is missing. */
function at<T>(list: readonly T[], index: number): T {
  const found = list[index];
  if (found === undefined) throw new RangeError(`nothing was packed at ${index}`);
  return found;
}
