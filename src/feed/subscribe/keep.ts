import { mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import type { Revocation, SignedSnapshot } from "../../model/snapshot.ts";
import type { Running } from "../needs.ts";
import { lineBytesMax, revocationShape, signedShape } from "../protocol.ts";

/**
 * What a gate remembers of the feed over restarts, in its own directory: every file 0600 and replaced whole.
 * `snapshot.json` is the last good one as it was signed; `snapshot.next.json` one that is being taken into service (a gate killed
 * in between starts with it, never below what it served); `feed.json` the rest.
 */
export function openKeep(dir: string): Keep {
  const good = join(dir, "snapshot.json");
  const next = join(dir, "snapshot.next.json");
  const memory = join(dir, "feed.json");
  // One write at a time: two renames of one file must land in the order they were asked for.
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const mine = last.then(work, work);
    last = mine.catch(() => {});
    return mine;
  };
  let remembering: Promise<void> | undefined;
  return {
    async load() {
      await mkdir(dir, { recursive: true, mode: 0o700 });
      const [remembered, staged, kept] = await Promise.all([
        readShaped(memory, memoryShape),
        readShaped(next, signedShape),
        readShaped(good, signedShape),
      ]);
      return { memory: remembered, staged, good: kept };
    },
    stage: (signed) => inTurn(() => replace(next, JSON.stringify(signed))),
    promote: () =>
      inTurn(async () => {
        await rename(next, good);
        await syncDirectory(dir);
      }),
    discard: () => inTurn(() => rm(next, { force: true })),
    remember(read) {
      // A thousand revocations at once are one write: whoever asks before it begins is in it.
      remembering ??= inTurn(() => {
        remembering = undefined;
        return replace(memory, `${JSON.stringify(read())}\n`);
      });
      return remembering;
    },
    settled: () => inTurn(async () => {}),
  };
}

export type Keep = {
  /** Throws only when the directory cannot be made. */
  load(): Promise<{
    readonly memory: Found<FeedMemory>;
    readonly staged: Found<SignedSnapshot>;
    readonly good: Found<SignedSnapshot>;
  }>;
  stage(signed: SignedSnapshot): Promise<void>;
  /** Makes the staged snapshot the last good one. */
  promote(): Promise<void>;
  discard(): Promise<void>;
  /** Writes what `read` says when the write begins. */
  remember(read: () => FeedMemory): Promise<void>;
  /** Resolves once nothing is being written. */
  settled(): Promise<void>;
};

/** Absent is not damaged: the first is normal, the second means that something meddled. */
export type Found<T> =
  | { readonly kind: "absent" }
  | { readonly kind: "damaged"; readonly why: string }
  | { readonly kind: "found"; readonly value: T };

export type FeedMemory = {
  /** The key that was pinned at enrolment, by its id: under another one nothing here counts. */
  readonly pinned: string;
  /** Keys that may sign now: SPKI, PEM. */
  readonly keys: readonly string[];
  /** The highest snapshot that was ever served. */
  readonly highest: Running | null;
  /** Revocations that no snapshot served here has listed yet. */
  readonly revocations: readonly Revocation[];
};

const memoryShape: z.ZodType<FeedMemory> = z.strictObject({
  pinned: z.string().max(128),
  keys: z.array(z.string().max(1_024)).min(1).max(64),
  highest: z
    .strictObject({
      epoch: z.int().min(0),
      version: z.int().min(0),
      digest: z.string().regex(/^[0-9a-f]{64}$/),
    })
    .nullable(),
  revocations: z.array(revocationShape).max(100_000),
});

async function readShaped<T>(path: string, shape: z.ZodType<T>): Promise<Found<T>> {
  let text: string;
  try {
    text = await readAtMost(path, 2 * lineBytesMax.down);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return { kind: "absent" };
    return { kind: "damaged", why: `${path} cannot be read: ${(cause as Error).message}` };
  }
  try {
    return { kind: "found", value: shape.parse(JSON.parse(text)) };
  } catch {
    return { kind: "damaged", why: `${path} is not what was written there` };
  }
}

async function readAtMost(path: string, bytesMax: number): Promise<string> {
  const file = await open(path, "r");
  try {
    if ((await file.stat()).size > bytesMax) throw new Error("it is too large");
    return await readFile(file, "utf8");
  } finally {
    await file.close();
  }
}

async function replace(path: string, text: string): Promise<void> {
  const draft = `${path}.draft`;
  // Left by a gate that was killed while writing.
  await rm(draft, { force: true });
  const file = await open(draft, "wx", 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(draft, path);
  await syncDirectory(dirname(path));
}

async function syncDirectory(path: string): Promise<void> {
  if (process.platform === "win32") return; // a directory cannot be opened there
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
