import { randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Log } from "../../base/log.ts";

/** Room on the disk that is held for the moment in which there is none. */
export type Reserve = {
  /** Gives back as much as is needed for this many bytes to be free. Never throws. */
  makeRoom(bytes: number): void;
  /** Takes up what is missing, once there is plenty again. Never throws. */
  restock(): void;
};

const sliceBytes = 1_048_576;
const slices = 16;

/**
 * Keeps 16 MiB in files of `dir`, a mebibyte each. What cuts off an attacker (revoke, rollback, rotating an authority) has to be
 * stored before a gate hears of it, and whoever can fill the disk must not be able to prevent that.
 */
export function keepReserve(options: {
  readonly dir: string;
  readonly log: Log;
  /** For tests. Default: what the file system of `dir` has left for this user. */
  readonly freeBytes?: () => number;
}): Reserve {
  const { dir, log } = options;
  const freeBytes =
    options.freeBytes ??
    (() => {
      const { bavail, bsize } = statfsSync(dir);
      return bavail * bsize;
    });
  const names = Array.from({ length: slices }, (_, i) => `${String(i).padStart(2, "0")}.reserve`);
  const held = (): string[] => readdirSync(dir).filter((name) => names.includes(name));

  function restock(): void {
    try {
      mkdirSync(dir, { recursive: true, mode: 0o700 });
      const here = new Set(held());
      for (const name of names) {
        if (here.has(name)) continue;
        if (freeBytes() < 2 * slices * sliceBytes) return;
        // Nothing that a file system could store as nothing.
        writeFileSync(join(dir, name), randomBytes(sliceBytes), { mode: 0o600 });
      }
    } catch (cause) {
      log.warn({ err: cause }, "no room could be reserved on the disk");
    }
  }

  restock();
  return {
    makeRoom(bytes) {
      try {
        for (const name of held()) {
          if (freeBytes() >= bytes) return;
          rmSync(join(dir, name), { force: true });
          log.warn(
            {},
            "the disk is full: a part of the reserve was given back for what cannot wait",
          );
        }
      } catch (cause) {
        log.warn({ err: cause }, "the reserve on the disk could not be given back");
      }
    },
    restock,
  };
}
