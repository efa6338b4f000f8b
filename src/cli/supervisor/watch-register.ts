import { readdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Running } from "../../base/lifecycle.ts";

/**
 * Calls `onSaved` when the register's main file or one of `sallyport.d/` has changed and then stayed as it is for one look,
 * so that a file that is being written is not read half. Looks every 250 ms: file events are missing on network file
 * systems and in containers, and a few `stat` calls cost nothing. Calls do not overlap. `known` is what `registerMark` said before the
 * register was read: what is saved while everything starts is not missed.
 */
export function watchRegister(path: string, known: string, onSaved: () => Promise<void>): Running {
  let seen = known;
  let working = Promise.resolve();
  let isBusy = false;
  const timer = setInterval(() => {
    const now = registerMark(path);
    const isStable = now === seen;
    seen = now;
    if (!isStable || now === known || isBusy) return;
    known = now;
    isBusy = true;
    working = onSaved().finally(() => {
      isBusy = false;
    });
  }, lookEveryMs);
  return {
    close() {
      clearInterval(timer);
      return working;
    },
  };
}

const lookEveryMs = 250;

/** Changes whenever a file of the register was written, replaced, added or removed. */
export function registerMark(path: string): string {
  const folder = join(dirname(path), "sallyport.d");
  return [path, ...namesIn(folder).map((name) => join(folder, name))].map(marksOf).join("\n");
}

function namesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return []; // most registers are one file
  }
}

function marksOf(file: string): string {
  const found = statSync(file, { bigint: true, throwIfNoEntry: false });
  return found ? `${file} ${found.ino} ${found.size} ${found.mtimeNs}` : `${file} is not there`;
}
