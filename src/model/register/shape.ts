import type { Problem } from "../../base/problem.ts";
import { didYouMean, nearest } from "./nearest.ts";
import type { Entry, Place, Tree } from "./read-yaml.ts";

export type JsonSchema = { readonly [key: string]: unknown };

/** What one value of the register may look like: how it is read, and how an editor is told. */
export type Shape<T> = {
  /** Reports everything that is wrong with the value and then gives `undefined`, or as much as could be read. */
  readonly read: (tree: Tree, report: Report) => T | undefined;
  readonly schema: JsonSchema;
};

/** Where shapes complain. */
export type Report = (
  at: { readonly place: Place; readonly path: string },
  problem: Pick<Problem, "code" | "message" | "hint">,
) => void;

type Field<T> = {
  readonly shape: Shape<T>;
  readonly about: string;
  readonly required?: boolean;
  /** Described in the design, refused by this version with its place. */
  readonly notYet?: boolean;
};

type Fields = { readonly [key: string]: Field<unknown> };
type Read<F extends Fields> = {
  -readonly [K in keyof F]?: F[K] extends Field<infer T> ? T : never;
};

/** Words other systems use, and ours. */
const ourWords: Readonly<Record<string, string>> = {
  address: "bind",
  backend: "upstreams",
  backends: "upstreams",
  because: "why",
  caller: "from",
  callers: "from",
  comment: "why",
  description: "why",
  domain: "trustDomain",
  listen: "bind",
  principal: "from",
  principals: "from",
  rate: "limit",
  rateLimit: "limit",
  reason: "why",
  target: "upstreams",
  targets: "upstreams",
  team: "owner",
  to: "upstreams",
  url: "upstreams",
  verbs: "methods",
};

/** What a value is, for `expected a list, not …`. */
export function told(tree: Tree): string {
  if (tree.kind === "map") return "a map";
  if (tree.kind === "list") return "a list";
  if (tree.kind === "scalar")
    return typeof tree.value === "string"
      ? JSON.stringify(shorten(tree.value))
      : shorten(tree.source);
  return "nothing";
}

function shorten(text: string): string {
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

function wrongType(tree: Tree, expected: string, report: Report, hint?: string): undefined {
  if (tree.kind === "broken") return undefined;
  const message = `expected ${expected}, not ${told(tree)}`;
  report(tree, { code: "wrong-type", message, ...(hint === undefined ? {} : { hint }) });
  return undefined;
}

/** What a parser of one text says: the value, or why not. */
export type Parsed<T> =
  | { readonly value: T }
  | { readonly wrong: string; readonly hint?: string | undefined };

/** One text, by its own parser. `expected` finishes the sentence "… is not". */
export function text<T>(form: {
  readonly code: string;
  readonly expected: string;
  readonly parse: (text: string) => Parsed<T> | undefined;
  readonly schema: JsonSchema;
  /** Numbers and booleans are read as they were written. */
  readonly bare?: boolean;
}): Shape<T> {
  return {
    schema: { type: "string", ...form.schema },
    read: (tree, report) => {
      if (tree.kind !== "scalar") return wrongType(tree, form.expected, report);
      if (typeof tree.value !== "string" && !form.bare)
        return wrongType(tree, form.expected, report, `quote it: "${tree.source}"`);
      const written = typeof tree.value === "string" ? tree.value : tree.source;
      const parsed = form.parse(written);
      if (parsed && "value" in parsed) return parsed.value;
      const message = parsed
        ? `${JSON.stringify(shorten(written))}: ${parsed.wrong}`
        : `${JSON.stringify(shorten(written))} is not ${form.expected}`;
      const hint = parsed?.hint;
      report(tree, { code: form.code, message, ...(hint === undefined ? {} : { hint }) });
      return undefined;
    },
  };
}

/** One of a few words. */
export function word<const T extends string>(words: readonly T[]): Shape<T> {
  const list = words.map((each) => JSON.stringify(each)).join(", ");
  return text({
    code: "bad-word",
    expected: words.length === 1 ? list : `one of ${list}`,
    bare: true,
    schema: { enum: words },
    parse: (written) => {
      const found = words.find((each) => each === written);
      if (found !== undefined) return { value: found };
      return { wrong: `expected one of ${list}`, hint: didYouMean(written, words) };
    },
  });
}

export function whole(min: number, max: number, expected: string): Shape<number> {
  return {
    schema: { type: "integer", minimum: min, maximum: max },
    read: (tree, report) => {
      if (tree.kind === "scalar" && typeof tree.value === "string" && /^\d+$/.test(tree.value))
        return wrongType(tree, `${expected}, ${min} to ${max}`, report, "remove the quotes");
      if (tree.kind !== "scalar" || typeof tree.value !== "number")
        return wrongType(tree, `${expected}, ${min} to ${max}`, report);
      if (Number.isInteger(tree.value) && tree.value >= min && tree.value <= max) return tree.value;
      const message = `${shorten(tree.source)} is not ${expected}, ${min} to ${max}`;
      report(tree, { code: "out-of-range", message });
      return undefined;
    },
  };
}

/** Items that could not be read are left out. */
export function list<T>(item: Shape<T>, itemsMax: number, expected: string): Shape<readonly T[]> {
  return {
    schema: { type: "array", items: item.schema, maxItems: itemsMax },
    read: (tree, report) => {
      if (tree.kind !== "list")
        return wrongType(
          tree,
          expected,
          report,
          tree.kind === "scalar" ? `write [${told(tree)}]` : undefined,
        );
      return readItems(tree.items, item, itemsMax, tree, report);
    },
  };
}

/** A list, or a single item without its brackets. */
export function oneOrMore<T>(item: Shape<T>, itemsMax: number): Shape<readonly T[]> {
  return {
    schema: {
      anyOf: [item.schema, { type: "array", items: item.schema, maxItems: itemsMax }],
    },
    read: (tree, report) => {
      if (tree.kind === "list") return readItems(tree.items, item, itemsMax, tree, report);
      const only = item.read(tree, report);
      return only === undefined ? undefined : [only];
    },
  };
}

function readItems<T>(
  items: readonly Tree[],
  item: Shape<T>,
  itemsMax: number,
  at: Tree,
  report: Report,
): readonly T[] {
  if (items.length > itemsMax)
    report(at, {
      code: "too-many",
      message: `${items.length} items; at most ${itemsMax} can be here`,
    });
  return items
    .slice(0, itemsMax)
    .map((each) => item.read(each, report))
    .filter((each) => each !== undefined);
}

/** A map whose keys people choose. A bad name is reported and its value read all the same. */
export function named<T>(form: {
  readonly name: (name: string) => Parsed<string>;
  readonly nameSchema: JsonSchema;
  readonly value: (name: string) => Shape<T>;
  readonly what: string;
  readonly max: number;
}): Shape<ReadonlyMap<string, { readonly entry: Entry; readonly value: T | undefined }>> {
  return {
    schema: {
      type: "object",
      propertyNames: form.nameSchema,
      additionalProperties: form.value("").schema,
      maxProperties: form.max,
    },
    read: (tree, report) => {
      if (tree.kind !== "map") return wrongType(tree, `a map of ${form.what}s by name`, report);
      if (tree.entries.length > form.max)
        report(tree, {
          code: "too-many",
          message: `${tree.entries.length} ${form.what}s; at most ${form.max} can be here`,
        });
      const all = new Map<string, { entry: Entry; value: T | undefined }>();
      for (const entry of tree.entries.slice(0, form.max)) {
        const name = form.name(entry.key);
        if ("wrong" in name) {
          const at = { place: entry.keyPlace, path: entry.value.path };
          const message = `${JSON.stringify(shorten(entry.key))} cannot name a ${form.what}: ${name.wrong}`;
          report(at, { code: "bad-name", message, ...(name.hint ? { hint: name.hint } : {}) });
        }
        all.set(entry.key, { entry, value: form.value(entry.key).read(entry.value, report) });
      }
      return all;
    },
  };
}

/** A map with fixed keys. Gives what could be read; a key that is missing or wrong is absent. */
export function fields<const F extends Fields>(what: string, table: F): Shape<Read<F>> {
  const known = Object.keys(table).filter((key) => !table[key]?.notYet);
  return {
    schema: {
      type: "object",
      properties: Object.fromEntries(
        Object.entries(table).map(([key, field]) => [
          key,
          field.notYet
            ? { not: {}, description: `${field.about} Not supported yet.` }
            : { description: field.about, ...field.shape.schema },
        ]),
      ),
      required: known.filter((key) => table[key]?.required),
      additionalProperties: false,
    },
    read: (tree, report) => {
      if (tree.kind !== "map") {
        const example = known.slice(0, 2).join(": …, ");
        return wrongType(tree, `${what}, a map such as { ${example}: … }`, report);
      }
      const result: Record<string, unknown> = {};
      // A mistyped key is one mistake: what it was meant to be is not missing as well.
      const meant = new Set<string | undefined>();
      for (const { key, keyPlace, value } of tree.entries) {
        const at = { place: keyPlace, path: value.path };
        const field = Object.hasOwn(table, key) ? table[key] : undefined;
        if (!field) {
          meant.add(meantKey(key, known));
          report(at, unknownKey(key, what, known));
        } else if (field.notYet) report(at, notYet(key));
        else if (value.kind === "nothing") {
          const message = `${JSON.stringify(key)} has no value`;
          report(at, { code: "no-value", message, hint: "give it one, or remove the key" });
        } else {
          const read = field.shape.read(value, report);
          if (read !== undefined) result[key] = read;
        }
      }
      for (const key of known) {
        if (
          !table[key]?.required ||
          meant.has(key) ||
          tree.entries.some((entry) => entry.key === key)
        )
          continue;
        const at = { place: tree.head, path: tree.path === "" ? key : `${tree.path}.${key}` };
        const message = `${what} needs ${JSON.stringify(key)} (${lowerFirst(table[key].about)})`;
        report(at, { code: "missing-key", message });
      }
      return result as Read<F>;
    },
  };
}

export function notYet(what: string, hint?: string): Pick<Problem, "code" | "message" | "hint"> {
  const message = `${JSON.stringify(what)} is not supported yet`;
  return {
    code: "not-supported-yet",
    message,
    hint: hint ?? "remove it; it would have no effect, and is therefore refused",
  };
}

function lowerFirst(about: string): string {
  return about.charAt(0).toLowerCase() + about.slice(1).replace(/\.$/, "");
}

function meantKey(key: string, known: readonly string[]): string | undefined {
  const ours = Object.hasOwn(ourWords, key) ? ourWords[key] : undefined;
  return ours !== undefined && known.includes(ours) ? ours : nearest(key, known);
}

function unknownKey(key: string, what: string, known: readonly string[]) {
  const meant = meantKey(key, known);
  return {
    code: "unknown-key",
    message: `${JSON.stringify(shorten(key))} is no key of ${what}`,
    hint:
      meant === undefined
        ? `it has: ${known.join(", ")}`
        : `did you mean ${JSON.stringify(meant)}?`,
  };
}
