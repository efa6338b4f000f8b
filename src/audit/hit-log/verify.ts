import { createHash, hash } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { crc32 } from "node:zlib";
import type { ChainHead } from "../../model/chain-head.ts";
import { genesis } from "./batch.ts";
import { type Line, readLines } from "./read-lines.ts";
import { type ListedChain, type Pruned, parsePruned, readList, segmentNames } from "./retention.ts";
import {
  type ChainKind,
  firstOf,
  isChainName,
  listName,
  reserveName,
  type SegmentHeader,
  segmentName,
  type Writer,
} from "./segment.ts";

export type LogProblem = {
  /**
   * `changed`: a line is not as it was written. `removed`, `inserted`, `reordered`: what the sequences say. `cut`: lines at the
   * beginning or the end of a chain are gone. `missing`: a whole chain is. `recomputed`: whole in itself, but not what was
   * anchored. `unreadable`: the file cannot be read, or is none of ours.
   */
  readonly kind:
    | "changed"
    | "removed"
    | "inserted"
    | "reordered"
    | "cut"
    | "missing"
    | "recomputed"
    | "unreadable";
  readonly chain: string;
  readonly file?: string;
  /** 1-based. */
  readonly line?: number;
  readonly says: string;
};

type ChainReport = {
  readonly chain: string;
  readonly dir: string;
  readonly ok: boolean;
  readonly kind?: ChainKind;
  readonly writer?: Writer;
  readonly lines: number;
  readonly bytes: number;
  /** Sequences of the first and last line that are there; 0: none. */
  readonly first: number;
  readonly last: number;
  /** Head after the last chained line. */
  readonly head: string;
  /** Hits that the writer itself said it could not write. */
  readonly lost: number;
  /** Lines at the end of a segment that no head covers: a power failure or a full disk tore a write. */
  readonly torn: number;
  /** The beginning was deleted by retention. */
  readonly pruned: boolean;
  /** Anchors that agreed. */
  readonly anchored: number;
};

export type LogReport = {
  readonly ok: boolean;
  readonly chains: readonly ChainReport[];
  readonly problems: readonly LogProblem[];
};

const problemsPerChainMax = 100;
const scratchBytes = 256 * 1024;

/**
 * Reads every chain in the directories and says whether each is what was written. Without anchors a cut tail, a deleted list of
 * chains and a chain that was computed anew cannot be told from the truth; with the heads that were kept elsewhere they can.
 * Constant memory; gives way to other work between megabytes. Never throws for what is in the files.
 */
export async function verifyLog(
  dirs: readonly string[],
  anchors: readonly ChainHead[] = [],
): Promise<LogReport> {
  const walks: ChainWalk[] = [];
  const problems: LogProblem[] = [];
  for (const dir of dirs) {
    const before = readList(dir);
    const here: ChainWalk[] = [];
    for (const chain of chainsIn(dir, before.chains)) {
      const walk = new ChainWalk(
        dir,
        chain,
        anchors.filter((anchor) => anchor.chain === chain),
      );
      here.push(walk);
      if (existsSync(join(dir, chain))) await walk.run();
      else walk.isGone = true;
    }
    // Once more: writers and retention went on meanwhile.
    const { chains, removed } = readList(dir);
    const listed = new Map([...before.chains, ...chains].map((entry) => [entry.chain, entry]));
    for (const walk of here) {
      const { chain } = walk;
      walk.listed = listed.get(chain);
      walk.isTaken = removed.has(chain);
      walk.isTakenMeanwhile = walk.isTaken && !before.removed.has(chain);
    }
    walks.push(...here);
  }
  const pruned = new Map<string, Pruned>();
  for (const walk of walks)
    for (const record of walk.prunings)
      if (record.through >= (pruned.get(record.chain)?.through ?? 0))
        pruned.set(record.chain, record);
  // What says that a chain was pruned is pruned itself one day, and there is a line that says so of it.
  const workers = new Set(walks.filter(({ isWorker }) => isWorker).map(({ chain }) => chain));
  const withoutWitnesses = new Set(
    walks
      .filter(({ prunings }) => prunings.some(({ chain }) => !workers.has(chain)))
      .map(({ dir }) => dir),
  );
  for (const walk of walks) {
    walk.finish(pruned.get(walk.chain), withoutWitnesses.has(walk.dir));
    problems.push(...walk.problems);
  }
  const known = new Set(walks.map(({ chain }) => chain));
  for (const chain of new Set(anchors.map((anchor) => anchor.chain)))
    if (!known.has(chain) && !pruned.has(chain))
      problems.push({ kind: "missing", chain, says: "was anchored, and is not here" });
  return { ok: problems.length === 0, chains: walks.map((walk) => walk.report()), problems };
}

/** The listed chains, then those that are there without being listed. */
function chainsIn(dir: string, listed: readonly ListedChain[]): readonly string[] {
  const found = existsSync(dir) ? readdirSync(dir).filter(isChainName).sort() : [];
  return [...new Set([...listed.map(({ chain }) => chain), ...found])];
}

class ChainWalk {
  readonly dir: string;
  readonly chain: string;
  readonly problems: LogProblem[] = [];
  readonly prunings: Pruned[] = [];
  /** Its directory is not there. */
  isGone = false;
  /** What the list of chains says of it. */
  listed: ListedChain | undefined;
  /** The list says that retention took it whole. The list is no chain: alone this proves nothing. */
  isTaken = false;
  /** It did so while this walk went on: the line that proves it may stand where the walk had passed. */
  isTakenMeanwhile = false;
  readonly #prefix: Buffer;
  readonly #anchors: Map<number, string>;
  readonly #anchoredLast: number;
  readonly #scratch = Buffer.allocUnsafe(scratchBytes);
  #file = "";
  #header: SegmentHeader | undefined;
  /** What the first segment says it continues. */
  #start: SegmentHeader | undefined;
  #head = genesis;
  /** What the last batch hashed to, where it said something else. */
  #otherHead: string | undefined;
  #sequence = 0;
  #chained = 0;
  #first = 0;
  #lines = 0;
  #bytes = 0;
  #batches = 0;
  #lost = 0;
  #torn = 0;
  #anchored = 0;
  #isPruned = false;
  /** The batch being read: its bytes so far, how many lines, whether a line of it was found wrong. */
  #held = 64;
  #rolling: ReturnType<typeof createHash> | undefined;
  #batchLines = 0;
  #isBatchExplained = false;
  /** A line whose check failed and whose sequence says nothing yet. */
  #suspect: number | undefined;
  /** Sequences that were jumped over, and where that was said. */
  #jumped: { from: number; to: number; at: number; problem: number } | undefined;

  constructor(dir: string, chain: string, anchors: readonly ChainHead[]) {
    this.dir = dir;
    this.chain = chain;
    this.#prefix = Buffer.from(`{"id":"${chain}-`);
    this.#anchors = new Map(anchors.map(({ head, sequence }) => [sequence, head]));
    this.#anchoredLast = Math.max(0, ...anchors.map(({ sequence }) => sequence));
  }

  async run(): Promise<void> {
    const folder = join(this.dir, this.chain);
    for (const name of segmentNames(folder)) await this.#readSegment(join(folder, name), name);
    const reserve = join(folder, reserveName);
    if (!existsSync(reserve)) return;
    const header = firstHeader(reserve);
    // Drained, and not yet emptied when the process ended: the lines stand in the segment.
    if (header && existsSync(join(folder, segmentName(header.segment)))) return;
    if (header) await this.#readSegment(reserve, reserveName);
  }

  get isWorker(): boolean {
    return (this.listed ?? this.#header)?.writer.process === "worker";
  }

  /**
   * Judges the beginning and the end, when everything that was pruned is known. `areWitnessesGone`: lines that said what was
   * pruned may have been pruned.
   */
  finish(pruned: Pruned | undefined, areWitnessesGone: boolean): void {
    this.#file = "";
    if (this.#isMissed(pruned, areWitnessesGone)) {
      const what = this.isGone ? "its directory is gone" : "not one of its lines is there";
      this.#report("missing", `is in the list of chains, and ${what}`);
      return;
    }
    if (this.listed === undefined && this.#batches > 1) {
      this.#file = listName;
      this.#report(
        "missing",
        `the chain is here (${this.chain}), and its line in the list of chains is gone`,
      );
      this.#file = "";
    }
    const start = this.#start;
    if (start !== undefined && start.after !== genesis) {
      this.#isPruned = pruned?.head === start.after;
      if (!this.#isPruned)
        this.#report(
          "cut",
          `lines before ${start.segment} are gone, and no line says that they were pruned`,
        );
    } else if (start !== undefined && pruned !== undefined) this.#isPruned = true;
    const end = Math.max(this.#chained, pruned?.through ?? 0);
    if (this.#anchoredLast > end)
      this.#report("cut", `ends at ${end}, but line ${this.#anchoredLast} was anchored elsewhere`);
  }

  /** A chain is listed once it has a line. Only a reserve is listed before. */
  #isMissed(pruned: Pruned | undefined, areWitnessesGone: boolean): boolean {
    if (this.#lines > 0 || this.problems.length > 0 || pruned?.isEnd) return false;
    if (this.isTakenMeanwhile || (this.isTaken && areWitnessesGone)) return false;
    return this.isGone || (this.listed !== undefined && this.listed.kind !== "reserve");
  }

  report(): ChainReport {
    return {
      chain: this.chain,
      dir: this.dir,
      ok: this.problems.length === 0,
      ...(this.#header ? { kind: this.#header.kind, writer: this.#header.writer } : {}),
      lines: this.#lines,
      bytes: this.#bytes,
      first: this.#first,
      last: this.#chained,
      head: this.#head,
      lost: this.#lost,
      torn: this.#torn,
      pruned: this.#isPruned,
      anchored: this.#anchored,
    };
  }

  async #readSegment(path: string, name: string): Promise<void> {
    this.#file = join(this.chain, name);
    this.#newBatch();
    let bytes = 0;
    try {
      for (const line of readLines(path, name === reserveName)) {
        bytes += line.end - line.start + 1;
        if (line.number === 1) this.#readHeader(line, name);
        else this.#readLine(line);
        if (bytes > 4 << 20) {
          this.#bytes += bytes;
          bytes = 0;
          await setImmediate();
        }
      }
    } catch (cause) {
      this.#report("unreadable", cause instanceof Error ? cause.message : String(cause));
    }
    this.#bytes += bytes;
    this.#settleSuspect(undefined);
    if (this.#batchLines > 0 && !this.#isBatchExplained) this.#torn += this.#batchLines;
    this.#sequence = Math.max(this.#sequence, this.#chained);
  }

  #readHeader(line: Line, name: string): void {
    const header = parseHeader(line);
    if (!line.isWhole) {
      this.#torn++;
      return;
    }
    if (header === undefined || header.chain !== this.chain) {
      this.#report("changed", "the segment's first line is not as it was written", line.number);
      this.#isBatchExplained = true;
      return;
    }
    if (name !== reserveName && header.segment !== firstOf(name))
      this.#report("changed", `the segment was renamed: it begins at ${header.segment}`, 1);
    this.#header = header;
    if (this.#start === undefined) {
      this.#start = header;
      this.#sequence = header.segment - 1;
      this.#chained = this.#sequence;
    } else if (header.after !== this.#head && header.after !== this.#otherHead) {
      const says =
        header.segment > this.#sequence + 1
          ? `lines ${this.#sequence + 1} to ${header.segment - 1} are gone`
          : "the segment does not continue the one before it";
      this.#report(header.segment > this.#sequence + 1 ? "removed" : "changed", says, 1);
      this.#sequence = header.segment - 1;
    }
    this.#head = header.after;
    this.#otherHead = undefined;
    this.#newBatch();
    this.#hold(line, line.end);
  }

  #readLine(line: Line): void {
    const { buffer, end, isWhole, number, start } = line;
    if (!isWhole) {
      this.#torn++;
      return;
    }
    this.#lines++;
    this.#batchLines++;
    const sequence = sequenceOf(buffer, start, end, this.#prefix);
    const closing = closingOf(buffer, start, end);
    const isSound =
      sequence !== undefined &&
      closing !== undefined &&
      (closing.head !== undefined || crc32(buffer.subarray(start, closing.at)) === closing.check);
    if (!isSound) this.#takeUnsound(line, sequence);
    else this.#takeSound(line, sequence);
    if (this.#first === 0 && sequence !== undefined) this.#first = sequence;
    if (closing?.head === undefined) this.#hold(line, end);
    else {
      this.#hold({ ...line, end: closing.at }, closing.at, false);
      this.#closeBatch(closing.head, number);
    }
  }

  #takeUnsound(line: Line, sequence: number | undefined): void {
    this.#settleSuspect(undefined);
    this.#isBatchExplained = true;
    if (sequence !== this.#sequence + 1) {
      // Its number cannot be believed: the next line's tells whether this one was changed or put in.
      this.#suspect = line.number;
      return;
    }
    this.#report("changed", `line ${sequence} is not as it was written`, line.number);
    this.#sequence = sequence;
  }

  #takeSound(line: Line, sequence: number): void {
    this.#settleSuspect(sequence);
    const expected = this.#sequence + 1;
    const jumped = this.#jumped;
    if (sequence === expected) this.#sequence = sequence;
    else if (sequence > expected) {
      const gap = text(line).includes('"action":"log_gap"');
      if (!gap) {
        this.#jumped = {
          from: expected,
          to: sequence - 1,
          at: line.number,
          problem: this.problems.length,
        };
        this.#report("removed", `${span(expected, sequence - 1)} missing before this`, line.number);
        this.#isBatchExplained = true;
      }
      this.#sequence = sequence;
    } else if (jumped && sequence >= jumped.from && sequence <= jumped.to) {
      this.problems[jumped.problem] = this.#problem(
        "reordered",
        `line ${sequence} stands after line ${this.#sequence}`,
        jumped.at,
      );
      this.#isBatchExplained = true;
    } else {
      this.#report("inserted", `line ${sequence} stands here a second time`, line.number);
      this.#isBatchExplained = true;
    }
    this.#takeMeaning(line);
  }

  /** What a chain says about itself and others. Only a main thread and control prune. */
  #takeMeaning(line: Line): void {
    const { buffer, end, start } = line;
    const bytes = buffer.subarray(start, end);
    if (!bytes.includes('"action":"log_')) return;
    try {
      const { action, count, detail } = JSON.parse(text(line));
      const pruned = action === "log_pruned" ? parsePruned(detail) : undefined;
      if (pruned) this.prunings.push(pruned);
      if (action === "log_gap") this.#lost += Number(count) || 0;
    } catch {
      this.#report("changed", "the line is no JSON", line.number);
    }
  }

  #settleSuspect(next: number | undefined): void {
    if (this.#suspect === undefined) return;
    const at = this.#suspect;
    this.#suspect = undefined;
    if (next !== undefined && next === this.#sequence + 1)
      this.#report("inserted", "the line was never written by this chain", at);
    else {
      this.#report("changed", "the line is not as it was written", at);
      this.#sequence++;
    }
  }

  #closeBatch(head: string, number: number): void {
    const computed = this.#digest(this.#head);
    const isRight =
      computed === head ||
      (this.#otherHead !== undefined && this.#digest(this.#otherHead) === head);
    if (!isRight && !this.#isBatchExplained) {
      const also = this.#batchLines > 1 ? `, or one of the ${this.#batchLines - 1} before it` : "";
      this.#report("changed", `this line${also} is not as it was written`, number);
    }
    this.#otherHead = isRight ? undefined : computed;
    this.#head = head;
    this.#batches++;
    this.#chained = this.#sequence;
    this.#checkAnchor(number);
    this.#newBatch();
  }

  #checkAnchor(number: number): void {
    const anchor = this.#anchors.get(this.#chained);
    if (anchor === undefined) return;
    this.#anchors.delete(this.#chained);
    if (anchor === this.#head) this.#anchored++;
    else
      this.#report(
        "recomputed",
        `line ${this.#chained} has another head than the one anchored elsewhere: everything up to here was written anew`,
        number,
      );
  }

  #newBatch(): void {
    this.#held = 64;
    this.#rolling = undefined;
    this.#batchLines = 0;
    this.#isBatchExplained = false;
  }

  /** Keeps the line's bytes for the batch's hash; a batch that is too large for that is hashed as it comes. */
  #hold({ buffer, start }: Line, end: number, withBreak = true): void {
    const length = end - start + (withBreak ? 1 : 0);
    if (this.#rolling === undefined && this.#held + length <= scratchBytes) {
      buffer.copy(this.#scratch, this.#held, start, start + length);
      this.#held += length;
      return;
    }
    if (this.#rolling === undefined) {
      this.#rolling = createHash("sha256").update(this.#head, "latin1");
      this.#rolling.update(this.#scratch.subarray(64, this.#held));
    }
    this.#rolling.update(buffer.subarray(start, start + length));
  }

  #digest(before: string): string {
    if (this.#rolling !== undefined) return this.#rolling.copy().digest("hex");
    this.#scratch.write(before, 0, "latin1");
    return hash("sha256", this.#scratch.subarray(0, this.#held), "hex");
  }

  #report(kind: LogProblem["kind"], says: string, line?: number): void {
    if (this.problems.length < problemsPerChainMax)
      this.problems.push(this.#problem(kind, says, line));
  }

  #problem(kind: LogProblem["kind"], says: string, line?: number): LogProblem {
    return {
      kind,
      chain: this.chain,
      ...(this.#file === "" ? {} : { file: this.#file }),
      ...(line === undefined ? {} : { line }),
      says,
    };
  }
}

function span(from: number, to: number): string {
  return from === to ? `line ${from} is` : `lines ${from} to ${to} are`;
}

function text({ buffer, end, start }: Line): string {
  return buffer.toString("latin1", start, end);
}

function sequenceOf(
  buffer: Buffer,
  start: number,
  end: number,
  prefix: Buffer,
): number | undefined {
  let at = start + prefix.length;
  if (at >= end || buffer.compare(prefix, 0, prefix.length, start, at) !== 0) return undefined;
  let sequence = 0;
  for (; at < end; at++) {
    const digit = (buffer[at] ?? 0) - 0x30;
    if (digit < 0 || digit > 9) break;
    sequence = sequence * 10 + digit;
  }
  return buffer[at] === 0x22 && sequence > 0 ? sequence : undefined;
}

type Closing = { readonly at: number; readonly check?: number; readonly head?: string };

/** The check or the head at a line's end, and where it begins. */
function closingOf(buffer: Buffer, start: number, end: number): Closing | undefined {
  if (buffer[end - 1] !== 0x7d) return undefined;
  if (buffer[end - 2] === 0x22) {
    const at = end - 72;
    if (at <= start || !isKey(buffer, at, 0x68)) return undefined;
    return { at, head: buffer.toString("latin1", at + 6, at + 70) };
  }
  let at = end - 2;
  let check = 0;
  for (let scale = 1; at > start; at--, scale *= 10) {
    const digit = (buffer[at] ?? 0) - 0x30;
    if (digit < 0 || digit > 9) break;
    check += digit * scale;
  }
  at -= 4;
  if (at <= start || !isKey(buffer, at, 0x63)) return undefined;
  return { at, check };
}

/** Whether `,"c":` or `,"h":` stands there. */
function isKey(buffer: Buffer, at: number, letter: number): boolean {
  return (
    buffer[at] === 0x2c &&
    buffer[at + 1] === 0x22 &&
    buffer[at + 2] === letter &&
    buffer[at + 3] === 0x22 &&
    buffer[at + 4] === 0x3a
  );
}

function parseHeader(line: Line): SegmentHeader | undefined {
  const { buffer, end, start } = line;
  const closing = closingOf(buffer, start, end);
  if (closing?.check !== crc32(buffer.subarray(start, closing?.at ?? start))) return undefined;
  try {
    return JSON.parse(text(line)) as SegmentHeader;
  } catch {
    return undefined;
  }
}

function firstHeader(path: string): SegmentHeader | undefined {
  for (const line of readLines(path, true)) return parseHeader(line);
  return undefined;
}
