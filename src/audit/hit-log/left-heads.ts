import { constants, readdirSync } from "node:fs";
import { type FileHandle, open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import type { Log } from "../../base/log.ts";
import type { ChainHead } from "../../model/chain-head.ts";
import { reasonOf } from "./chain-writer.ts";
import { lastChained } from "./last-chained.ts";
import { readList } from "./retention.ts";
import { firstOf, isChainName, reserveName } from "./segment.ts";

/** At most so many are told at a time: one line of the feed has room for them beside those of the living. */
const toldMax = 256;
const tailBytes = 64 * 1024;
/** More than the largest batch: its head stands at its end. */
const tailBytesMax = 8 * 1024 * 1024;

const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants;

/** Where the chains stand that no writer continues: what their writers wrote last, they could tell nobody. */
export type LeftHeads = {
  /** The next heads to be kept elsewhere, at most 256; the same ones until they are. */
  heads(): readonly ChainHead[];
  /** These are kept elsewhere: others follow. */
  kept(heads: readonly ChainHead[]): void;
  /** A worker of this boot has died, and no successor has begun: its chains are left behind as well. */
  died(worker: number): void;
  /** How many chains were not read yet, or read and not kept yet. */
  count(): number;
  /** Resolves when every chain that is known to be left was read. */
  settled(): Promise<void>;
};

/**
 * Finds the chains that earlier lives left in a hit log's directory. Call before this life's own writer opens it: every chain that
 * is there by then is over. Only names are read at once; the ends of the chains are read in the background, one after the
 * other. What retention deletes meanwhile is passed over. Never throws.
 */
export function findLeftHeads(options: {
  readonly dir: string;
  /** Of this life. */
  readonly boot: string;
  readonly log: Log;
}): LeftHeads {
  const { boot, dir, log } = options;
  const found = new Map<string, ChainHead>();
  const unread: string[] = [];
  let reading: Promise<void> | undefined;

  function take(chains: readonly string[]): void {
    unread.push(...chains);
    reading ??= readAll().finally(() => {
      reading = undefined;
    });
  }

  async function readAll(): Promise<void> {
    for (let chain = unread.pop(); chain !== undefined; chain = unread.pop()) {
      // Whatever else a start has to do comes first.
      await setImmediate();
      try {
        const head = await headOf(dir, chain);
        if (head !== undefined) found.set(chain, head);
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code !== "ENOENT")
          log.warn({ chain, error: reasonOf(cause) }, "the end of an old chain cannot be read");
      }
    }
  }

  try {
    take(readdirSync(dir).filter(isChainName));
  } catch {
    // No directory yet: nothing was left.
  }
  return {
    heads() {
      const next: ChainHead[] = [];
      for (const head of found.values()) {
        if (next.length === toldMax) break;
        next.push(head);
      }
      return next;
    },
    kept(heads) {
      for (const { chain, sequence } of heads)
        if (found.get(chain)?.sequence === sequence) found.delete(chain);
    },
    died(worker) {
      try {
        take(
          readList(dir)
            .chains.filter(({ writer }) => writer.boot === boot && writer.worker === worker)
            .map(({ chain }) => chain),
        );
      } catch (cause) {
        log.warn({ error: reasonOf(cause) }, "the list of chains cannot be read");
      }
    },
    count: () => found.size + unread.length + (reading === undefined ? 0 : 1),
    async settled() {
      while (reading !== undefined) await reading;
    },
  };
}

/** The head of a chain as it lies on the disk; undefined: it has no chained line. */
async function headOf(dir: string, chain: string): Promise<ChainHead | undefined> {
  const folder = join(dir, chain);
  const names = await readdir(folder);
  const segments = names.filter((name) => firstOf(name) !== undefined).sort();
  // What is in a reserve is newer than the segments it was moved to, or the same.
  if (names.includes(reserveName)) segments.push(reserveName);
  for (const name of segments.reverse()) {
    const head = await lastIn(join(folder, name), name === reserveName);
    if (head?.chain === chain) return head;
  }
  return undefined;
}

async function lastIn(path: string, isReserve: boolean): Promise<ChainHead | undefined> {
  // Whatever lies there under a segment's name is not waited for.
  const file = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  try {
    const stat = await file.stat();
    if (!stat.isFile()) return undefined;
    if (isReserve) {
      const text = await read(file, 0, Math.min(stat.size, tailBytesMax));
      const end = text.indexOf("\0");
      return lastChained(end < 0 ? text : text.slice(0, end), false);
    }
    for (let bytes = tailBytes; ; bytes *= 8) {
      const start = Math.max(0, stat.size - Math.min(bytes, tailBytesMax));
      const head = lastChained(await read(file, start, stat.size - start), start > 0);
      if (head !== undefined || start === 0 || bytes >= tailBytesMax) return head;
    }
  } finally {
    await file.close();
  }
}

async function read(file: FileHandle, start: number, length: number): Promise<string> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, start);
  return buffer.toString("latin1", 0, bytesRead);
}
