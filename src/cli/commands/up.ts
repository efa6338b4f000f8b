import { existsSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { Command } from "commander";
import { applyFiles } from "../apply-files.ts";
import { Exit } from "../exit.ts";
import { holdState } from "../hold-state.ts";
import { loadRegister, readRegister } from "../load-register.ts";
import { needNode24 } from "../need-node.ts";
import { openState, statePath } from "../open-state.ts";
import { output, table } from "../output.ts";
import { printProblems } from "../print-problems.ts";
import { programLog } from "../program-log.ts";
import { readDrainMs } from "../settings.ts";
import { givenDescriptors } from "../supervisor/given-descriptors.ts";
import type { Doors } from "../supervisor/messages.ts";
import { runUntilStopped } from "../supervisor/run-until-stopped.ts";
import { controlName, gateName, startHere } from "../supervisor/start-here.ts";
import { registerMark, watchRegister } from "../supervisor/watch-register.ts";

type Options = {
  readonly state?: string;
  readonly demo?: boolean;
  readonly once?: boolean;
  readonly json?: boolean;
  readonly watch: boolean;
};

/** `sallyport up`: control and one gate on this machine, until Ctrl-C. */
export function command(): Command {
  return new Command("up")
    .description("run a control plane and a gate on this machine, from a register")
    .argument("[file]", "the register (default: sallyport.yaml here or above)")
    .option(
      "--state <dir>",
      "where keys, the store and the hit log lie (default: .sallyport beside the register)",
    )
    .option("--no-watch", "do not apply the register when it is saved")
    .option("--once", "stop as soon as everything is up; with --demo, after the proof")
    .option("--json", "print the doors, or the demo's proof, as JSON")
    .option("--demo", "no register needed: three small services, and a proof that the gate holds")
    .addHelpText(
      "after",
      `
Examples:
  sallyport up
  sallyport up shop.yaml --state /var/lib/sallyport
  sallyport up --demo
  sallyport up --demo --once --json
Exit code: 0 stopped when asked to, 1 the demo's proof did not hold, 2 it could not start.`,
    )
    .action(run);
}

async function run(file: string | undefined, options: Options): Promise<void> {
  needNode24("up");
  if (options.demo) {
    if (file !== undefined)
      throw new Exit(
        2,
        "the demo brings its own register",
        `leave out ${file}, or leave out --demo`,
      );
    const { runDemo } = await import("../demo/run.ts");
    const { once = false, json = false } = options;
    process.exitCode = await runDemo({ once, json });
    return;
  }
  const drainMs = readDrainMs();
  const { path } = await loadRegister(file);
  // Before it is read for use: what is saved while everything starts is applied then.
  const mark = registerMark(path);
  const first = await loadRegister(path);
  printProblems(first.problems);
  const stateDir = openState(statePath(options.state, dirname(first.path)));
  holdState(stateDir, [controlName, `gate-${gateName}`]);
  const adminDir = join(stateDir, "admin");
  const log = programLog();
  const supervisor = startHere({
    stateDir,
    files: first.files,
    drainMs,
    log,
    given: givenDescriptors(process.env, process.pid),
  });
  await runUntilStopped(supervisor, log, (stop) => {
    if (options.json) output.json({ doors: supervisor.doors(), state: stateDir, admin: adminDir });
    else printPicture(supervisor.doors(), stateDir, first.path, options);
    if (options.once) stop();
    else if (options.watch) return watchRegister(path, mark, () => applySaved(path, adminDir));
    return undefined;
  });
}

/** Problems are printed, and what stood before goes on standing: a slip of the editor must not stop anybody's work. */
async function applySaved(path: string, adminDir: string): Promise<void> {
  try {
    if (!existsSync(path))
      return output.note(`${shorten(path)} is gone; what was applied last stays`);
    const saved = await readRegister(path);
    printProblems(saved.problems);
    if (!saved.register) return output.note("not applied: what was applied last stays");
    const answer = await applyFiles(adminDir, saved.files);
    if (answer.refused === undefined) {
      if (answer.published === undefined) return output.note("saved, and nothing in it changed");
      return output.note(
        `applied: ${answer.changes} change${answer.changes === 1 ? "" : "s"}, snapshot ${answer.published}`,
      );
    }
    printProblems(answer.problems);
    output.note(`not applied: ${answer.refused}; what was applied last stays`);
  } catch (cause) {
    output.note(`not applied: ${(cause as Error).message}; save again to try again`);
  }
}

function printPicture(
  doors: Readonly<Record<string, Doors>>,
  stateDir: string,
  path: string,
  options: Options,
): void {
  const says: Readonly<Record<string, string>> = {
    control: "administrators and automation",
    join: "enrol, renew, feed, discover",
    data: "services call here, with their certificates",
    ops: "/live /ready /metrics",
  };
  const open = { ...doors[controlName], ...doors[gateName] };
  const rows = Object.entries(open).map(([name, at]) => [
    `  ${name}`,
    output.paint("bold", at),
    says[name] ?? (name.startsWith("decoy") ? "decoy: any touch is a warning" : ""),
  ]);
  for (const name of Object.keys(says))
    if (!Object.keys(open).some((each) => each.startsWith(name)))
      rows.push([`  ${name}`, output.paint("red", "not open"), "why not stands above"]);
  output.line(`sallyport is up, with its state in ${shorten(stateDir)}`);
  output.line(table(rows));
  output.line();
  output.line("next, in another terminal:");
  output.line("  sallyport status");
  output.line("  sallyport token create --service NAME --out NAME.token");
  output.line("  sallyport enroll --token-file NAME.token --out NAME");
  output.line("  sallyport hits --follow");
  if (options.once) return;
  output.line(`${options.watch ? `Saving ${shorten(path)} applies it. ` : ""}Ctrl-C stops.`);
}

function shorten(path: string): string {
  const near = relative(process.cwd(), path);
  return near !== "" && !near.startsWith("..") ? near : path;
}
