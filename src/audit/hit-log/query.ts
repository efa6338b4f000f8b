import { closeSync, existsSync, openSync, readdirSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import { setImmediate, setTimeout } from "node:timers/promises";
import type { Hit } from "../../model/hit.ts";
import { type HitFilter, hitsByDefault } from "../../model/hit-filter.ts";
import { readLines } from "./read-lines.ts";
import { segmentNames } from "./retention.ts";
import { firstOf, isChainName, reserveName } from "./segment.ts";

const chunkBytes = 64 * 1024;
/**
 * A line is written when its answer begins, and carries the time when its request did: so a chain is read on for a while
 * beyond `sinceMs`.
 */
const slackMs = 5 * 60_000;

/**
 * The hits of all chains in the directories, the newest first, read backwards from the ends: what the newest ten cost does not
 * depend on the size of the log. Chains are merged by the time in their lines. A hit that is still being written is not in it.
 */
export async function* queryHits(
  dirs: string | readonly string[],
  filter: HitFilter = {},
): AsyncGenerator<Hit> {
  if (filter.id !== undefined) {
    const found = findHit([dirs].flat(), filter.id);
    if (found && matches(found, filter)) yield found;
    return;
  }
  const cursors = chainFolders([dirs].flat()).map((folder) => new BackwardCursor(folder));
  let left = filter.limit ?? hitsByDefault;
  let looked = 0;
  const wanted = needles(filter);
  while (left > 0) {
    let newest: BackwardCursor | undefined;
    for (const cursor of cursors)
      if (cursor.at !== undefined && cursor.at > (newest?.at ?? -1)) newest = cursor;
    if (newest?.at === undefined) return;
    const { at, line } = newest;
    if (filter.sinceMs !== undefined && at < filter.sinceMs - slackMs) return;
    newest.advance();
    if (++looked % 5_000 === 0) await setImmediate();
    if (!wanted.every((needle) => line.includes(needle))) continue;
    const hit = parse(line);
    if (hit === undefined || !matches(hit, filter)) continue;
    left--;
    yield hit;
  }
}

export type FollowSettings = {
  readonly signal?: AbortSignal;
  /** How often the files are looked at. Default 200 ms. */
  readonly everyMs?: number;
};

/**
 * Every hit that is written from the call on, each once, over rotations and new chains. Files are polled: watching a directory
 * is not reliable on every file system, and a missed line would be worse than a late one. Ends when the signal does.
 */
export function followHits(
  dirs: string | readonly string[],
  filter: HitFilter = {},
  { everyMs = 200, signal }: FollowSettings = {},
): AsyncGenerator<Hit> {
  // Where the chains end is taken now, not when the first hit is asked for.
  const ends = new Map(
    chainFolders([dirs].flat()).map((folder) => [folder, ForwardCursor.atEnd(folder)]),
  );
  return follow([dirs].flat(), filter, ends, everyMs, signal);
}

async function* follow(
  dirs: readonly string[],
  filter: HitFilter,
  cursors: Map<string, ForwardCursor>,
  everyMs: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Hit> {
  while (!signal?.aborted) {
    const fresh: Hit[] = [];
    for (const folder of chainFolders(dirs)) {
      let cursor = cursors.get(folder);
      if (!cursor) {
        cursor = ForwardCursor.atStart(folder);
        cursors.set(folder, cursor);
      }
      for (const line of cursor.read()) {
        const hit = parse(line);
        if (hit && matches(hit, filter)) fresh.push(hit);
      }
    }
    yield* fresh.sort((a, b) => a.at - b.at);
    try {
      await setTimeout(everyMs, undefined, signal ? { signal } : {});
    } catch {
      return;
    }
  }
}

/** The hit with this id, found by its chain and sequence without reading anything else. */
function findHit(dirs: readonly string[], id: string): Hit | undefined {
  const parts = /^([a-z2-7]{8,10})-([1-9]\d{0,15})$/.exec(id);
  if (!parts) return undefined;
  const [, chain = "", digits = ""] = parts;
  // Quotes in a value are escaped, so this can stand nowhere but at a line's beginning.
  const needle = Buffer.from(`{"id":"${id}",`);
  for (const dir of dirs) {
    const folder = join(dir, chain);
    const names = segmentNames(folder).filter((name) => (firstOf(name) ?? 0) <= Number(digits));
    for (const name of [...names.reverse().slice(0, 2), reserveName]) {
      const line = lineThatBegins(join(folder, name), needle);
      if (line !== undefined) return parse(line);
    }
  }
  return undefined;
}

function lineThatBegins(path: string, needle: Buffer): string | undefined {
  if (!existsSync(path)) return undefined;
  for (const { buffer, end, isWhole, start } of readLines(path, path.endsWith(reserveName)))
    if (isWhole && buffer.compare(needle, 0, needle.length, start, start + needle.length) === 0)
      return buffer.toString("latin1", start, end);
  return undefined;
}

/** Every chain's directory. */
function chainFolders(dirs: readonly string[]): string[] {
  return dirs.flatMap((dir) =>
    existsSync(dir)
      ? readdirSync(dir, { withFileTypes: true })
          .filter((entry) => entry.isDirectory() && isChainName(entry.name))
          .map(({ name }) => join(dir, name))
      : [],
  );
}

/** One chain from its end to its beginning. Holds no descriptor between reads. */
class BackwardCursor {
  /** Time in the line at the cursor; undefined at the chain's beginning. */
  at: number | undefined;
  line = "";
  readonly #files: string[];
  #file: string | undefined;
  #offset = 0;
  #lines: string[] = [];
  /** The beginning of a line whose end is already among `#lines`' successors. */
  #rest = "";

  constructor(folder: string) {
    const names = segmentNames(folder);
    this.#files = names.map((name) => join(folder, name));
    const reserve = join(folder, reserveName);
    // A drained reserve that was not emptied yet says again what the last segment says.
    if (existsSync(reserve) && !names.some((name) => name === segmentOf(reserve)))
      this.#files.push(reserve);
    this.advance();
  }

  advance(): void {
    for (;;) {
      const line = this.#lines.pop();
      if (line === undefined) {
        if (!this.#readBack()) break;
        continue;
      }
      const at = timeOf(line);
      if (at === undefined) continue;
      this.at = at;
      this.line = line;
      return;
    }
    this.at = undefined;
    this.line = "";
  }

  /** False at the chain's beginning. */
  #readBack(): boolean {
    if (this.#file === undefined || this.#offset === 0) {
      this.#file = this.#files.pop();
      this.#rest = "";
      if (this.#file === undefined) return false;
      if (this.#file.endsWith(reserveName)) {
        this.#lines = wholeLines(this.#file);
        this.#offset = 0;
        return true;
      }
      this.#offset = statSync(this.#file, { throwIfNoEntry: false })?.size ?? 0;
      if (this.#offset === 0) return true;
      const [start, text] = readBefore(this.#file, this.#offset);
      // What follows the last line break is not written to its end.
      this.#take(start, text.slice(0, text.lastIndexOf("\n") + 1));
      return true;
    }
    const [start, text] = readBefore(this.#file, this.#offset);
    this.#take(start, text + this.#rest);
    return true;
  }

  #take(start: number, text: string): void {
    this.#offset = start;
    const lines = text.split("\n");
    this.#rest = start === 0 ? "" : (lines.shift() ?? "");
    this.#lines = lines;
  }
}

/** One chain as it grows. */
class ForwardCursor {
  readonly #folder: string;
  #name: string | undefined;
  #offset = 0;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  static atStart(folder: string): ForwardCursor {
    return new ForwardCursor(folder);
  }

  static atEnd(folder: string): ForwardCursor {
    const cursor = new ForwardCursor(folder);
    const name = segmentNames(folder).at(-1);
    if (name !== undefined) {
      cursor.#name = name;
      cursor.#offset = wholeLength(join(folder, name));
    }
    return cursor;
  }

  /** Whole lines that came since the last call. */
  *read(): Generator<string> {
    const current = this.#name;
    // Named before they are read: a segment that another one follows gets no more lines.
    const names = segmentNames(this.#folder).filter(
      (name) => current === undefined || name >= current,
    );
    for (const name of names) {
      if (name !== this.#name) {
        this.#name = name;
        this.#offset = 0;
      }
      const path = join(this.#folder, name);
      const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
      // Cut back after a write that did not fit.
      if (size < this.#offset) this.#offset = size;
      let rest = "";
      while (this.#offset + rest.length < size) {
        const text = rest + readAt(path, this.#offset + rest.length, chunkBytes);
        if (text.length === rest.length) break;
        const end = text.lastIndexOf("\n") + 1;
        if (end > 0) yield* text.slice(0, end - 1).split("\n");
        this.#offset += end;
        rest = text.slice(end);
      }
    }
  }
}

function wholeLength(path: string): number {
  let end = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  while (end > 0) {
    const [start, text] = readBefore(path, end);
    const at = text.lastIndexOf("\n");
    if (at >= 0) return start + at + 1;
    end = start;
  }
  return 0;
}

function readBefore(path: string, end: number): [start: number, text: string] {
  const start = Math.max(0, end - chunkBytes);
  return [start, readAt(path, start, end - start)];
}

/** Every byte of ours is ASCII: a character is a byte. */
function readAt(path: string, start: number, length: number): string {
  const fd = openSync(path, "r");
  try {
    const bytes = Buffer.allocUnsafe(length);
    return bytes.toString("latin1", 0, readSync(fd, bytes, 0, length, start));
  } finally {
    closeSync(fd);
  }
}

/** Of a reserve. */
function wholeLines(path: string): string[] {
  const lines: string[] = [];
  for (const { buffer, end, isWhole, start } of readLines(path, true))
    if (isWhole) lines.push(buffer.toString("latin1", start, end));
  return lines;
}

function segmentOf(reserve: string): string | undefined {
  const header = wholeLines(reserve)[0];
  const first = /"segment":(\d+)/.exec(header ?? "")?.[1];
  return first === undefined ? undefined : `${first.padStart(12, "0")}.jsonl`;
}

/** The time in a hit's line; undefined for a segment's first line and for what is no line of ours. */
function timeOf(line: string): number | undefined {
  const found = /^\{"id":"[a-z2-7]+-\d+","at":(\d+),/.exec(line);
  return found ? Number(found[1]) : undefined;
}

function parse(line: string): Hit | undefined {
  if (!line.startsWith('{"id":')) return undefined;
  try {
    const { c: _check, h: _head, ...hit } = JSON.parse(line);
    return hit as Hit;
  } catch {
    return undefined;
  }
}

/** What a line must contain, looked for before it is parsed. */
function needles(filter: HitFilter): string[] {
  const keys = ["plane", "kind", "decision", "code", "service", "rule"] as const;
  return keys.flatMap((key) => {
    const value = filter[key];
    return value !== undefined && /^[\w.:*/-]+$/.test(value) ? [`"${key}":"${value}"`] : [];
  });
}

function matches(hit: Hit, filter: HitFilter): boolean {
  const { caller, peer, sinceMs, untilMs } = filter;
  return (
    (sinceMs === undefined || hit.at >= sinceMs) &&
    (untilMs === undefined || hit.at < untilMs) &&
    (caller === undefined || hit.caller === caller || hit.caller === `service/${caller}`) &&
    (peer === undefined || hit.peer === peer || hit.peer?.startsWith(`${peer}:`) === true) &&
    (["plane", "kind", "decision", "code", "service", "rule", "path"] as const).every(
      (key) => filter[key] === undefined || hit[key] === filter[key],
    )
  );
}
