export const shells = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof shells)[number];

/** One command as a shell needs to know it. */
export type Completed = {
  readonly name: string;
  readonly summary: string;
  /** `--json` … */
  readonly options: readonly string[];
  /** Subcommands. */
  readonly words: readonly string[];
};

export function isShell(text: string): text is Shell {
  return (shells as readonly string[]).includes(text);
}

/** A script that completes command names, subcommands, options, and files where nothing else fits. */
export function completionScript(shell: Shell, commands: readonly Completed[]): string {
  return { bash, zsh, fish }[shell](commands);
}

function bash(commands: readonly Completed[]): string {
  const cases = commands.map(
    ({ name, options, words }) =>
      `    ${name}) words="${[...words, ...options, "--help"].join(" ")}" ;;`,
  );
  return `# bash completion of sallyport
_sallyport() {
  local current="\${COMP_WORDS[COMP_CWORD]}" words
  case "\${COMP_WORDS[1]}" in
${cases.join("\n")}
    *) words="" ;;
  esac
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="${[...commands.map(({ name }) => name), "--help", "--version"].join(" ")}"
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _sallyport sallyport
`;
}

function zsh(commands: readonly Completed[]): string {
  const names = commands.map(({ name, summary }) => `    ${quote(`${name}:${summary}`)}`);
  const cases = commands.map(
    ({ name, options, words }) =>
      `    ${name}) compadd -- ${[...words, ...options, "--help"].join(" ")}; _files ;;`,
  );
  return `#compdef sallyport
_sallyport() {
  local -a names
  names=(
${names.join("\n")}
  )
  if (( CURRENT == 2 )); then
    _describe command names
    return
  fi
  case "$words[2]" in
${cases.join("\n")}
    *) _files ;;
  esac
}
compdef _sallyport sallyport
`;
}

function fish(commands: readonly Completed[]): string {
  const lines = commands.flatMap(({ name, summary, options, words }) => [
    `complete -c sallyport -n __fish_use_subcommand -f -a ${name} -d ${quote(summary)}`,
    ...words.map(
      (word) => `complete -c sallyport -n "__fish_seen_subcommand_from ${name}" -a ${word}`,
    ),
    ...options.map(
      (option) =>
        `complete -c sallyport -n "__fish_seen_subcommand_from ${name}" -l ${option.slice(2)}`,
    ),
  ]);
  return `# fish completion of sallyport\n${lines.join("\n")}\n`;
}

/** Single quotes, for all three: nothing inside is expanded. */
function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
