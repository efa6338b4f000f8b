import { z } from "@hono/zod-openapi";
import { snapshotName } from "../../model/snapshot.ts";
import { ControlRefusal } from "../refusals.ts";
import { type ApiWorld, addOperation, type ControlApp } from "./operation.ts";
import { appliedShape, headShape, revocationShape, waitShape } from "./shapes.ts";

const versionShape = z.object({ version: z.coerce.number().int().min(1) });
const epochShape = z.coerce.number().int().min(1).optional().describe("Default: the newest");

/** Every version of the register, and the way back to one. */
export function addSnapshots(app: ControlApp, { registry, store }: ApiWorld): void {
  addOperation(
    app,
    "GET /v1/snapshots",
    {
      summary: "The versions, the newest first",
      query: z.object({ limit: z.coerce.number().int().min(1).max(500).default(50) }),
      answer: z.object({ snapshots: z.array(headShape) }),
    },
    async ({ query }) => ({ snapshots: await registry.history(query.limit) }),
  );
  addOperation(
    app,
    "GET /v1/snapshots/{version}",
    {
      summary: "One version, whole",
      params: versionShape,
      query: z.object({ epoch: epochShape }),
      answer: z.object({
        epoch: z.number(),
        version: z.number(),
        author: z.string(),
        at: z.number(),
        digest: z.string(),
        register: z.record(z.string(), z.unknown()),
        revocations: z.array(revocationShape),
      }),
    },
    async ({ params, query }) => {
      const found = await store.findSnapshot(params.version, query.epoch);
      if (!found)
        throw new ControlRefusal("not_found", `there is no version ${params.version}`, {
          hint: "sallyport history lists the versions that are kept",
        });
      return found.snapshot;
    },
  );
  addOperation(
    app,
    "POST /v1/snapshots/{version}/rollback",
    {
      summary: "Publishes an older register as a new version, with the revocations of today",
      params: versionShape,
      query: z.object({ epoch: epochShape, waitMs: waitShape }),
      answer: appliedShape,
    },
    async ({ params, query }, call) => {
      call.detail = `to version ${params.version}`;
      const applied = await registry.rollback({
        version: params.version,
        ...(query.epoch !== undefined && { epoch: query.epoch }),
        author: call,
        waitMs: query.waitMs,
      });
      const { snapshot } = registry.current() ?? {};
      call.detail = `to version ${params.version} as ${snapshot ? snapshotName(snapshot) : "none"}`;
      return applied;
    },
  );
}
