import { rename, rm, writeFile } from "node:fs/promises";
import { dirname, relative, resolve } from "node:path";
import { Command } from "commander";
import { makeDirectories } from "../../identity/durable-files.ts";
import { renderCompose } from "../../infra/compose/render-compose.ts";
import { Exit } from "../exit.ts";
import { loadRegister } from "../load-register.ts";
import { output } from "../output.ts";

type Options = { readonly out?: string; readonly json?: boolean };

/** `sallyport render compose`: what a register means elsewhere. */
export function command(): Command {
  const compose = new Command("compose")
    .description("write a Compose file with nothing published but what the register says")
    .argument("[file]", "the register (default: sallyport.yaml here or above)")
    .option("-o, --out <file>", "where to write it (default: standard output)")
    .option("--json", "print { text, problems } as JSON, with --out { out, problems }")
    .addHelpText(
      "after",
      `
Examples:
  sallyport render compose
  sallyport render compose shop.yaml --out compose.yaml
Exit code: 0 written, 2 the register has errors or cannot be rendered.`,
    )
    .exitOverride()
    .action(run);
  return new Command("render")
    .description("write what a register means for another tool")
    .addHelpText(
      "after",
      `
Examples:
  sallyport render compose --out compose.yaml
Exit code: 0 written, 2 the register has errors or cannot be rendered.`,
    )
    .addCommand(compose);
}

async function run(file: string | undefined, options: Options): Promise<void> {
  const { register, files, path } = await loadRegister(file);
  const outFolder = options.out === undefined ? process.cwd() : dirname(resolve(options.out));
  const folder = dirname(path);
  const seen = files.map(({ name }) => {
    const near = relative(outFolder, resolve(process.cwd(), name));
    return near.startsWith("..") ? near : `./${near}`;
  });
  const { text, problems } = renderCompose(register, { files: seen });
  if (options.json) {
    if (text !== undefined && options.out !== undefined) await write(options.out, text);
    const made = options.out === undefined ? { text } : { out: options.out };
    output.json({ ...(text !== undefined && made), problems });
  } else
    for (const problem of problems) {
      output.note(`${problem.path}: ${problem.severity}: ${problem.message}`);
      if (problem.hint) output.note(`  hint: ${problem.hint}`);
    }
  if (text === undefined)
    throw new Exit(2, `nothing was rendered from ${relative(process.cwd(), path) || folder}`);
  if (options.json) return;
  if (options.out === undefined) return output.text(text);
  await write(options.out, text);
  output.note(`wrote ${options.out}`);
}

/** Written beside and renamed: a file that is cut short could publish a port that the rest of it would have closed. */
async function write(out: string, text: string): Promise<void> {
  const whole = resolve(out);
  try {
    makeDirectories(dirname(whole));
    await writeFile(`${whole}.part`, text);
    await rename(`${whole}.part`, whole);
  } catch (cause) {
    await rm(`${whole}.part`, { force: true }).catch(() => {});
    throw new Exit(
      2,
      `cannot write ${out}: ${(cause as Error).message}`,
      "name a file where you may write with --out",
    );
  }
}
