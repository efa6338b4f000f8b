import { z } from "@hono/zod-openapi";
import { snapshotName } from "../../model/snapshot.ts";
import { ControlRefusal } from "../refusals.ts";
import { Answer, type ApiWorld, addOperation, type ControlApp } from "./operation.ts";
import { appliedShape, changeShape, problemShape, waitShape } from "./shapes.ts";

const filesShape = z
  .strictObject({
    files: z
      .array(z.strictObject({ name: z.string().min(1).max(255), text: z.string() }))
      .min(1)
      .max(256)
      .describe("The main file first, then those of sallyport.d/"),
  })
  .openapi("RegisterFiles");

/** The register that stands: read, compare, replace. */
export function addRegister(app: ControlApp, { registry }: ApiWorld): void {
  addOperation(
    app,
    "GET /v1/register",
    {
      summary: "The register that stands",
      description: "The ETag is what If-Match of PUT wants.",
      answer: z.object({
        snapshot: z.string(),
        author: z.string(),
        at: z.number(),
        digest: z.string(),
        register: z.record(z.string(), z.unknown()),
      }),
    },
    async () => {
      const snapshot = registry.current()?.snapshot;
      if (!snapshot)
        throw new ControlRefusal("no_register", undefined, {
          hint: "sallyport apply makes the first",
        });
      const { author, at, digest, register } = snapshot;
      return new Answer(
        { snapshot: snapshotName(snapshot), author, at, digest, register },
        { headers: { ETag: `"${digest}"` } },
      );
    },
  );
  addOperation(
    app,
    "POST /v1/register/diff",
    {
      summary: "What applying these files would change, and what is wrong with them",
      body: filesShape,
      answer: z.object({
        against: z.string(),
        digest: z.string().optional(),
        changes: z.array(changeShape),
        problems: z.array(problemShape),
      }),
    },
    ({ body }) => registry.compare(body.files),
  );
  addOperation(
    app,
    "PUT /v1/register",
    {
      summary: "Replaces the register, if nobody else did in between",
      description:
        'Needs If-Match with the ETag of the register that was looked at (`"none"` before the first), or force=true.',
      headers: z.object({ "if-match": z.string().max(256).optional() }),
      query: z.object({
        force: z.enum(["true", "false"]).default("false"),
        dryRun: z.enum(["true", "false"]).default("false"),
        waitMs: waitShape,
      }),
      body: filesShape,
      answer: appliedShape,
    },
    async ({ body, headers, query }, call) => {
      const ifMatch = headers["if-match"];
      const isForced = query.force === "true";
      const isDry = query.dryRun === "true";
      const applied = await registry.apply({
        files: body.files,
        author: call,
        ...(ifMatch !== undefined && { ifMatch: unquoted(ifMatch) }),
        force: isForced,
        dryRun: isDry,
        waitMs: query.waitMs,
      });
      call.detail = [
        applied.snapshot ?? "none",
        `${applied.changes.length} changes`,
        isDry && "dry run",
        isForced && "forced",
      ]
        .filter(Boolean)
        .join(", ");
      return applied;
    },
  );
}

/** One strong ETag. A list, a weak one or `*` matches nothing here: it would not say which register was looked at. */
function unquoted(etag: string): string {
  const match = /^"([0-9a-z]{1,64})"$/.exec(etag.trim());
  if (!match?.[1])
    throw new ControlRefusal("bad_request", "If-Match must be one quoted ETag, as GET gave it");
  return match[1];
}
