import { randomBytes } from "node:crypto";
import { chmod, mkdir, open, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

/**
 * Replaces a file whole: a reader sees the old text or the new one, also after a power cut. Written beside its place,
 * synced, renamed, the directory synced. Mode 0600.
 */
export async function writeFileDurably(path: string, text: string): Promise<void> {
  const draft = join(
    dirname(path),
    `.${basename(path)}.${randomBytes(6).toString("hex")}${draftEnd}`,
  );
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

/** How names of files that were never finished end: whoever owns the directory may remove them. */
export const draftEnd = ".draft";

/** Makes the directory and what leads to it; it ends up mode 0700 whatever the umask says. */
export async function makePrivateDirectory(path: string): Promise<void> {
  const made = await mkdir(path, { recursive: true, mode: 0o700 });
  if (made !== undefined) await chmod(path, 0o700);
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
