/** Who writes a chain. */
export type Writer = {
  readonly process: "gate" | "control" | "worker";
  /** The gate's name, or `control`. The same for a gate's main thread and its workers. */
  readonly name: string;
  /** New with every start of the process, the same for its workers: chains of an earlier boot are known to be over. */
  readonly boot: string;
  readonly worker?: number;
};

/** The list of chains of a directory: one line for each chain that was ever begun there. */
export const listName = "chains.jsonl";

/** A chain's preallocated file. */
export const reserveName = "reserve";

/** What a chain is for: `known` callers and the process itself, `strangers`, or the `reserve`. */
export type ChainKind = "known" | "strangers" | "reserve";

/** The first line of every segment: whose it is and what it continues. */
export type SegmentHeader = {
  readonly chain: string;
  /** Sequence of the first hit in the segment. */
  readonly segment: number;
  /** Head of the chain before this segment. */
  readonly after: string;
  readonly at: number;
  readonly kind: ChainKind;
  readonly writer: Writer;
  readonly format: 1;
};

/** The header's JSON without its closing brace: the check comes last. */
export function headerText(header: SegmentHeader): string {
  return ascii(JSON.stringify(header)).slice(0, -1);
}

/** A line of the list of chains. Begins with a line break: an earlier line that was cut short cannot swallow it. */
export function listLine(entry: Pick<SegmentHeader, "chain" | "at" | "kind" | "writer">): string {
  return `\n${ascii(JSON.stringify(entry))}\n`;
}

/** `000000000001.jsonl`: sorts by name as by sequence. */
export function segmentName(firstSequence: number): string {
  return `${String(firstSequence).padStart(12, "0")}.jsonl`;
}

/** The first sequence in a segment's name, or undefined when it is no segment. */
export function firstOf(name: string): number | undefined {
  return /^\d{12,16}\.jsonl$/.test(name) ? Number(name.slice(0, -6)) : undefined;
}

/** Whether a directory's name can be a chain's. */
export function isChainName(name: string): boolean {
  return /^[a-z2-7]{8,10}$/.test(name);
}

/** JSON with every character outside printable ASCII escaped. */
export function ascii(json: string): string {
  return json.replace(
    /[^\x20-\x7e]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
