import { Command } from "commander";
import { output, table } from "../output.ts";
import { settings } from "../settings.ts";

/** `sallyport settings`: the environment variables, what they are now, and why they exist. */
export function command(): Command {
  return new Command("settings")
    .description("print the environment variables that sallyport reads")
    .option("--json", "print them as JSON")
    .addHelpText(
      "after",
      `
Examples:
  sallyport settings
  SALLYPORT_LOG=json sallyport up
Exit code: 0.`,
    )
    .action((options: { readonly json?: boolean }) => {
      if (options.json) output.json(Object.values(settings));
      else
        output.line(
          table(
            Object.values(settings).map(({ env, value, why }) => [env, value || "not set", why]),
            ["VARIABLE", "WITHOUT IT", "WHY"],
          ),
        );
    });
}
