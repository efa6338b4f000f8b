import { Command } from "commander";
import type { Problem } from "../../base/problem.ts";
import { ApiRefused } from "../../control/client/client.ts";
import { type Change, describeChange } from "../../control/registry/diff.ts";
import {
  type Context,
  confirm,
  printConfirmations,
  refusal,
  withContext,
  withContextOption,
} from "../context.ts";
import { Exit } from "../exit.ts";
import { readRegister } from "../load-register.ts";
import { output, plain } from "../output.ts";
import { printProblems } from "../print-problems.ts";

type Options = {
  readonly context?: string;
  readonly api?: string;
  readonly json?: boolean;
  readonly dryRun?: boolean;
  readonly yes?: boolean;
  readonly force?: boolean;
};

/** What the control plane says it would change. */
export type Compared = {
  readonly against: string;
  readonly changes: readonly Change[];
  readonly problems: readonly Problem[];
};

/** `sallyport apply`: 0 published or nothing to do, 1 refused, 2 wrong usage, 3 no control plane. */
export function command(): Command {
  return withContextOption(new Command("apply"))
    .description("publish the register: shows what changes, asks, and tells every gate")
    .argument("[file]", "the register (default: sallyport.yaml here or above, with sallyport.d/)")
    .option("--dry-run", "show what would change, and stop")
    .option("-y, --yes", "do not ask")
    .option("--force", "replace whatever stands there, also what somebody applied meanwhile")
    .option(
      "--json",
      "print { published, snapshot, changes, problems, confirmed, missing } as JSON",
    )
    .addHelpText(
      "after",
      `
Examples:
  sallyport apply
  sallyport apply --dry-run
  sallyport apply shop.yaml --yes --json
Exit code: 0 published, or nothing changes; 1 refused; 2 wrong usage; 3 no control plane.`,
    )
    .action(run);
}

async function run(file: string | undefined, options: Options): Promise<void> {
  const { files } = await readRegister(file);
  await withContext(options, async (context) => {
    const compared = await compareWith(context, files);
    printProblems(compared.problems);
    if (compared.problems.some(({ severity }) => severity === "error"))
      throw new Exit(1, "nothing was applied: the register has errors");
    if (!options.json) printChanges(compared.changes);
    const isDone = options.dryRun || compared.changes.length === 0;
    if (isDone) {
      if (options.json) output.json({ published: false, ...compared, confirmed: [], missing: [] });
      return;
    }
    const say = `Apply ${count(compared.changes)} to ${context.api} as ${context.principal}?`;
    if (!options.yes && !(await confirm(say))) throw new Exit(1, "nothing was applied");
    const applied = await publish(context, files, compared.against, options);
    if (options.json) return output.json(applied);
    output.line(`applied: snapshot ${applied.snapshot}`);
    printConfirmations(applied);
  });
}

/** Asks the control plane, whose view of the world counts, not this machine's. */
export async function compareWith(
  context: Context,
  files: readonly { readonly name: string; readonly text: string }[],
): Promise<Compared> {
  return (await context.call("POST", "/v1/register/diff", { body: { files } })).body as Compared;
}

/** On standard output, one line a change. */
export function printChanges(changes: readonly Change[]): void {
  if (changes.length === 0) output.note("nothing changes");
  const colours = { added: "green", removed: "red", changed: "yellow" } as const;
  for (const change of changes)
    output.line(output.paint(colours[change.kind], plain(describeChange(change))));
}

export function count(changes: readonly Change[]): string {
  return changes.length === 1 ? "1 change" : `${changes.length} changes`;
}

type Applied = {
  readonly snapshot?: string;
  readonly confirmed: readonly string[];
  readonly missing: readonly string[];
};

async function publish(
  context: Context,
  files: readonly { readonly name: string; readonly text: string }[],
  against: string,
  options: Options,
): Promise<Applied> {
  try {
    const reply = await context.ask("PUT", "/v1/register", {
      body: { files },
      query: { force: options.force ? true : undefined, waitMs: 2_000 },
      // What was shown is what is replaced: whoever applied in between is not overwritten.
      headers: { "If-Match": `"${against}"` },
    });
    return reply.body as Applied;
  } catch (cause) {
    if (!(cause instanceof ApiRefused)) throw cause;
    throw refusal(cause);
  }
}
