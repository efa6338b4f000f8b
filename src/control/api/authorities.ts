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
      answer: answer.extend({
        behind: z
          .array(z.string())
          .describe("Gates that did not follow in time, or are away: they may have to join again"),
      }),
    },
    async ({ body }, call) => {
      call.detail = `${body.step} ${body.plane}${body.force ? " forced" : ""}`;
      const planes: readonly Plane[] = body.plane === "both" ? ["control", "data"] : [body.plane];
      try {
        const { authorities, behind } = await needs.authorities.rotate(planes, body.step, {
          force: body.force,
        });
        if (behind.length > 0) call.detail += `, without ${behind.join(" ")}`.slice(0, 256);
        return { authorities: [...authorities], behind: [...behind] };
      } catch (cause) {
        const { code, message, taken } = cause as {
          code?: string;
          message: string;
          taken?: readonly AuthorityStatus[];
        };
        if (code !== "wrong_step" && code !== "too_early") throw cause;
        const done = (taken ?? []).map(({ plane }) => `${plane} has taken the step`).join("");
        throw new ControlRefusal("refused_step", message, {
          hint: `${done ? `${done}; ` : ""}${code === "too_early" ? "wait, or --force" : "sallyport ca status says where each plane stands"}`,
        });
      }
    },
  );
}
