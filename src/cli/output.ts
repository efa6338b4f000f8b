import { styleText } from "node:util";

type Style = Parameters<typeof styleText>[0];

/** Where a command prints. Results go to standard output, everything about them to standard error. */
export type Output = {
  /** One line of the result. */
  line(text?: string): void;
  /** A result that is a text of its own, as it is: it brings its last line break. */
  text(whole: string): void;
  /** One line about the work: progress, hints, errors. */
  note(text: string): void;
  /** The result of `--json`: exactly one document on standard output. */
  json(value: unknown): void;
  /** Styled for standard output when it is a terminal and NO_COLOR is not set. */
  paint(style: Style, text: string): string;
  /** Whether standard output is a terminal. */
  readonly isTerminal: boolean;
};

export const output: Output = {
  line: (text = "") => void process.stdout.write(`${text}\n`),
  text: (whole) => void process.stdout.write(whole),
  note: (text) => void process.stderr.write(`${text}\n`),
  json: (value) => void process.stdout.write(`${JSON.stringify(value, null, 2)}\n`),
  paint: (style, text) => styleText(style, text, { stream: process.stdout, validateStream: true }),
  isTerminal: process.stdout.isTTY === true,
};

/** What a write says when nobody reads any more: a pipe was closed, a terminal is gone. */
const readerGone = new Set(["EPIPE", "EIO", "ECONNRESET", "ERR_STREAM_DESTROYED"]);

/**
 * To be called before anything is printed. A reader may leave when it has seen enough (`sallyport hits | head`): what is printed
 * after that is dropped, the work goes on to its end, and the exit code says how that went. A result that was lost for another
 * reason, such as a full disk, is told, and ends in exit code 2.
 */
export function outliveReaders(): void {
  process.stderr.on("error", () => undefined); // nobody is left to be told
  let isTold = false;
  process.stdout.on("error", (cause: NodeJS.ErrnoException) => {
    if (isTold || readerGone.has(cause.code ?? "")) return;
    isTold = true;
    output.note(`error: the result could not be written: ${cause.message}`);
    output.note("hint: it was cut short; give it another place, and run the command again");
    process.once("exit", () => {
      process.exitCode ||= 2;
    });
  });
}

/**
 * What people or gates wrote is shown, never obeyed: a register from somebody else could otherwise steer the terminal (ESC, C1) or
 * show another text than it holds (bidirectional marks, line separators).
 */
export function plain(text: string): string {
  return text.replace(
    /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu,
    (each) => `\\u{${(each.codePointAt(0) ?? 0).toString(16)}}`,
  );
}

/** Columns padded to their widest cell, two spaces apart; colour codes do not count as width. */
export function table(rows: readonly (readonly string[])[], head?: readonly string[]): string {
  const all = head ? [head, ...rows] : rows;
  const widths: number[] = [];
  for (const row of all)
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, visibleWidth(cell));
  return all
    .map((row) =>
      row
        .map((cell, i) =>
          i === row.length - 1
            ? cell
            : cell + " ".repeat((widths[i] ?? 0) - visibleWidth(cell) + 2),
        )
        .join("")
        .trimEnd(),
    )
    .join("\n");
}

function visibleWidth(text: string): number {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the escape character begins a colour code
  return [...text.replace(/\u001b\[[0-9;]*m/g, "")].length;
}
