import { output } from "../output.ts";
import type { Outcome } from "./attempt.ts";

const nameWidth = 60;
const expectedWidth = 24;

/** One attempt as one line, printed as soon as it is known; what did not hold says what happened instead. */
export function printOutcome({ name, expected, observed, held, hit }: Outcome): void {
  const mark = held ? output.paint("green", "held  ") : output.paint(["red", "bold"], "BROKEN");
  const what = name.padEnd(nameWidth);
  const short = expected.split(",")[0] ?? "";
  output.line(
    `${mark}  ${what} ${short.padEnd(expectedWidth)} ${output.paint("dim", hit ?? "no hit")}`,
  );
  if (!held) output.line(`        expected: ${expected}\n        observed: ${observed}`);
}

/** The last line of a proof. */
export function proofSummary(outcomes: readonly Outcome[]): string {
  const held = outcomes.filter((outcome) => outcome.held).length;
  return held === outcomes.length
    ? output.paint(
        "bold",
        `\n${held} of ${outcomes.length} attempts ended as they should, each with its hit.`,
      )
    : output.paint(
        ["red", "bold"],
        `\n${outcomes.length - held} of ${outcomes.length} attempts did NOT end as they should.`,
      );
}
