import { join } from "node:path";
import type { Log } from "../../base/log.ts";
import { codeDirIn } from "../open-state.ts";
import type { Given } from "./given-descriptors.ts";
import { type Supervisor, startSupervisor } from "./start-supervisor.ts";

export const controlName = "control";
export const gateName = "local";

/**
 * Control and one gate on this machine: what `up`, the demo and tests run. The gate's first token goes over the channel alone: an
 * argument, a variable or a file would be seen by others.
 */
export function startHere(options: {
  readonly stateDir: string;
  /** What control publishes when its store is empty. */
  readonly files: readonly { readonly name: string; readonly text: string }[];
  readonly drainMs: number;
  /** Addresses that a service manager has bound for us. */
  readonly given?: readonly Given[];
  readonly log: Log;
  /** Worker threads of the gate; by default one a core. */
  readonly workers?: number;
  /** Each line that control or the gate prints. Default: to standard error, after its name. */
  readonly onLine?: (name: string, line: string) => void;
}): Supervisor {
  const { stateDir, files, drainMs, log, workers, onLine } = options;
  let token: string | undefined;
  let isControlReady = false;
  const supervisor = startSupervisor({
    log,
    drainMs,
    codeDir: codeDirIn(stateDir),
    ...(options.given && { given: options.given }),
    ...(onLine && { onLine }),
    // Somebody is looking: a start that keeps failing should end and say so.
    firstTries: 4,
    children: [
      {
        name: controlName,
        root: "control",
        // Once it has taken the register, the store is the truth: a restart must not undo a rollback.
        config: () => ({
          stateDir,
          registerFiles: isControlReady ? [] : files,
          adminDir: join(stateDir, "admin"),
          apart: false,
          name: controlName,
          localGate: gateName,
        }),
      },
      {
        name: gateName,
        root: "gate",
        config: { stateDir, name: gateName, apart: false, ...(workers && { workers }) },
      },
    ],
    onStart: (name) => {
      if (name === gateName) handOverToken();
    },
    onReady: (name) => {
      if (name === controlName) isControlReady = true;
      else token = undefined; // it has an identity now
    },
    onMessage: (name, message) => {
      if (name !== controlName || message.kind !== "gate-token" || !("token" in message)) return;
      token = String(message.token);
      handOverToken();
    },
    onDeath: ({ restartMs: _, ...death }) => {
      if (death.name !== controlName) supervisor.send(controlName, { kind: "died", ...death });
    },
  });
  function handOverToken(): void {
    if (token !== undefined) supervisor.send(gateName, { kind: "token", token });
  }
  return supervisor;
}
