import assert from "node:assert/strict";
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";

/**
 * Types what a page of the docs says into real shells, and fails where it does not say what comes. The rules for pages:
 * - "```sh" is typed as it stands, one terminal for the whole page; "```sh NAME" into another terminal, and nobody waits for its end.
 * - "```text" is what that terminal then shows (or "```text NAME", that one): each line has to come, as part of what
 *   is shown; processes may say theirs in any order. Runs of blanks count as one.
 * - A command that ends non-zero fails the page, unless it says "|| true".
 * - "```sh NAME stop" is Ctrl-C there, and waits until everything has ended. Every other kind of block is for readers only.
 */
export async function followPage(path: string, env: NodeJS.ProcessEnv): Promise<void> {
  const scratch = mkdtempSync(join(tmpdir(), "sallyport-page-"));
  const terminals = new Map<string, Terminal>();
  const terminal = (name: string): Terminal => {
    const found = terminals.get(name) ?? new Terminal(scratch, env);
    terminals.set(name, found);
    return found;
  };
  let last: Terminal | undefined;
  try {
    for (const { kind, name, isStop, text, line } of blocksOf(readFileSync(path, "utf8"))) {
      const where = `${path}:${line}`;
      const here: Terminal = kind === "text" && name === "" && last ? last : terminal(name);
      last = here;
      if (kind === "text") await here.shows(text.split("\n"), where);
      else if (isStop) await here.stop(where);
      else await here.type(text, where, name === "");
    }
  } finally {
    for (const each of terminals.values()) each.kill();
    rmSync(scratch, { recursive: true, force: true });
  }
}

type Block = { kind: "sh" | "text"; name: string; isStop: boolean; text: string; line: number };

function blocksOf(page: string): Block[] {
  return [...page.matchAll(/^```(sh|text)(?: (\w+))?(?: (stop))?\n([\s\S]*?)^```$/gm)].map(
    ({ 1: kind, 2: name = "", 3: stop, 4: text = "", index }) => ({
      kind: kind as Block["kind"],
      name,
      isStop: stop !== undefined,
      text: text.trimEnd(),
      line: page.slice(0, index).split("\n").length,
    }),
  );
}

const patienceMs = 20_000;

/** A shell without a window. */
class Terminal {
  readonly #shell: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #scratch: string;
  #said = "";
  #seen = 0;
  #typed = 0;

  constructor(scratch: string, env: NodeJS.ProcessEnv) {
    this.#scratch = scratch;
    this.#shell = spawn("bash", ["--noprofile", "--norc"], {
      cwd: env.HOME,
      env,
      stdio: ["pipe", "pipe", "pipe"],
    });
    for (const stream of [this.#shell.stdout, this.#shell.stderr])
      stream.setEncoding("utf8").on("data", (piece: string) => {
        this.#said += piece;
      });
    this.#shell.stdin.write(`trap 'echo "<failed: $BASH_COMMAND>"' ERR\n`);
  }

  async type(text: string, where: string, waits: boolean): Promise<void> {
    this.#seen = this.#said.length;
    const file = join(this.#scratch, `${this.#shell.pid}-${++this.#typed}.sh`);
    writeFileSync(file, `${text}\n`);
    this.#shell.stdin.write(`. ${file} </dev/null; echo "<ended ${this.#typed}>"\n`);
    if (waits) await this.#ended(where);
  }

  async shows(lines: readonly string[], where: string): Promise<void> {
    for (const line of lines) {
      const wanted = blanksAsOne(line.trim());
      await this.#until(where, `"${wanted}" has to come`, () =>
        blanksAsOne(this.#said.slice(this.#seen)).includes(wanted),
      );
    }
    this.#seen = this.#said.length;
  }

  async stop(where: string): Promise<void> {
    const { pid } = this.#shell;
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ");
    for (const child of children) process.kill(Number(child), "SIGINT");
    await this.#ended(where);
  }

  async #ended(where: string): Promise<void> {
    await this.#until(where, "this has to end", () =>
      this.#said.includes(`<ended ${this.#typed}>`),
    );
    assert.doesNotMatch(this.#said, /<failed: /, `${where}: a command failed:\n${this.#said}`);
  }

  async #until(where: string, what: string, isSo: () => boolean): Promise<void> {
    const deadline = performance.now() + patienceMs;
    while (!isSo()) {
      if (performance.now() > deadline)
        assert.fail(`${where}: ${what}; the terminal says:\n${this.#said.slice(-4_000)}`);
      await delay(20);
    }
  }

  kill(): void {
    this.#shell.kill("SIGKILL");
  }
}

function blanksAsOne(text: string): string {
  return text.replaceAll(/\s+/g, " ");
}

// Run as a program, this follows one page: node follow-page.ts PAGE.
if (import.meta.main) {
  const [page = ""] = process.argv.slice(2);
  await followPage(page, process.env);
}
