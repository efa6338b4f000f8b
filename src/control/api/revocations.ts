import { z } from "@hono/zod-openapi";
import { type ApiWorld, addOperation, type ControlApp } from "./operation.ts";
import { revocationShape, waitShape } from "./shapes.ts";

const serialForm = /^[0-9a-f]{1,40}$/;

const requestShape = z
  .union(
    [
      z.strictObject({ principal: z.string().max(128).describe("`service/web`") }),
      z.strictObject({
        serial: z
          .string()
          .regex(serialForm, "a serial is 1 to 40 lower-case hex digits, without colons")
          .describe("Lower-case hex; its whole line of renewals goes with it"),
        plane: z.enum(["data", "control"]).optional(),
      }),
    ],
    "name one of the two: principal or serial",
  )
  .openapi("RevocationRequest");

/** Who is no longer let in. */
export function addRevocations(app: ControlApp, { registry, store }: ApiWorld): void {
  addOperation(
    app,
    "GET /v1/revocations",
    {
      summary: "Every revocation, the oldest first",
      answer: z.object({ revocations: z.array(revocationShape) }),
    },
    async () => ({ revocations: await store.revocations() }),
  );
  addOperation(
    app,
    "POST /v1/revocations",
    {
      summary: "Revokes a principal, or one line of its certificates",
      description:
        "Connected gates cut what is open within one second of the answer; `missing` names those that have not confirmed.",
      query: z.object({ waitMs: waitShape.default(1_000) }),
      body: requestShape,
      answer: z.object({
        revocation: revocationShape,
        snapshot: z.string().optional(),
        tokens: z.number().describe("Enrolment tokens that could still be used, and are void now"),
        confirmed: z.array(z.string()),
        missing: z.array(z.string()),
      }),
    },
    async ({ body, query }, call) => {
      call.detail = "serial" in body ? `serial ${body.serial}` : body.principal;
      const target =
        "serial" in body
          ? { serial: body.serial, ...(body.plane && { plane: body.plane }) }
          : { principal: body.principal };
      return await registry.revoke({ ...target, author: call, waitMs: query.waitMs });
    },
  );
}
