import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { Exit } from "./exit.ts";

/**
 * Takes what one program at a time may run from a state directory: `control`, or `gate-` and a gate's name. The kernel gives it back when the
 * process ends, however it ends. Fails closed: throws `Exit` when another process has it, before anything of that one's was touched.
 */
export function holdState(stateDir: string, names: readonly string[]): void {
  for (const name of names) {
    const file = join(stateDir, `${name}.lock`);
    try {
      held.push(lock(file));
    } catch (cause) {
      if (((cause as { errcode?: number }).errcode ?? 0) !== busy)
        throw new Exit(
          2,
          `${file} cannot be made: ${(cause as Error).message}`,
          "check that the state directory is writable and its disk is not full",
        );
      throw new Exit(
        2,
        `another process runs ${name.replace("gate-", "the gate ")} from ${stateDir}`,
        "stop it first, or name another directory with --state",
      );
    }
  }
}

/** SQLITE_BUSY. */
const busy = 5;
/** For as long as this process lives. */
const held: DatabaseSync[] = [];

/** A lock of the file system's own, through the one library here that takes them: Node has none. */
function lock(file: string): DatabaseSync {
  const database = new DatabaseSync(file);
  try {
    database.exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE");
  } catch (cause) {
    database.close();
    throw cause;
  }
  return database;
}
