import { z } from "@hono/zod-openapi";
import type { GateState } from "../needs.ts";
import type { SnapshotKey } from "../store/store.ts";
import { type ApiWorld, addOperation, type ControlApp } from "./operation.ts";
import { gateShape } from "./shapes.ts";

/** Running gates, and those that should be. */
export function addGates(app: ControlApp, world: ApiWorld): void {
  addOperation(
    app,
    "GET /v1/gates",
    {
      summary: "Every enrolled gate, connected or not",
      answer: z.object({ gates: z.array(gateShape) }),
    },
    async () => ({ gates: await listGates(world) }),
  );
}

/** What the feed knows, and for gates that have not come since control started, what they last said before. */
export async function listGates({
  needs,
  registry,
  store,
}: ApiWorld): Promise<z.input<typeof gateShape>[]> {
  const remembered = new Map((await store.gates()).map((gate) => [gate.name, gate]));
  const newest = registry.current()?.snapshot;
  return needs.feed.gates().map((live) => {
    const old = remembered.get(live.name);
    const gate: GateState =
      live.lastSeen === undefined && old ? { ...old, connected: live.connected } : live;
    return {
      ...gate,
      addresses: [...gate.addresses],
      servedNames: [...gate.servedNames],
      ...behindOf(gate, newest),
    };
  });
}

/** Versions are counted on over epochs, so their difference is how often something was published since. */
function behindOf(gate: GateState, newest: SnapshotKey | undefined): { behind?: number } {
  if (!gate.running || !newest) return {};
  return { behind: Math.max(0, newest.version - gate.running.version) };
}
