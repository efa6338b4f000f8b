import type { Readable } from "node:stream";

/** A longer line is cut into several: a child that forgets its line breaks must not fill our memory. */
const lineBytesMax = 16_384;

/** Calls `onLine` for every line of a stream, the last one without a line break included. Empty lines are left out. */
export function readLines(stream: Readable, onLine: (line: string) => void): void {
  let rest = "";
  stream.setEncoding("utf8");
  stream.on("data", (chunk: string) => {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line.trim() !== "") onLine(line.trimEnd());
    while (rest.length >= lineBytesMax) {
      onLine(rest.slice(0, lineBytesMax));
      rest = rest.slice(lineBytesMax);
    }
  });
  stream.on("end", () => {
    if (rest.trim() !== "") onLine(rest.trimEnd());
  });
  // A broken pipe ends like any other: the child's exit tells the rest.
  stream.on("error", () => {});
}
