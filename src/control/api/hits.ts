import { z } from "@hono/zod-openapi";
import { type HitFilter, hitsByDefault } from "../../model/hit-filter.ts";
import { type ApiWorld, addOperation, type ControlApp } from "./operation.ts";

const instant = z.coerce.number().min(0).max(Number.MAX_SAFE_INTEGER);
const word = (max: number) => z.string().min(1).max(max);

const queryShape = z.object({
  id: word(256).optional(),
  sinceMs: instant.optional(),
  untilMs: instant.optional(),
  plane: z.enum(["data", "control", "join", "decoy"]).optional(),
  kind: z.enum(["request", "connection", "action", "close", "process", "sum"]).optional(),
  decision: z.enum(["allowed", "refused", "fault"]).optional(),
  code: word(64).optional(),
  caller: word(128).optional(),
  service: word(64).optional(),
  peer: word(64).optional(),
  rule: word(128).optional(),
  path: word(1_024).optional(),
  limit: z.coerce.number().int().min(1).max(10_000).default(hitsByDefault),
});

const hitShape = z
  .looseObject({ id: z.string(), at: z.number() })
  .describe("A line of the hit log, with whatever fields apply to it")
  .openapi("Hit");

/** The hit logs of control and of every gate that can be asked, as one. */
export function addHits(app: ControlApp, { needs }: ApiWorld): void {
  addOperation(
    app,
    "GET /v1/hits",
    {
      summary: "Hits, the newest first",
      query: queryShape,
      answer: z.object({
        hits: z.array(hitShape),
        absent: z.array(z.string()).describe("Gates that could not be asked"),
      }),
    },
    async ({ query }) => await needs.queryHits(dropUndefined(query)),
  );
  addOperation(
    app,
    "GET /v1/hits/verify",
    {
      summary:
        "Walks every chain of hits, here and at the gates, against heads that were kept elsewhere",
      answer: z.object({
        ok: z.boolean().describe("Says nothing of the gates in `absent`"),
        chains: z.array(
          z.object({
            chain: z.string(),
            gate: z.string().optional(),
            ok: z.boolean(),
            writer: z.string().optional(),
            kind: z.string().optional(),
            lines: z.number(),
            first: z.number(),
            last: z.number(),
            lost: z.number(),
            torn: z.number(),
            pruned: z.boolean(),
          }),
        ),
        problems: z.array(
          z.object({
            kind: z.string().describe("`changed`, `removed`, `cut`, `missing`, `recomputed` …"),
            chain: z.string(),
            gate: z.string().optional(),
            file: z.string().optional(),
            line: z.number().optional(),
            says: z.string(),
          }),
        ),
        absent: z.array(z.string()).describe("Gates that could not be asked"),
      }),
    },
    () => needs.verifyHits(),
  );
}

function dropUndefined(query: z.output<typeof queryShape>): HitFilter {
  return Object.fromEntries(
    Object.entries(query).filter(([, value]) => value !== undefined),
  ) as HitFilter;
}
