import { z } from "@hono/zod-openapi";
import type { Plane } from "../../model/principal.ts";
import type { AuthorityStatus } from "../needs.ts";
import { ControlRefusal } from "../refusals.ts";
import { type ApiWorld, addOperation, type ControlApp } from "./operation.ts";
import { authorityShape } from "./shapes.ts";

const answer = z.object({ authorities: z.array(authorityShape) });

/** The two certificate authorities and the three steps of their rotation. */
export function addAuthorities(app: ControlApp, { needs }: ApiWorld): void {
  addOperation(
    app,
    "GET /v1/authorities",
    { summary: "Both certificate authorities and where their rotation stands", answer },
    async () => ({ authorities: needs.authorities.status() }),
  );
  addOperation(
    app,
    "POST /v1/authorities/rotate",
    {
      summary: "Takes one step of a rotation: prepare, activate, retire",
      body: z
        .strictObject({
          step: z.enum(["prepare", "activate", "retire"]),
          plane: z.enum(["control", "data", "both"]).default("both"),
          force: z.boolean().default(false).describe("Excuses `too_early`"),
        })
        .openapi("RotationRequest"),
      answer,
    },
    async ({ body }, call) => {
      call.detail = `${body.step} ${body.plane}${body.force ? " forced" : ""}`;
      const planes: readonly Plane[] = body.plane === "both" ? ["control", "data"] : [body.plane];
      const authorities: AuthorityStatus[] = [];
      for (const plane of planes) {
        try {
          authorities.push(await needs.authorities.rotate(plane, body.step, { force: body.force }));
        } catch (cause) {
          const { code, message } = cause as { code?: string; message: string };
          if (code !== "wrong_step" && code !== "too_early") throw cause;
          const done = authorities.map((one) => `${one.plane} has taken the step`).join("");
          throw new ControlRefusal("refused_step", `${plane}: ${message}`, {
            hint: `${done ? `${done}; ` : ""}${code === "too_early" ? "wait, or --force" : "sallyport ca status says where each plane stands"}`,
          });
        }
      }
      return { authorities };
    },
  );
}
