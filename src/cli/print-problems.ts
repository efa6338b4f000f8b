import { type Problem, place } from "../base/problem.ts";
import { output, plain } from "./output.ts";

/** On standard error, one after the other, with its place and the way out. What they quote is shown, never obeyed. */
export function printProblems(problems: readonly Problem[]): void {
  for (const problem of problems) {
    const where = plain(place(problem) || problem.path || "");
    output.note(`${where ? `${where}: ` : ""}${problem.severity}: ${plain(problem.message)}`);
    if (problem.hint) output.note(`  hint: ${plain(problem.hint)}`);
  }
}
