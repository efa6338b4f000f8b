import { lstatSync } from "node:fs";
import { resolve } from "node:path";
import { Command } from "commander";
import { isName } from "../../model/principal.ts";
import { Exit } from "../exit.ts";
import { holdState } from "../hold-state.ts";
import { needNode24 } from "../need-node.ts";
import { codeDirIn, onlyGateIn, openState, statePath } from "../open-state.ts";
import { output } from "../output.ts";
import { programLog } from "../program-log.ts";
import { readDrainMs } from "../settings.ts";
import { givenDescriptors } from "../supervisor/given-descriptors.ts";
import { runUntilStopped } from "../supervisor/run-until-stopped.ts";
import { startSupervisor } from "../supervisor/start-supervisor.ts";

type Options = {
  readonly state?: string;
  readonly name?: string;
  readonly joinTokenFile?: string;
  readonly join?: readonly string[];
  readonly json?: boolean;
};

/** `sallyport gate`: one gate, whose control plane is elsewhere. */
export function command(): Command {
  return new Command("gate")
    .description("run one gate; its control plane is elsewhere")
    .option(
      "--name <name>",
      "the gate's name, as its token has it (default: the one in the state directory)",
    )
    .option(
      "--join-token-file <file>",
      "the token of the first start, from: sallyport token create --gate NAME",
    )
    .option("--state <dir>", "where its keys, snapshot and hit log lie (default: .sallyport)")
    .option("--join <host:port...>", "join doors to use instead of the one in the token")
    .option("--json", "print the doors as JSON")
    .addHelpText(
      "after",
      `
Examples:
  sallyport gate --name east --join-token-file east.token --state /var/lib/sallyport
  sallyport gate --state /var/lib/sallyport
Exit code: 0 stopped when asked to, 2 it could not start.`,
    )
    .action(run);
}

async function run(options: Options): Promise<void> {
  needNode24("gate");
  const drainMs = readDrainMs();
  const path = statePath(options.state, process.cwd());
  const name = options.name ?? onlyGateIn(path);
  if (name === undefined)
    throw new Exit(2, `no gate has been in ${path}, or more than one`, "say which: --name NAME");
  if (!isName(name))
    throw new Exit(2, `"${name}" cannot name a gate`, "1 to 63 of a-z, 0-9 and inner hyphens");
  const tokenFile = options.joinTokenFile && checkTokenFile(options.joinTokenFile);
  const stateDir = openState(path);
  holdState(stateDir, [`gate-${name}`]);
  const log = programLog();
  const supervisor = startSupervisor({
    log,
    drainMs,
    codeDir: codeDirIn(stateDir),
    given: givenDescriptors(process.env, process.pid),
    children: [
      {
        name,
        root: "gate",
        config: {
          stateDir,
          name,
          apart: true,
          ...(options.join && { join: options.join }),
          ...(tokenFile && { tokenFile }),
        },
      },
    ],
    onReady: (_, doors) => {
      if (options.json) output.json({ gate: name, doors, state: stateDir });
      else for (const [door, at] of Object.entries(doors)) output.note(`${door} is open on ${at}`);
    },
  });
  await runUntilStopped(supervisor, log);
}

/** A token that others can read may have been spent by them. Fails closed. */
function checkTokenFile(path: string): string {
  const file = resolve(path);
  const found = lstatSync(file, { throwIfNoEntry: false });
  if (!found)
    throw new Exit(
      2,
      `there is no file ${path}`,
      "make one with: sallyport token create --gate NAME",
    );
  if (process.getuid && (found.mode & 0o077) !== 0 && !file.startsWith("/run/secrets/"))
    throw new Exit(
      2,
      `${path} can be read by others`,
      `make a new token, and first: chmod 600 ${path}`,
    );
  return file;
}
