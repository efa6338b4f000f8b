import { lstatSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { makeDirectories } from "../identity/durable-files.ts";
import { Exit } from "./exit.ts";
import { readSetting } from "./settings.ts";

/**
 * The state directory, made where it is missing: 0700, and kept out of git and of images. Fails closed: a directory that
 * somebody else owns, that others may read, or that is a link is refused, because keys are about to be written into it.
 * Throws `Exit`.
 */
export function openState(path: string): string {
  const folder = resolve(path);
  try {
    makeDirectories(dirname(folder));
    mkdirSync(folder, { mode: 0o700 });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "EEXIST")
      throw new Exit(
        2,
        `${folder} cannot be made: ${(cause as Error).message}`,
        "name another with --state",
      );
  }
  demandOwn(folder);
  for (const name of [".gitignore", ".dockerignore"]) keep(join(folder, name));
  // What lies there is run: it stays its owner's also when the directory around it is opened later on.
  const codeDir = codeDirIn(folder);
  if (lstatSync(codeDir, { throwIfNoEntry: false }) === undefined)
    mkdirSync(codeDir, { mode: 0o700 });
  demandOwn(codeDir);
  return folder;
}

/** Fails closed: a link, another owner, or anything for others. Throws `Exit`. */
function demandOwn(folder: string): void {
  const found = lstatSync(folder);
  if (found.isSymbolicLink() || !found.isDirectory())
    throw new Exit(
      2,
      `${folder} is not a directory`,
      "a link is not followed here; name the directory itself with --state",
    );
  // Windows has neither owners nor modes in this sense.
  const uid = process.getuid?.();
  if (uid !== undefined && found.uid !== uid)
    throw new Exit(
      2,
      `${folder} belongs to uid ${found.uid}, and this is uid ${uid}`,
      "run as its owner, or name another with --state",
    );
  if (uid !== undefined && (found.mode & 0o077) !== 0)
    throw new Exit(
      2,
      `${folder} is open to others (mode ${(found.mode & 0o777).toString(8)})`,
      `keys lie there: chmod 700 ${folder}`,
    );
}

/** `--state`, else SALLYPORT_STATE, else `.sallyport` beside the register. */
export function statePath(option: string | undefined, besideFolder: string): string {
  return option ?? readSetting("state") ?? join(besideFolder, ".sallyport");
}

/** Where the processes of this state keep their compiled code: who may write there could as well replace a key. */
export function codeDirIn(stateDir: string): string {
  return join(stateDir, "code");
}

/** The gate that lives in this state directory, when there is exactly one. */
export function onlyGateIn(state: string): string | undefined {
  try {
    const names = readdirSync(join(state, "gates"));
    return names.length === 1 ? names[0] : undefined;
  } catch {
    return undefined; // no gate has been here yet
  }
}

function keep(file: string): void {
  try {
    writeFileSync(file, "*\n", { flag: "wx", mode: 0o600 });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "EEXIST") throw cause;
  }
}
