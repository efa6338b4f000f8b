import { Command } from "commander";
import { type Completed, completionScript, isShell, shells } from "../completion-script.ts";
import { Exit } from "../exit.ts";
import { output } from "../output.ts";

/** `sallyport completion bash|zsh|fish`: a script made from the commands themselves. */
export function command(all: readonly Listed[]): Command {
  return new Command("completion")
    .description("print a completion script for a shell")
    .argument("<shell>", shells.join(", "))
    .option("--json", "print { shell, script } as JSON")
    .addHelpText(
      "after",
      `
Examples:
  sallyport completion bash > ~/.local/share/bash-completion/completions/sallyport
  sallyport completion zsh > "\${fpath[1]}/_sallyport"
  sallyport completion fish > ~/.config/fish/completions/sallyport.fish
Exit code: 0 printed, 2 no such shell.`,
    )
    .action(async (shell: string, options: { readonly json?: boolean }) => {
      if (!isShell(shell))
        throw new Exit(2, `no completion for "${shell}"`, `write one of ${shells.join(", ")}`);
      const script = completionScript(shell, await read(all));
      if (options.json) output.json({ shell, script });
      else output.line(script.trimEnd());
    });
}

/** A row of the table of commands. */
type Listed = {
  readonly name: string;
  readonly summary: string;
  readonly hidden?: boolean;
  readonly load: () => Promise<{ command(): Command }>;
};

function read(all: readonly Listed[]): Promise<readonly Completed[]> {
  return Promise.all(
    all
      .filter((entry) => !entry.hidden)
      .map(async ({ name, summary, load }) => {
        const loaded = (await load()).command();
        return {
          name,
          summary,
          options: loaded.options.flatMap(({ hidden, long }) => (long && !hidden ? [long] : [])),
          words: loaded.commands.map((sub) => sub.name()),
        };
      }),
  );
}
