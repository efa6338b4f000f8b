import {
  closeSync,
  constants,
  fdatasyncSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  statfsSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import type { ChainHead } from "../../model/chain-head.ts";
import type { NewHit } from "../recorder.ts";
import { Batch } from "./batch.ts";
import { type ChainSettings, listChain, quietly, reasonOf } from "./chain-writer.ts";
import { headerText, reserveName, segmentName } from "./segment.ts";

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_RDWR, O_WRONLY } = constants;
const pageBytes = 4096;

export type ReserveSettings = Omit<ChainSettings, "kind" | "segmentBytes"> & {
  readonly bytes: number;
};

/**
 * Disk blocks set aside for what must be recorded when nothing else can be. The file is written full of zeros at the start and
 * then in place, as a chain of its own, and moved to an ordinary segment when the disk has room again. A file system that
 * copies on write (btrfs, ZFS) can refuse even that; then the answer is the same as without a reserve.
 */
export class Reserve {
  readonly #settings: ReserveSettings;
  readonly #batch: Batch;
  #fd = -1;
  #bytes = 0;
  #used = 0;
  #first = 0;

  constructor(settings: ReserveSettings) {
    this.#settings = settings;
    this.#batch = new Batch(settings.chain);
  }

  get chain(): string {
    return this.#settings.chain;
  }

  get isReady(): boolean {
    return this.#fd >= 0;
  }

  /** Sets the blocks aside: at most an eighth of what is free, so that a small disk keeps room for the log itself. */
  prepare(): void {
    const { bytes, chain, clock, dir, log, writer } = this.#settings;
    if (this.isReady || bytes === 0) return;
    const folder = join(dir, chain);
    const file = join(folder, reserveName);
    try {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      const { bavail, bsize } = statfsSync(folder);
      const size = Math.min(bytes, Math.floor((bavail * bsize) / 8 / pageBytes) * pageBytes);
      if (size < pageBytes) throw new Error("the disk is too small or too full");
      this.#fd = openSync(file, O_CREAT | O_EXCL | O_NOFOLLOW | O_RDWR, 0o600);
      this.#put(Buffer.alloc(size), 0);
      this.#bytes = size;
      fdatasyncSync(this.#fd);
      listChain(dir, { chain, at: clock(), kind: "reserve", writer });
    } catch (cause) {
      if (this.#fd >= 0) {
        quietly(() => closeSync(this.#fd));
        quietly(() => unlinkSync(file));
        this.#fd = -1;
      }
      log.warn({ error: reasonOf(cause) }, "no reserve could be set aside for the hit log");
    }
  }

  /** Records one hit and syncs it. Undefined when there is no reserve or it is full. */
  write(hit: NewHit): string | undefined {
    if (!this.isReady) return undefined;
    const { chain, clock, log, writer } = this.#settings;
    try {
      const sequence = this.#batch.add(hit);
      if (this.#used === 0) {
        this.#first = sequence;
        this.#batch.lead(
          headerText({
            chain,
            segment: sequence,
            after: this.#batch.head,
            at: clock(),
            kind: "reserve",
            writer,
            format: 1,
          }),
        );
      }
      const bytes = this.#batch.seal();
      // One byte stays zero behind the last line: it is how a reader sees the end.
      if (this.#used + bytes.length >= this.#bytes) throw new Error("the reserve is full");
      this.#put(bytes, this.#used);
      fdatasyncSync(this.#fd);
      this.#used += bytes.length;
      this.#batch.commit();
      return `${chain}-${sequence}`;
    } catch (cause) {
      this.#batch.drop();
      this.#batch.sequence = this.#batch.committed;
      quietly(() => this.#put(Buffer.alloc(64), this.#used));
      log.error({ error: reasonOf(cause) }, "the hit log's reserve cannot be written");
      return undefined;
    }
  }

  /** Moves what is in the reserve to a segment of its chain and empties it. Tried again later when it fails. */
  drain(): void {
    if (!this.isReady || this.#used === 0) return;
    const { chain, dir, log } = this.#settings;
    const folder = join(dir, chain);
    const draft = join(folder, "draining");
    try {
      quietly(() => unlinkSync(draft));
      const bytes = Buffer.alloc(this.#used);
      if (readSync(this.#fd, bytes, 0, bytes.length, 0) !== bytes.length)
        throw new Error("the reserve cannot be read back");
      const fd = openSync(draft, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY, 0o600);
      try {
        if (writeSync(fd, bytes, 0, bytes.length) !== bytes.length)
          throw new Error("the disk has no room yet");
        fdatasyncSync(fd);
      } finally {
        closeSync(fd);
      }
      renameSync(draft, join(folder, segmentName(this.#first)));
      // Until this is done the lines stand twice, and readers go by the segment.
      this.#put(Buffer.alloc(this.#used), 0);
      fdatasyncSync(this.#fd);
      this.#used = 0;
    } catch (cause) {
      quietly(() => unlinkSync(draft));
      log.warn({ error: reasonOf(cause) }, "the hit log's reserve could not be emptied");
    }
  }

  head(): ChainHead | undefined {
    if (this.#batch.committed === 0) return undefined;
    return {
      chain: this.#settings.chain,
      sequence: this.#batch.committed,
      head: this.#batch.head,
    };
  }

  close(): void {
    if (!this.isReady) return;
    this.drain();
    const { chain, dir } = this.#settings;
    quietly(() => closeSync(this.#fd));
    this.#fd = -1;
    if (this.#used === 0) quietly(() => unlinkSync(join(dir, chain, reserveName)));
  }

  #put(bytes: Buffer, position: number): void {
    let written = 0;
    while (written < bytes.length) {
      const count = writeSync(this.#fd, bytes, written, bytes.length - written, position + written);
      if (count === 0) throw new Error("nothing more fits");
      written += count;
    }
  }
}
