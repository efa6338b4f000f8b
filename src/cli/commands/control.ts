import { resolve } from "node:path";
import { Command } from "commander";
import { holdState } from "../hold-state.ts";
import { loadRegister } from "../load-register.ts";
import { needNode24 } from "../need-node.ts";
import { codeDirIn, openState, statePath } from "../open-state.ts";
import { output } from "../output.ts";
import { programLog } from "../program-log.ts";
import { readDrainMs } from "../settings.ts";
import { runUntilStopped } from "../supervisor/run-until-stopped.ts";
import { startSupervisor } from "../supervisor/start-supervisor.ts";

type Options = {
  readonly state?: string;
  readonly register?: string;
  readonly initAdmin?: string;
  readonly restore?: boolean;
  readonly json?: boolean;
};

/** `sallyport control`: the control plane alone; its gates are elsewhere. */
export function command(): Command {
  return new Command("control")
    .description("run the control plane alone; its gates are elsewhere")
    .option("--state <dir>", "where keys and the store lie (default: .sallyport)")
    .option(
      "--register <file>",
      "the register of the first start; later ones come by: sallyport apply",
    )
    .option(
      "--init-admin <file>",
      "write the first administrator's token to this file, once, on an empty store",
    )
    .option(
      "--restore",
      "the store was put back from a backup: begin a new epoch, which gates that saw more follow",
    )
    .option("--json", "print the doors as JSON")
    .addHelpText(
      "after",
      `
Examples:
  sallyport control --state /var/lib/sallyport --register sallyport.yaml --init-admin admin.token
  sallyport control --state /var/lib/sallyport
  sallyport control --state /var/lib/sallyport --restore
Exit code: 0 stopped when asked to, 2 it could not start.`,
    )
    .action(run);
}

async function run(options: Options): Promise<void> {
  needNode24("control");
  const drainMs = readDrainMs();
  const first = options.register === undefined ? undefined : await loadRegister(options.register);
  const stateDir = openState(statePath(options.state, process.cwd()));
  holdState(stateDir, ["control"]);
  const log = programLog();
  let isReady = false;
  const supervisor = startSupervisor({
    log,
    drainMs,
    codeDir: codeDirIn(stateDir),
    children: [
      {
        name: "control",
        root: "control",
        config: () => ({
          stateDir,
          registerFiles: isReady ? [] : (first?.files ?? []),
          apart: true,
          name: "control",
          ...(options.restore && !isReady && { restore: true }),
          ...(options.initAdmin && !isReady && { initAdminFile: resolve(options.initAdmin) }),
        }),
      },
    ],
    onReady: (_, doors) => {
      isReady = true;
      if (options.json) output.json({ doors, state: stateDir });
      else for (const [door, at] of Object.entries(doors)) output.note(`${door} is open on ${at}`);
    },
  });
  await runUntilStopped(supervisor, log);
}
