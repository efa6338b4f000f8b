import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmdirSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { NewHit } from "../recorder.ts";
import { quietly, reasonOf } from "./chain-writer.ts";
import { lastChained } from "./last-chained.ts";
import {
  type ChainKind,
  firstOf,
  isChainName,
  listName,
  reserveName,
  type Writer,
} from "./segment.ts";

const everyMs = 10_000;
/** A list of chains beyond this is rewritten at start, without the chains that retention took. */
const listBytesMax = 64 * 1024;
/**
 * What a main thread wrote is kept a little longer than what its workers wrote in the same minute, because it holds the lines
 * that say what was pruned of theirs.
 */
const witnessMs = 3_600_000;

export type RetentionSettings = {
  readonly dir: string;
  readonly writer: Writer;
  readonly clock: Clock;
  readonly log: Log;
  readonly limits: {
    readonly keepBytes: number;
    readonly keepMs: number;
    readonly strangersKeepBytes: number;
  };
};

export type Retention = {
  /** Deletes what is too old or too much, at most every ten seconds. `record` is called before each deletion. */
  tick(own: ReadonlySet<string>, record: (hit: NewHit) => void): void;
};

/** A line of the list of chains. `removed` marks the chains that retention took whole. */
export type ListedChain = {
  readonly chain: string;
  readonly at: number;
  readonly kind: ChainKind;
  readonly writer: Writer;
};

type Segment = {
  readonly chain: string;
  readonly name: string;
  readonly bytes: number;
  /** When its last hit was written, with the head start of a witness. */
  readonly age: number;
  readonly isLast: boolean;
};

/**
 * Keeps the directory within its budgets by deleting whole segments, oldest first. Each deletion is first recorded as a
 * `log_pruned` line, so that `verify` can tell pruning from cutting. The segment that a living writer is at is never taken.
 */
export function openRetention(settings: RetentionSettings): Retention {
  const { clock, log } = settings;
  let next = 0;
  quietly(() => tidy(settings));
  return {
    tick(own, record) {
      const now = clock();
      if (now < next) return;
      next = now + everyMs;
      try {
        prune(settings, own, record, now);
      } catch (cause) {
        log.warn({ error: reasonOf(cause) }, "old hits could not be deleted");
      }
    },
  };
}

function prune(
  { dir, limits, writer }: RetentionSettings,
  own: ReadonlySet<string>,
  record: (hit: NewHit) => void,
  now: number,
): void {
  const listed = readList(dir).chains;
  const over = chainsThatAreOver(listed, writer, own);
  for (const [isStrangers, bytesMax] of [
    [false, limits.keepBytes],
    [true, limits.strangersKeepBytes],
  ] as const) {
    const segments = listed
      .filter((entry) => (entry.kind === "strangers") === isStrangers)
      .flatMap((entry) => segmentsOf(dir, entry))
      .sort((a, b) => a.age - b.age);
    let total = segments.reduce((sum, segment) => sum + segment.bytes, 0);
    for (const segment of segments) {
      if (total <= bytesMax && segment.age >= now - limits.keepMs) break;
      if (segment.isLast && !over.has(segment.chain)) continue;
      if (!remove(dir, segment, writer, record, now)) continue;
      total -= segment.bytes;
    }
  }
}

/** False when the chain must keep it: an older segment is still there, and a hole in the middle would be a cut. */
function remove(
  dir: string,
  { chain, isLast, name }: Segment,
  writer: Writer,
  record: (hit: NewHit) => void,
  now: number,
): boolean {
  const folder = join(dir, chain);
  const names = segmentNames(folder);
  if (names[0] !== name) return false;
  const end = endOf(join(folder, name));
  record({
    at: now,
    plane: writer.process === "control" ? "control" : "data",
    kind: "process",
    decision: "allowed",
    ...(writer.process === "control" ? {} : { gate: writer.name }),
    action: "log_pruned",
    detail: prunedDetail({ chain, through: end.sequence, head: end.head, isEnd: isLast }),
  });
  unlinkSync(join(folder, name));
  if (!isLast) return true;
  quietly(() => unlinkSync(join(folder, reserveName)));
  rmdirSync(folder);
  writeFileSync(join(dir, listName), `\n${JSON.stringify({ removed: chain, at: now })}\n`, {
    flag: "a",
    mode: 0o600,
  });
  return true;
}

export type Pruned = {
  readonly chain: string;
  readonly through: number;
  readonly head: string;
  /** With this, nothing of the chain was left. */
  readonly isEnd: boolean;
};

function prunedDetail({ chain, head, isEnd, through }: Pruned): string {
  return `${chain} through ${through} head ${head}${isEnd ? ", its end" : ""}`;
}

/** What a `log_pruned` line says, or undefined when it says nothing. */
export function parsePruned(detail: string | undefined): Pruned | undefined {
  const parts = /^([a-z2-7]{8,10}) through (\d{1,16}) head ([0-9a-f]{64})(, its end)?$/.exec(
    detail ?? "",
  );
  if (!parts) return undefined;
  const [, chain = "", through = "", head = "", end] = parts;
  return { chain, through: Number(through), head, isEnd: end !== undefined };
}

/** Chains whose writer is gone: another boot of the same name has come, or a worker of the same number has. */
function chainsThatAreOver(
  listed: readonly ListedChain[],
  writer: Writer,
  own: ReadonlySet<string>,
): ReadonlySet<string> {
  const latest = new Map<string, string>();
  const role = ({ kind, writer: { boot, process, worker } }: ListedChain): string =>
    [boot, process, worker, kind].join(" ");
  for (const entry of listed) latest.set(role(entry), entry.chain);
  return new Set(
    listed
      .filter(
        (entry) =>
          !own.has(entry.chain) &&
          entry.writer.name === writer.name &&
          (entry.writer.boot !== writer.boot || latest.get(role(entry)) !== entry.chain),
      )
      .map(({ chain }) => chain),
  );
}

function segmentsOf(dir: string, { chain, writer }: ListedChain): Segment[] {
  const folder = join(dir, chain);
  const names = segmentNames(folder);
  return names.flatMap((name, i) => {
    const stat = statSync(join(folder, name), { throwIfNoEntry: false });
    if (!stat) return [];
    return {
      chain,
      name,
      bytes: stat.size,
      age: stat.mtimeMs + (writer.process === "worker" ? 0 : witnessMs),
      isLast: i === names.length - 1,
    };
  });
}

/** In the order of their sequences; none when the directory is not there. */
export function segmentNames(folder: string): string[] {
  let names: string[] = [];
  quietly(() => {
    names = readdirSync(folder);
  });
  return names.filter((name) => firstOf(name) !== undefined).sort();
}

/** The last chained line of a segment. */
function endOf(path: string): { sequence: number; head: string } {
  const fd = openSync(path, "r");
  try {
    const size = statSync(path).size;
    const bytes = Buffer.alloc(Math.min(size, 1 << 20));
    readSync(fd, bytes, 0, bytes.length, size - bytes.length);
    return (
      lastChained(bytes.toString("latin1"), bytes.length < size) ?? {
        sequence: 0,
        head: "0".repeat(64),
      }
    );
  } finally {
    closeSync(fd);
  }
}

/** The list of chains. Lines that were cut short are skipped. Nothing there: nothing listed. */
export function readList(dir: string): {
  readonly chains: readonly ListedChain[];
  readonly removed: ReadonlySet<string>;
} {
  const file = join(dir, listName);
  const chains: ListedChain[] = [];
  const removed = new Set<string>();
  if (!existsSync(file)) return { chains, removed };
  for (const line of readFileSync(file, "latin1").split("\n")) {
    if (line === "") continue;
    try {
      const entry: unknown = JSON.parse(line);
      if (typeof entry !== "object" || entry === null) continue;
      if ("removed" in entry) removed.add(String(entry.removed));
      else if ("chain" in entry && isChainName(String(entry.chain)))
        chains.push(entry as ListedChain);
    } catch {
      // Cut short by a full disk: the writer said so when it happened.
    }
  }
  return { chains, removed };
}

/** At start: unused reserves of earlier boots go, and a long list loses the chains that retention took. */
function tidy({ dir, writer }: RetentionSettings): void {
  const { chains, removed } = readList(dir);
  for (const entry of chains) {
    if (entry.kind !== "reserve" || entry.writer.name !== writer.name) continue;
    if (entry.writer.boot === writer.boot) continue;
    const file = join(dir, entry.chain, reserveName);
    if (existsSync(file) && isUnused(file)) unlinkSync(file);
  }
  const file = join(dir, listName);
  if (!existsSync(file) || statSync(file).size < listBytesMax) return;
  const kept = chains.filter(({ chain }) => !removed.has(chain));
  const draft = `${file}.new`;
  writeFileSync(draft, kept.map((entry) => `\n${JSON.stringify(entry)}\n`).join(""), {
    mode: 0o600,
  });
  renameSync(draft, file);
}

function isUnused(file: string): boolean {
  const fd = openSync(file, "r");
  try {
    const first = Buffer.alloc(1);
    readSync(fd, first, 0, 1, 0);
    return first[0] === 0;
  } finally {
    closeSync(fd);
  }
}
