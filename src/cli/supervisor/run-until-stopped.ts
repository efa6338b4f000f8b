import type { Running } from "../../base/lifecycle.ts";
import type { Log } from "../../base/log.ts";
import { Exit } from "../exit.ts";
import type { Supervisor } from "./start-supervisor.ts";

/**
 * Stays until everything has stopped. Calls `whenUp` once all children are ready; what it returns is closed at the end, and
 * `stop` ends everything without a signal. The first SIGINT, SIGTERM or SIGHUP drains, a SIGINT after it kills. Leaves no
 * handler behind. Throws `Exit` when a child will never be ready.
 */
export async function runUntilStopped(
  supervisor: Supervisor,
  log: Log,
  whenUp: (stop: () => void) => Running | undefined = () => undefined,
): Promise<void> {
  const { promise: asked, resolve: stop } = Promise.withResolvers<undefined>();
  const end = (): void => stop(undefined);
  let signals = 0;
  const onSignal = (signal: NodeJS.Signals): void => {
    signals++;
    if (signals === 1) log.info({ signal }, "draining; Ctrl-C ends everything at once");
    else if (signal === "SIGINT") supervisor.kill();
    end();
  };
  const watched = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const signal of watched) process.on(signal, onSignal);
  let beside: Running | undefined;
  try {
    const failure = await Promise.race([
      asked,
      supervisor.ready.then(
        () => undefined,
        (cause: Error) => cause,
      ),
    ]);
    if (failure) throw new Exit(2, failure.message);
    if (signals > 0) return;
    beside = whenUp(end);
    await asked;
  } finally {
    await beside?.close();
    await supervisor.close();
    for (const signal of watched) process.off(signal, onSignal);
  }
}
