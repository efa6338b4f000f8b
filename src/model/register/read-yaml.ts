import {
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  type ParsedNode,
  parseAllDocuments,
  type YAMLError,
} from "yaml";
import type { Problem } from "../../base/problem.ts";

/** A file as it was read. Names are what problems print. */
export type SourceFile = { readonly name: string; readonly text: string };

/** 1-based. */
export type Place = { readonly file: string; readonly line: number; readonly column: number };

type At = {
  /** Where the value begins; of a missing value, where its key is. */
  readonly place: Place;
  /** Where a person looks for it: the key of a block that begins a line below, else the value. */
  readonly head: Place;
  /** `services.orders.allow[0]`. */
  readonly path: string;
};

/** YAML reduced to what a register is made of. `broken`: already reported, so that nobody complains twice. */
export type Tree = At &
  (
    | { readonly kind: "map"; readonly entries: readonly Entry[] }
    | { readonly kind: "list"; readonly items: readonly Tree[] }
    | {
        readonly kind: "scalar";
        readonly value: string | number | boolean;
        readonly source: string;
      }
    | { readonly kind: "nothing" }
    | { readonly kind: "broken" }
  );

export type Entry = { readonly key: string; readonly keyPlace: Place; readonly value: Tree };

/** UTF-8 bytes of one file. */
export const fileBytesMax = 1024 * 1024;
/** Nodes after aliases are expanded; a register of 500 services has about 30,000. */
const nodesMax = 200_000;
const depthMax = 32;
const syntaxProblemsMax = 20;

/**
 * Reads one YAML 1.2 document with its places. Never throws: whatever is wrong is in `problems`, all of it. Refused, because two
 * readers may take them differently: duplicate keys, merge keys, tags, several documents, keys that are no strings.
 */
export function readYaml(file: SourceFile): { tree?: Tree; problems: Problem[] } {
  const problems: Problem[] = [];
  if (Buffer.byteLength(file.text) > fileBytesMax) {
    const message = `the file is larger than ${fileBytesMax} bytes`;
    const hint = "split it: files in sallyport.d/ are merged";
    problems.push({ code: "too-large", severity: "error", message, hint, file: file.name });
    return { problems };
  }
  const lines = new LineCounter();
  let documents: Document.Parsed[];
  try {
    const parsed = parseAllDocuments(file.text, {
      lineCounter: lines,
      prettyErrors: false,
      uniqueKeys: false,
      logLevel: "silent",
      version: "1.2",
      schema: "core",
      merge: false,
    });
    documents = Array.isArray(parsed) ? (parsed as Document.Parsed[]) : [];
  } catch {
    // The library recurses; what exhausts it is no register.
    documents = [];
    const message = "this is not YAML that can be read";
    problems.push({ code: "yaml-syntax", severity: "error", message, file: file.name, line: 1 });
    return { problems };
  }
  return new Walk(file, lines, problems).run(documents);
}

class Walk {
  readonly #file: SourceFile;
  readonly #lines: LineCounter;
  readonly #problems: Problem[];
  readonly #broken = new Set<number>();
  readonly #anchors = new Map<string, ParsedNode>();
  #nodes = 0;

  constructor(file: SourceFile, lines: LineCounter, problems: Problem[]) {
    this.#file = file;
    this.#lines = lines;
    this.#problems = problems;
  }

  run(documents: readonly Document.Parsed[]): { tree?: Tree; problems: Problem[] } {
    const problems = this.#problems;
    const [document, second] = documents;
    const errors = documents.flatMap((each) => [...each.errors, ...each.warnings]);
    const seen = new Set<number>();
    for (const error of errors) {
      const place = this.#placeOf(error.pos[0]);
      // One mistake often upsets the library several times; the first word about a line is the useful one.
      if (seen.has(place.line) || seen.size >= syntaxProblemsMax) continue;
      seen.add(place.line);
      this.#broken.add(error.pos[0]);
      problems.push({ severity: "error", ...translate(error, this.#file.text), ...place });
    }
    if (second) {
      const message = "the file holds more than one YAML document";
      const hint = "remove the line ---, or put the second document into a file in sallyport.d/";
      const place = this.#placeOf(second.range?.[0] ?? 0);
      problems.push({ code: "yaml-documents", severity: "error", message, hint, ...place });
    }
    if (!document || errors.some((error) => !localErrors.has(error.code))) {
      if (!document) {
        const hint = 'run "sallyport init" to write a first register';
        const place = { file: this.#file.name, line: 1, column: 1 };
        problems.push({
          code: "empty",
          severity: "error",
          message: "the file is empty",
          hint,
          ...place,
        });
      }
      return { problems };
    }
    const start = this.#placeOf(0);
    const tree = this.#node(document.contents, "", start, 0);
    return { tree, problems };
  }

  #placeOf(offset: number): Place {
    const { line, col } = this.#lines.linePos(Math.min(offset, this.#file.text.length));
    // The library counts a byte order mark as a column; editors do not.
    const mark = line === 1 && this.#file.text.startsWith("\uFEFF") && col > 1 ? 1 : 0;
    return { file: this.#file.name, line: Math.max(1, line), column: Math.max(1, col - mark) };
  }

  /** Whether the library complained about the value, or about the tag or anchor before it. */
  #isReported(offset: number): boolean {
    if (this.#broken.has(offset)) return true;
    return [...this.#broken].some(
      (at) =>
        at < offset && /^[!&]\S*\s+$/.test(this.#file.text.slice(at, Math.min(offset, at + 200))),
    );
  }

  #report(code: string, place: Place, message: string, hint?: string): void {
    this.#problems.push({
      code,
      severity: "error",
      message,
      ...(hint === undefined ? {} : { hint }),
      ...place,
    });
  }

  #node(node: Node | null | undefined, path: string, keyPlace: Place, depth: number): Tree {
    const offset = node?.range?.[0];
    // Nothing was written: an editor should jump to the key.
    const empty =
      !node || (isScalar(node) && node.value === null && (node.source ?? "") === "" && !node.type);
    const place = offset === undefined || empty ? keyPlace : this.#placeOf(offset);
    const isBlock = (isMap(node) || isSeq(node)) && node.flow !== true;
    const at = { place, head: isBlock ? keyPlace : place, path };
    if (!node) return { ...at, kind: "nothing" };
    if (++this.#nodes > nodesMax) {
      if (this.#nodes === nodesMax + 1)
        this.#report("too-large", place, `more than ${nodesMax} values, aliases counted each time`);
      return { ...at, kind: "broken" };
    }
    if (depth > depthMax) {
      this.#report("too-deep", place, `nested more than ${depthMax} levels deep`);
      return { ...at, kind: "broken" };
    }
    if (isAlias(node)) {
      const target = this.#anchors.get(node.source);
      if (target) return { ...this.#node(target, path, place, depth + 1), place, head: place };
      if (!this.#broken.has(offset ?? -1))
        this.#report(
          "yaml-alias",
          place,
          `nothing above is anchored as ${JSON.stringify(`&${node.source}`)}`,
          `if a plain text was meant, quote it: "*${node.source}"`,
        );
      return { ...at, kind: "broken" };
    }
    if (node.tag !== undefined && this.#file.text[offset ?? 0] !== undefined && hasTag(node)) {
      if (!this.#isReported(offset ?? -1))
        this.#report(
          "yaml-tag",
          place,
          `tags such as ${node.tag} are not used in a register`,
          "remove it",
        );
      return { ...at, kind: "broken" };
    }
    const tree = this.#content(node, at, depth);
    // Only now: a node that mentions itself finds no anchor, so nothing can be endless.
    if ("anchor" in node && node.anchor) this.#anchors.set(node.anchor, node as ParsedNode);
    return tree;
  }

  #content(node: Node, at: At, depth: number): Tree {
    if (isSeq(node))
      return {
        ...at,
        kind: "list",
        items: node.items.map((item, i) =>
          this.#node(item as Node | null, `${at.path}[${i}]`, at.place, depth + 1),
        ),
      };
    if (isMap(node)) return { ...at, kind: "map", entries: this.#entries(node.items, at, depth) };
    if (!isScalar(node)) return { ...at, kind: "broken" };
    if (this.#broken.has(node.range?.[0] ?? -1)) return { ...at, kind: "broken" };
    const { value } = node;
    if (value === null || value === undefined) return { ...at, kind: "nothing" };
    if (typeof value === "string" || typeof value === "number" || typeof value === "boolean")
      return { ...at, kind: "scalar", value, source: node.source ?? String(value) };
    return { ...at, kind: "scalar", value: String(value), source: node.source ?? String(value) };
  }

  #entries(
    pairs: readonly { key: unknown; value: unknown }[],
    at: At,
    depth: number,
  ): readonly Entry[] {
    const entries = new Map<string, Entry>();
    for (const pair of pairs) {
      const keyNode = pair.key as Node | null;
      const keyPlace = keyNode?.range ? this.#placeOf(keyNode.range[0]) : at.place;
      if (!isScalar(keyNode) || typeof keyNode.value !== "string") {
        const written = isScalar(keyNode) ? (keyNode.source ?? "") : "";
        this.#report(
          "yaml-key",
          keyPlace,
          written ? `the key ${written} is no text` : "a key has to be a plain text",
          written ? `quote it: "${written}"` : undefined,
        );
        continue;
      }
      const key = keyNode.value;
      if (key === "<<") {
        this.#report(
          "yaml-merge",
          keyPlace,
          'merge keys ("<<") are not YAML 1.2',
          "write the values out",
        );
        continue;
      }
      const first = entries.get(key);
      if (first) {
        this.#report(
          "duplicate-key",
          keyPlace,
          `${JSON.stringify(key)} is given twice, first in line ${first.keyPlace.line}`,
          "keep one of them",
        );
        continue;
      }
      const path = at.path === "" ? key : `${at.path}.${key}`;
      const value = this.#node(pair.value as Node | null, path, keyPlace, depth + 1);
      entries.set(key, { key, keyPlace, value });
    }
    return [...entries.values()];
  }
}

/** The library gives a tag to a node of its own accord only when one was written. */
function hasTag(node: Node): boolean {
  const written = (node as { tag?: string }).tag;
  return typeof written === "string" && written !== "";
}

/** Errors after which the rest of the tree still says what its author meant. */
const localErrors: ReadonlySet<string> = new Set([
  "BAD_ALIAS",
  "BAD_DQ_ESCAPE",
  "BAD_SCALAR_START",
  "MULTIPLE_ANCHORS",
  "MULTIPLE_TAGS",
  "TAG_RESOLVE_FAILED",
]);

/** YAML's own errors in the words of somebody who wants to go on. */
function translate(
  error: YAMLError,
  text: string,
): { code: string; message: string; hint?: string } {
  const code = "yaml-syntax";
  const here = text.slice(error.pos[0], error.pos[0] + 1);
  const opener = / a ([\]}])$/.exec(error.message)?.[1];
  switch (error.code) {
    case "BAD_ALIAS":
      return { code, message: "an unquoted * means an alias in YAML", hint: 'quote it: "*"' };
    case "ALIAS_PROPS":
      return {
        code,
        message: "an alias can have neither anchor nor tag",
        hint: "write the value out",
      };
    case "TAB_AS_INDENT":
      return { code, message: "a tab cannot indent", hint: "use two spaces for each level" };
    case "BAD_SCALAR_START":
      return {
        code,
        message: `a plain text cannot start with ${here}`,
        hint: "put the whole text in double quotes",
      };
    case "BAD_DQ_ESCAPE":
      return {
        code,
        message: "an escape in double quotes that YAML does not know",
        hint: "write \\\\ for one backslash, or use single quotes",
      };
    case "BLOCK_AS_IMPLICIT_KEY":
      return {
        code,
        message: "a second key in one line",
        hint: 'put it on its own line, or write { a: 1, b: 2 }; quote a text that contains ": "',
      };
    case "BLOCK_IN_FLOW":
      return {
        code,
        message: "an indented block cannot stand inside [ ] or { }",
        hint: "write the inner part with [ ] or { } too",
      };
    case "MULTILINE_IMPLICIT_KEY":
      return {
        code,
        message: "a key without its colon, or a text that runs on into the next line",
        hint: 'write "key: value", and indent keys of one map alike',
      };
    case "MISSING_CHAR":
      if (/quote/.test(error.message))
        return {
          code,
          message: "a quoted text without its closing quote",
          hint: "the file ended inside it: look for the quote that opens it",
        };
      if (/flow/.test(error.message))
        return {
          code,
          message: "inside [ ] or { } the items are separated by commas",
          hint: `put a comma here, or quote the text: a plain text inside [ ] or { } ends at ${here || "{"}`,
        };
      return {
        code,
        message: 'a line that is no "key: value"',
        hint: "a colon and a space follow a key",
      };
    case "BAD_INDENT":
      if (opener)
        return {
          code,
          message: `a ${opener === "]" ? "[" : "{"} is not closed before here`,
          hint: `close it with ${opener}; a text that contains brackets has to be quoted`,
        };
      return {
        code,
        message: "the indentation fits nothing above",
        hint: "keys of one map begin in the same column",
      };
    case "BAD_COLLECTION_TYPE":
    case "UNEXPECTED_TOKEN":
      return {
        code,
        message: "something stands here that cannot follow what is before it",
        hint: "look for a missing quote, a list item beside a key, or a wrong indentation",
      };
    case "BAD_DIRECTIVE":
      return { code, message: "a line that starts with % is a YAML directive", hint: "remove it" };
    case "TAG_RESOLVE_FAILED":
    case "MULTIPLE_TAGS":
      return {
        code,
        message: "tags (a word after !) are not used in a register",
        hint: "remove it, or quote the text",
      };
    case "RESOURCE_EXHAUSTION":
      return { code: "too-deep", message: `nested more than ${depthMax} levels deep` };
    case "MULTIPLE_ANCHORS":
    case "BAD_PROP_ORDER":
    case "KEY_OVER_1024_CHARS":
    case "NON_STRING_KEY":
    case "DUPLICATE_KEY":
    case "MULTIPLE_DOCS":
    case "IMPOSSIBLE":
      return { code, message: error.message.split("\n")[0] ?? "this is not YAML" };
  }
  // A code that a later version of the library brings.
  return { code, message: "this is not YAML" };
}
