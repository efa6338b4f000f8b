import { Command } from "commander";
import { withContext, withContextOption } from "../context.ts";
import { readRegister } from "../load-register.ts";
import { output } from "../output.ts";
import { printProblems } from "../print-problems.ts";
import { compareWith, printChanges } from "./apply.ts";

type Options = { readonly context?: string; readonly api?: string; readonly json?: boolean };

/** `sallyport diff`: 0 nothing changes, 1 something does or the register has errors, 2 wrong usage, 3 no control plane. */
export function command(): Command {
  return withContextOption(new Command("diff"))
    .description("say what applying the register would change")
    .argument("[file]", "the register (default: sallyport.yaml here or above, with sallyport.d/)")
    .option("--json", "print { against, changes, problems } as JSON")
    .addHelpText(
      "after",
      `
Examples:
  sallyport diff
  sallyport diff shop.yaml --json
Exit code: 0 nothing changes; 1 something does, or the register has errors; 2 wrong usage; 3 no control plane.`,
    )
    .action(run);
}

async function run(file: string | undefined, options: Options): Promise<void> {
  const { files } = await readRegister(file);
  await withContext(options, async (context) => {
    const compared = await compareWith(context, files);
    if (options.json) output.json(compared);
    else {
      printProblems(compared.problems);
      printChanges(compared.changes);
    }
    const hasErrors = compared.problems.some(({ severity }) => severity === "error");
    if (hasErrors || compared.changes.length > 0) process.exitCode = 1;
  });
}
