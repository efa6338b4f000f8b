import {
  appendFileSync,
  close,
  closeSync,
  constants,
  existsSync,
  fdatasync,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  futimesSync,
  mkdirSync,
  open,
  openSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { ChainHead } from "../../model/chain-head.ts";
import type { NewHit } from "../recorder.ts";
import { Batch } from "./batch.ts";
import {
  type ChainKind,
  headerText,
  listLine,
  listName,
  segmentName,
  type Writer,
} from "./segment.ts";

/** More than this in one batch is written early, so that a flood cannot grow the buffer. */
const batchBytesMax = 4 * 1024 * 1024;

const { O_APPEND, O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants;

export type ChainSettings = {
  readonly dir: string;
  readonly chain: string;
  readonly kind: ChainKind;
  readonly writer: Writer;
  readonly segmentBytes: number;
  readonly clock: Clock;
  readonly log: Log;
};

/**
 * Appends to one chain's segments. Nothing here throws: a failure drops the batch, leaves the file as it was before it, and
 * holds until `probe` has written a `log_gap` line that says how many hits are missing.
 */
export class ChainWriter {
  readonly settings: ChainSettings;
  readonly #batch: Batch;
  #fd = -1;
  #size = 0;
  #failing = false;
  /** A line was lost since the last `flush`. */
  #broken = false;
  /** Hits lost since the last line that is on disk. */
  #lost = 0;
  #reason = "";
  #isTold = false;
  #isListed = false;
  #isListSynced = false;
  /** Only at first and in `probe`: a directory that vanishes under us is a failure to be seen, not to be painted over. */
  #mayMakeDirectory = true;
  #isDirty = false;
  #isSyncing = false;
  #closeWhenSynced = false;

  constructor(settings: ChainSettings) {
    this.settings = settings;
    this.#batch = new Batch(settings.chain);
  }

  get failing(): boolean {
    return this.#failing;
  }

  /** Name of the segment being written, undefined when none is open. */
  segment: string | undefined;

  add(hit: NewHit): string {
    if (this.#failing) return this.#lose(hit);
    if (this.#batch.length > batchBytesMax && !this.#write()) return this.#lose(hit);
    return `${this.settings.chain}-${this.#batch.add(hit)}`;
  }

  /** Writes what waits. False when any line since the last flush was lost, or while failing. Fails closed. */
  flush(): boolean {
    this.write();
    const isWhole = !this.#broken && !this.#failing;
    this.#broken = false;
    return isWhole;
  }

  /** Writes what waits without answering for it: the next `flush` does. */
  write(): void {
    if (!this.#failing && !this.#batch.isEmpty) this.#write();
  }

  /** One hit in a write of its own. Undefined when that failed: then it is not counted as lost, for it goes elsewhere. */
  addAlone(hit: NewHit): string | undefined {
    this.write();
    if (this.#failing) return undefined;
    const sequence = this.#batch.add(hit);
    const wasBroken = this.#broken;
    if (this.#write()) return `${this.settings.chain}-${sequence}`;
    this.#lost -= hit.count ?? 1;
    this.#broken = wasBroken;
    return undefined;
  }

  /** An id for a hit that cannot be recorded anywhere, alone: it is counted in the gap. */
  giveUp(hit: NewHit): string {
    const wasBroken = this.#broken;
    const id = this.#lose(hit);
    this.#broken = wasBroken;
    return id;
  }

  /** Tries one line after a failure; true when the chain is writable. */
  probe(): boolean {
    if (!this.#failing) return true;
    const lost = this.#lost;
    const wasBroken = this.#broken;
    const sequence = this.#batch.sequence;
    this.#failing = false;
    this.#mayMakeDirectory = true;
    this.#batch.add(this.#gap(lost));
    if (!this.#write()) {
      // The line that was tried was nobody's: its id was never given out.
      this.#batch.sequence = sequence;
      this.#lost = lost;
      this.#broken = wasBroken;
      return false;
    }
    this.#isTold = false;
    this.settings.log.warn(
      { chain: this.settings.chain, lost, reason: this.#reason },
      "the hit log is writable again",
    );
    return true;
  }

  /** Syncs in the background, and notices a segment that was deleted under us. */
  tick(): void {
    if (this.#fd < 0) return;
    try {
      if (fstatSync(this.#fd).nlink === 0)
        this.#fail(new Error("the segment was deleted while it was being written"), true);
      else {
        this.#sync();
        this.#syncList();
      }
    } catch (cause) {
      this.#fail(cause, true);
    }
  }

  /** The last committed line; undefined before the first. */
  head(): ChainHead | undefined {
    if (this.#batch.committed === 0) return undefined;
    return {
      chain: this.settings.chain,
      sequence: this.#batch.committed,
      head: this.#batch.head,
    };
  }

  close(): void {
    this.flush();
    if (this.#fd < 0) return;
    const fd = this.#fd;
    this.#fd = -1;
    this.segment = undefined;
    try {
      this.#stamp(fd);
      fdatasyncSync(fd);
    } catch (cause) {
      this.settings.log.error({ error: reasonOf(cause) }, "the hit log could not be synced");
    }
    if (this.#isSyncing) this.#closeWhenSynced = true;
    else quietly(() => closeSync(fd));
  }

  #lose(hit: NewHit): string {
    this.#broken = true;
    this.#lost += hit.count ?? 1;
    return `${this.settings.chain}-${++this.#batch.sequence}`;
  }

  #write(): boolean {
    const isRotation =
      this.#size > 0 && this.#size + this.#batch.length > this.settings.segmentBytes;
    try {
      if (isRotation) this.#leaveSegment();
      if (this.#fd < 0) this.#openSegment();
      if (this.#batch.committed > 0) this.#list();
      const bytes = this.#batch.seal();
      const written = writeSync(this.#fd, bytes, 0, bytes.length);
      // At a full disk a write takes what fits and says so in its result alone.
      if (written !== bytes.length) throw new Error(`only ${written} of ${bytes.length} bytes fit`);
      this.#size += written;
    } catch (cause) {
      this.#fail(cause, false);
      return false;
    }
    this.#batch.commit();
    this.#isDirty = true;
    this.#lost = 0;
    if (!this.#isListed) quietly(() => this.#list());
    return true;
  }

  /**
   * Once something is written, so that a chain that is listed and has no line is one whose lines were taken away. Nothing follows
   * the first batch before that: a longer chain that is not listed is one that the list has lost.
   */
  #list(): void {
    if (this.#isListed) return;
    const { chain, clock, dir, kind, writer } = this.settings;
    listChain(dir, { chain, at: clock(), kind, writer });
    this.#isListed = true;
    this.#isListSynced = false;
  }

  #openSegment(): void {
    const { chain, clock, dir, kind, writer } = this.settings;
    const folder = join(dir, chain);
    if (this.#mayMakeDirectory) {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      if (!existsSync(join(dir, listName))) this.#isListed = false;
      this.#mayMakeDirectory = false;
    }
    const first = this.#batch.first;
    const name = segmentName(first);
    this.#fd = openSync(
      join(folder, name),
      O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY,
      0o600,
    );
    this.segment = name;
    this.#size = 0;
    this.#batch.lead(
      headerText({
        chain,
        segment: first,
        after: this.#batch.head,
        at: clock(),
        kind,
        writer,
        format: 1,
      }),
    );
  }

  /** Rotation: the full segment is synced and closed in the background. */
  #leaveSegment(): void {
    const fd = this.#fd;
    const wasSyncing = this.#isSyncing;
    this.#fd = -1;
    this.#size = 0;
    this.segment = undefined;
    this.#stamp(fd);
    if (wasSyncing) {
      this.#closeWhenSynced = true;
      return;
    }
    fdatasync(fd, (cause) => {
      if (cause) this.#fail(cause, false);
      close(fd);
    });
  }

  #syncList(): void {
    if (!this.#isListed || this.#isListSynced) return;
    this.#isListSynced = true;
    open(join(this.settings.dir, listName), O_NOFOLLOW | O_WRONLY, (cause, fd) => {
      if (!cause) fdatasync(fd, () => close(fd));
    });
  }

  #sync(): void {
    if (!this.#isDirty || this.#isSyncing) return;
    const fd = this.#fd;
    this.#isDirty = false;
    this.#isSyncing = true;
    fdatasync(fd, (cause) => {
      this.#isSyncing = false;
      if (this.#closeWhenSynced) {
        this.#closeWhenSynced = false;
        fdatasync(fd, () => close(fd));
      }
      // Pages that could not reach the disk are marked clean afterwards: a second fdatasync would claim success.
      if (cause) this.#fail(cause, fd === this.#fd);
    });
  }

  /** Retention goes by the time of the last hit, which is the clock's that was handed in. */
  #stamp(fd: number): void {
    const seconds = this.settings.clock() / 1000;
    quietly(() => futimesSync(fd, seconds, seconds));
  }

  #fail(cause: unknown, abandon: boolean): void {
    if (!this.#isTold)
      this.settings.log.error(
        { chain: this.settings.chain, error: reasonOf(cause) },
        "the hit log cannot be written",
      );
    this.#isTold = true;
    this.#reason = reasonOf(cause);
    this.#failing = true;
    if (!this.#batch.isEmpty) this.#broken = true;
    this.#lost += this.#batch.hits;
    this.#batch.drop();
    if (this.#fd < 0) return;
    if (this.#size === 0) this.#discardSegment();
    else if (abandon || codeOf(cause) === "EFBIG" || !this.#cutBack()) this.#abandonSegment();
  }

  /** Takes away what a short write left behind. When even that fails, the segment ends torn and another one follows. */
  #cutBack(): boolean {
    try {
      ftruncateSync(this.#fd, this.#size);
      return true;
    } catch {
      return false;
    }
  }

  #discardSegment(): void {
    const { chain, dir } = this.settings;
    const name = this.segment ?? "";
    this.#abandonSegment();
    quietly(() => unlinkSync(join(dir, chain, name)));
  }

  #abandonSegment(): void {
    const fd = this.#fd;
    if (this.#size > 0) this.#cutBack();
    this.#fd = -1;
    this.#size = 0;
    this.segment = undefined;
    if (this.#isSyncing) this.#closeWhenSynced = true;
    else quietly(() => closeSync(fd));
  }

  #gap(lost: number): NewHit {
    const { clock, writer } = this.settings;
    return {
      at: clock(),
      plane: writer.process === "control" ? "control" : "data",
      kind: "process",
      decision: "fault",
      code: "audit_unavailable",
      ...(writer.process === "control" ? {} : { gate: writer.name }),
      action: "log_gap",
      count: lost,
      detail: `hits could not be written: ${this.#reason}`,
    };
  }
}

/** Adds a chain to the directory's list. Throws when it does not fit whole. */
export function listChain(dir: string, entry: Parameters<typeof listLine>[0]): void {
  appendFileSync(join(dir, listName), listLine(entry), { mode: 0o600, flag: "a" });
}

function codeOf(cause: unknown): string | undefined {
  return cause instanceof Error && "code" in cause ? String(cause.code) : undefined;
}

/** The system's word for it, without our paths. */
export function reasonOf(cause: unknown): string {
  return codeOf(cause) ?? (cause instanceof Error ? cause.message : String(cause));
}

export function quietly(act: () => void): void {
  try {
    act();
  } catch {
    // Nothing depends on it: the caller is already on its way out of a failure.
  }
}
