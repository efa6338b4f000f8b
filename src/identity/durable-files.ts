import { randomBytes } from "node:crypto";
import { mkdirSync, statSync } from "node:fs";
import { chmod, open, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

/**
 * Replaces a file whole: a reader sees the old text or the new one, also after a power cut. Written beside its place,
 * synced, renamed, the directory synced. Mode 0600.
 */
export async function writeFileDurably(path: string, text: string): Promise<void> {
  const draft = draftOf(path);
  try {
    const file = await open(draft, "wx", 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(draft, path);
  } catch (cause) {
    await rm(draft, { force: true });
    throw cause;
  }
  await syncDirectory(dirname(path));
}

/** Throws what `writeFileDurably` would say no with, as far as that can be known before there is anything to write. */
export async function demandWritable(path: string): Promise<void> {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory())
    throw new Error("it is a directory");
  const draft = draftOf(path);
  await (await open(draft, "wx", 0o600)).close();
  await rm(draft, { force: true });
}

/** Beside its place, with a name that nobody else has. */
function draftOf(path: string): string {
  const name = `.${basename(path)}.${randomBytes(6).toString("hex")}${draftEnd}`;
  return join(dirname(path), name);
}

/** How names of files that were never finished end: whoever owns the directory may remove them. */
export const draftEnd = ".draft";

/** Makes the directory and what leads to it; it ends up mode 0700 whatever the umask says. */
export async function makePrivateDirectory(path: string): Promise<void> {
  if (makeDirectories(path, 0o700)) await chmod(path, 0o700);
}

/**
 * Makes a directory and what leads to it; true when it was not there before. For every path that a person named: the recursive
 * `mkdir` of Node never ends where a file system answers ENOENT below a directory that is there, as /proc does. Throws what
 * `mkdir` says, and ENOTDIR where something else stands.
 */
export function makeDirectories(path: string, mode = 0o777): boolean {
  const parent = dirname(path);
  try {
    return makeOne(path, mode);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ENOENT" || parent === path) throw cause;
  }
  makeDirectories(parent, mode);
  return makeOne(path, mode); // once, and no more: what leads there is in place now
}

function makeOne(path: string, mode: number): boolean {
  try {
    mkdirSync(path, { mode });
    return true;
  } catch (cause) {
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return false;
    throw (cause as NodeJS.ErrnoException).code === "EEXIST" ? notDirectory(path) : cause;
  }
}

function notDirectory(path: string): NodeJS.ErrnoException {
  const cause: NodeJS.ErrnoException = new Error(`ENOTDIR: not a directory, mkdir '${path}'`);
  cause.code = "ENOTDIR";
  return cause;
}

/** Makes renames in a directory last. */
export async function syncDirectory(path: string): Promise<void> {
  if (process.platform === "win32") return; // a directory cannot be opened there
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
