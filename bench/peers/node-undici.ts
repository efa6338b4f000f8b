import { join } from "node:path";
import { countLines } from "../count-lines.ts";
import type { Assignment, Peer } from "../job.ts";
import { cores, end, forkModule, pin, versionOf } from "../processes.ts";

/** What someone would write in an afternoon: `node:https` before undici's pool, in a process of its own. */
export async function startNodeUndici(given: Assignment): Promise<Peer> {
  const logFile = join(given.dir, "access.txt");
  const { child, first } = await forkModule<{ port: number; undici: string }>(
    "./peers/node-undici-proxy.ts",
    { ...given, logFile },
  );
  const pid = child.pid ?? 0;
  pin(pid, cores.proxy);
  return {
    name: "node:https + undici",
    version: `${versionOf(process.execPath, ["-v"], /v(\S+)/)} + ${first.undici}`,
    pid,
    port: first.port,
    logLines: () => countLines([logFile]),
    close: () => end(child),
  };
}
