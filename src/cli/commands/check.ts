import { Command } from "commander";
import { type Problem, place } from "../../base/problem.ts";
import type { SourceFile } from "../../model/register/read-yaml.ts";
import type { Register } from "../../model/register.ts";
import { readRegister } from "../load-register.ts";
import { output, plain } from "../output.ts";

/** `sallyport check`: 0 no errors, 1 errors, 2 the register could not be read. */
export function command(): Command {
  return new Command("check")
    .description("read the register and say everything that is wrong with it, in one run")
    .argument(
      "[file]",
      "the register (default: sallyport.yaml here or above, with sallyport.d/ beside it)",
    )
    .option("--json", "print { ok, files, errors, warnings, time } as JSON")
    .addHelpText(
      "after",
      `
Examples:
  sallyport check
  sallyport check staging.yaml --json
Exit code: 0 no errors (warnings may be there), 1 errors, 2 the register could not be read.`,
    )
    .action(run);
}

async function run(path: string | undefined, options: { readonly json?: boolean }): Promise<void> {
  const { register, problems, files } = await readRegister(path);
  const kinds = {
    errors: problems.filter((problem) => problem.severity === "error"),
    warnings: problems.filter((problem) => problem.severity === "warning"),
    time: problems.filter((problem) => problem.severity === "time"),
  };
  process.exitCode = kinds.errors.length > 0 ? 1 : 0;
  if (options.json) {
    output.json({ ok: kinds.errors.length === 0, files: files.map((file) => file.name), ...kinds });
    return;
  }
  for (const [heading, list] of Object.entries(kinds)) {
    if (list.length === 0) continue;
    output.line(output.paint("bold", heading));
    for (const problem of list) print(problem, files);
    output.line();
  }
  output.line(summary(kinds, register));
}

const colours = { error: "red", warning: "yellow", time: "cyan" } as const;

function print(problem: Problem, files: readonly SourceFile[]): void {
  const severity = output.paint(colours[problem.severity], problem.severity);
  const where = place(problem);
  output.line(
    `${where ? `${plain(where)}: ` : ""}${severity}: ${plain(problem.message)} [${problem.code}]`,
  );
  if (output.isTerminal) for (const line of excerpt(problem, files)) output.line(line);
  if (problem.hint) output.line(`  ${output.paint("dim", "hint:")} ${plain(problem.hint)}`);
}

const excerptColumnsMax = 100;

/** The line, and a caret under the place; a long line is cut to what is around it. */
function excerpt(problem: Problem, files: readonly SourceFile[]): readonly string[] {
  const { line, column } = problem;
  const text = files.find((file) => file.name === problem.file)?.text;
  if (text === undefined || line === undefined || column === undefined) return [];
  const whole = text.replace(/^\uFEFF/, "").split(/\r\n|\n|\r/)[line - 1];
  if (whole === undefined) return [];
  const start = Math.max(0, column - 1 - excerptColumnsMax / 2);
  const shown = whole.slice(start, start + excerptColumnsMax).replace(/[\p{Cc}\p{Cf}]/gu, " ");
  const margin = String(line).length;
  const caret = " ".repeat(column - 1 - start);
  return [
    `  ${line} | ${shown}`,
    `  ${" ".repeat(margin)} | ${caret}${output.paint(colours[problem.severity], "^")}`,
  ];
}

function summary(
  kinds: Record<"errors" | "warnings" | "time", readonly Problem[]>,
  register: Register | undefined,
): string {
  const counts = [
    count(kinds.errors.length, "error"),
    count(kinds.warnings.length, "warning"),
    ...(kinds.time.length > 0 ? [`${kinds.time.length} about time`] : []),
  ].join(", ");
  if (!register) return output.paint("red", `not usable: ${counts}`);
  const services = Object.values(register.services);
  const ports = services.flatMap((service) => Object.keys(service.ports)).length;
  const rules = services.flatMap((service) => [...service.allow, ...service.deny]).length;
  const size = [count(services.length, "service"), count(ports, "port"), count(rules, "rule")].join(
    ", ",
  );
  return `${output.paint("green", "ok")}: ${size}; ${counts}`;
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
