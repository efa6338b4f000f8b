import { closeSync, openSync, readSync } from "node:fs";

/** Line breaks in all of the files. */
export function countLines(files: readonly string[]): number {
  const piece = Buffer.allocUnsafe(1 << 20);
  let lines = 0;
  for (const file of files) {
    const fd = openSync(file, "r");
    for (;;) {
      const length = readSync(fd, piece);
      if (length === 0) break;
      for (let at = piece.indexOf(0x0a); at >= 0 && at < length; at = piece.indexOf(0x0a, at + 1))
        lines++;
    }
    closeSync(fd);
  }
  return lines;
}
