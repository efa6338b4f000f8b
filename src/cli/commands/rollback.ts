import { Command } from "commander";
import { diffRegisters } from "../../control/registry/diff.ts";
import type { Register } from "../../model/register.ts";
import { confirm, printConfirmations, withContext, withContextOption } from "../context.ts";
import { Exit } from "../exit.ts";
import { output } from "../output.ts";
import { count, printChanges } from "./apply.ts";

type Options = {
  readonly context?: string;
  readonly api?: string;
  readonly json?: boolean;
  readonly yes?: boolean;
  readonly epoch?: string;
};

/** `sallyport rollback N`: publishes an older register again. Revocations stay. */
export function command(): Command {
  return withContextOption(new Command("rollback"))
    .description("publish the register of an older version again; revocations stay")
    .argument("<version>", "as sallyport history numbers it")
    .option(
      "--epoch <number>",
      "of that version, where a restore made several (default: the newest)",
    )
    .option("-y, --yes", "do not ask")
    .option("--json", "print { published, snapshot, changes, confirmed, missing } as JSON")
    .addHelpText(
      "after",
      `
Examples:
  sallyport rollback 16
  sallyport rollback 16 --yes --json
Exit code: 0 published; 1 refused; 2 wrong usage; 3 no control plane.`,
    )
    .action(run);
}

async function run(version: string, options: Options): Promise<void> {
  for (const text of [version, options.epoch ?? "1"])
    if (!/^[1-9]\d{0,9}$/.test(text))
      throw new Exit(2, `"${text}" is no version`, "sallyport history numbers them");
  const query = { epoch: options.epoch };
  await withContext(options, async (context) => {
    if (!options.yes) {
      const old = await context.call("GET", `/v1/snapshots/${version}`, { query });
      const now = await context.call("GET", "/v1/register");
      const changes = diffRegisters(
        (now.body as { register: Register }).register,
        (old.body as { register: Register }).register,
      );
      printChanges(changes);
      if (!(await confirm(`Roll back to version ${version} (${count(changes)})?`)))
        throw new Exit(1, "nothing was rolled back");
    }
    const reply = await context.call("POST", `/v1/snapshots/${version}/rollback`, {
      query: { ...query, waitMs: 2_000 },
    });
    const body = reply.body as { snapshot: string; confirmed: string[]; missing: string[] };
    if (options.json) return output.json(body);
    output.line(`rolled back to version ${version}: snapshot ${body.snapshot}`);
    printConfirmations(body);
  });
}
