import { Command, CommanderError } from "commander";
import type { Problem } from "../base/problem.ts";
import { commands } from "./commands.ts";
import { Exit, type ExitCode } from "./exit.ts";
import { outliveReaders, output, plain } from "./output.ts";
import { printProblems } from "./print-problems.ts";
import { version } from "./version.ts";

/** Runs one command line. Loads only the command that was asked for: `sallyport check` pays for no TLS and no database. */
async function main(args: readonly string[]): Promise<ExitCode> {
  const program = new Command("sallyport")
    .description("Keeps internal ports internal, and proves it.")
    .version(version)
    .addHelpText(
      "after",
      `
Examples:
  sallyport up --demo            three services and a proof, without a register
  sallyport init                 begin with one of your own
  sallyport token --help         examples and exit codes of a command
Exit code: 0 ok; 1 findings or refused; 2 wrong usage; 3 no control plane.`,
    )
    .showHelpAfterError("hint: sallyport --help shows every command")
    .exitOverride();
  const wanted = args.find((arg) => !arg.startsWith("-"));
  for (const entry of commands) {
    if (entry.name === wanted)
      program.addCommand(withNextStep((await entry.load()).command().exitOverride()));
    else program.command(entry.name, { hidden: entry.hidden ?? false }).description(entry.summary);
  }
  try {
    await program.parseAsync([...args], { from: "user" });
    return (process.exitCode as ExitCode | undefined) ?? 0;
  } catch (cause) {
    return report(cause);
  }
}

/** What commander refuses ends in a next step too, also in subcommands. */
function withNextStep(command: Command, names: readonly string[] = ["sallyport"]): Command {
  const path = [...names, command.name()];
  for (const sub of command.commands) withNextStep(sub, path);
  return command.showHelpAfterError(`hint: ${path.join(" ")} --help shows examples`);
}

function report(cause: unknown): ExitCode {
  if (cause instanceof CommanderError) return cause.exitCode === 0 ? 0 : 2; // commander has printed it
  if (cause instanceof Exit) {
    if (cause.message) output.note(`error: ${shown(cause.message)}`);
    if (cause.hint) output.note(`hint: ${shown(cause.hint)}`);
    return cause.code;
  }
  if (cause instanceof Error && "problems" in cause) {
    printProblems(cause.problems as Problem[]);
    return 2;
  }
  output.note(`error: ${cause instanceof Error ? cause.message : String(cause)}`);
  const hint = hintFor((cause as NodeJS.ErrnoException)?.code);
  if (hint !== undefined) {
    output.note(`hint: ${hint}`);
    return 2;
  }
  output.note("hint: this is a fault of sallyport's own; SALLYPORT_DEBUG=1 shows where");
  if (process.env.SALLYPORT_DEBUG) output.note(String((cause as Error)?.stack));
  return 2;
}

/** What the system refuses is nobody's fault here. */
function hintFor(code: string | undefined): string | undefined {
  if (code === "ENOSPC" || code === "EDQUOT") return "the disk is full: make room, and try again";
  if (code === "EROFS") return "the file system is read-only: name a place that can be written";
  if (code === "EMFILE" || code === "ENFILE")
    return "too many files are open: raise the limit (ulimit -n), and try again";
  return undefined;
}

/** Our own sentences may have several lines. */
function shown(text: string): string {
  return text.split("\n").map(plain).join("\n");
}

outliveReaders();
process.exitCode = await main(process.argv.slice(2));
