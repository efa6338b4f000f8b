import { Command } from "commander";
import { distance, withContext, withContextOption } from "../context.ts";
import { Exit } from "../exit.ts";
import { output, table } from "../output.ts";

type Options = {
  readonly context?: string;
  readonly api?: string;
  readonly json?: boolean;
  readonly limit: string;
};

type Head = {
  readonly epoch: number;
  readonly version: number;
  readonly author: string;
  readonly at: number;
  readonly digest: string;
  readonly reason: string;
};

/** `sallyport history`: every version of the register, the newest first. */
export function command(): Command {
  return withContextOption(new Command("history"))
    .description("list the versions of the register, who made them, when and why")
    .option("--limit <number>", "at most so many, the newest", "20")
    .option("--json", "print an array of versions as JSON")
    .addHelpText(
      "after",
      `
Examples:
  sallyport history
  sallyport history --limit 100 --json
The number of a version is what rollback takes. Exit code: 0 shown; 1 refused; 2 wrong usage; 3 no control plane.`,
    )
    .action(run);
}

async function run(options: Options): Promise<void> {
  if (!/^([1-9]\d?|[1-4]\d\d|500)$/.test(options.limit))
    throw new Exit(2, `--limit "${options.limit}" is no number from 1 to 500`);
  await withContext(options, async (context) => {
    const reply = await context.call("GET", "/v1/snapshots", { query: { limit: options.limit } });
    const { snapshots } = reply.body as { snapshots: Head[] };
    if (options.json) return output.json(snapshots);
    const now = Date.now();
    const rows = snapshots.map(({ epoch, version, author, at, digest, reason }) => [
      `${version}`,
      `${epoch}`,
      distance(at, now),
      author,
      reason,
      digest.slice(0, 12),
    ]);
    if (rows.length === 0) return output.note("no register was applied yet");
    output.line(table(rows, ["VERSION", "EPOCH", "WHEN", "BY", "WHAT", "DIGEST"]));
  });
}
