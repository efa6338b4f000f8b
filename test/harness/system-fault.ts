import { once } from "node:events";
import { until } from "./system-world.ts";

/** What a gate must be started with so that `faultInWorker` can reach it. */
export const faultEnv = { NODE_OPTIONS: "--inspect-port=0" } as const;

/**
 * Runs a statement in one worker thread of a running gate, through Node's own inspector (SIGUSR1 opens it on loopback), so
 * that the program under test needs no door for its tests. `said` is what the gate prints; `nth` counts workers from 0.
 */
export async function faultInWorker(
  gate: { readonly pid: number; readonly said: readonly string[] },
  nth: number,
  statement: string,
): Promise<void> {
  const address = () =>
    gate.said
      .map((line) => /Debugger listening on (ws:\S+)/.exec(line)?.[1])
      .filter((found) => found !== undefined)
      .at(-1);
  if (address() === undefined) process.kill(gate.pid, "SIGUSR1");
  await until("the inspector listens", () => address() !== undefined);
  const socket = new WebSocket(address() as string);
  await once(socket, "open");
  const sessions: { id: string; title: string }[] = [];
  socket.addEventListener("message", ({ data }) => {
    const { method, params } = JSON.parse(String(data));
    if (method === "NodeWorker.attachedToWorker")
      sessions.push({ id: params.sessionId, title: params.workerInfo.title });
  });
  socket.send(
    JSON.stringify({
      id: 1,
      method: "NodeWorker.enable",
      params: { waitForDebuggerOnStart: false },
    }),
  );
  await until("the workers are found", () => sessions.length > nth);
  const message = JSON.stringify({
    id: 1,
    method: "Runtime.evaluate",
    params: { expression: statement },
  });
  socket.send(
    JSON.stringify({
      id: 2,
      method: "NodeWorker.sendMessageToWorker",
      params: { sessionId: sessions[nth]?.id, message },
    }),
  );
  // Our going must not take the statement with it: the answer to it is awaited.
  await new Promise<void>((resolve) => {
    const onMessage = ({ data }: MessageEvent) => {
      const { id, method } = JSON.parse(String(data));
      if (id !== 2 && method !== "NodeWorker.receivedMessageFromWorker") return;
      socket.removeEventListener("message", onMessage);
      resolve();
    };
    socket.addEventListener("message", onMessage);
  });
  socket.close();
}
