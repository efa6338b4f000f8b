import { z } from "@hono/zod-openapi";

/** The shapes that several nouns of the API share. */

const instant = z.number().describe("Epoch milliseconds");

export const problemShape = z
  .object({
    code: z.string(),
    severity: z.enum(["error", "warning", "time"]),
    message: z.string(),
    hint: z.string().optional(),
    file: z.string().optional(),
    line: z.number().optional(),
    column: z.number().optional(),
    path: z.string().optional(),
  })
  .openapi("Problem");

export const errorShape = z
  .object({
    error: z.object({
      code: z.string().describe("Stable"),
      says: z.string(),
      hint: z.string().optional().describe("What to do about it"),
      hit: z.string().optional().describe("Id of this request in the hit log"),
      problems: z.array(problemShape).optional(),
    }),
  })
  .openapi("Error");

export const changeShape = z
  .object({
    path: z.string(),
    kind: z.enum(["added", "removed", "changed"]),
    before: z.unknown().optional(),
    after: z.unknown().optional(),
  })
  .openapi("Change");

export const headShape = z
  .object({
    epoch: z.number(),
    version: z.number(),
    author: z.string(),
    at: instant,
    digest: z.string(),
    reason: z.string().describe("`apply`, `rollback 12`, `revoke service/web`, `restore`"),
  })
  .openapi("SnapshotHead");

export const appliedShape = z
  .object({
    published: z.boolean(),
    snapshot: z.string().optional().describe("What stands now, `epoch.version`"),
    against: z.string().describe("Digest of what stood before; `none`"),
    digest: z.string().optional(),
    changes: z.array(changeShape),
    problems: z.array(problemShape),
    confirmed: z.array(z.string()).describe("Gates that serve by it"),
    missing: z.array(z.string()).describe("Enrolled gates that have not said so in time"),
  })
  .openapi("Applied");

export const revocationShape = z
  .object({
    principal: z.string(),
    serial: z.string().optional(),
    lineage: z.string().optional(),
    at: instant,
  })
  .openapi("Revocation");

export const gateShape = z
  .object({
    name: z.string(),
    connected: z.boolean(),
    connectedSince: instant.optional(),
    lastSeen: instant.optional(),
    address: z.string().optional(),
    versions: z.object({ sallyport: z.string(), node: z.string() }).optional(),
    running: z
      .object({ epoch: z.number(), version: z.number(), digest: z.string() })
      .nullable()
      .describe("The snapshot it serves by"),
    runningSince: instant.optional(),
    behind: z.number().optional().describe("Versions between the newest and the one it serves by"),
    problem: z
      .object({
        at: instant,
        code: z.string(),
        message: z.string(),
        epoch: z.number().nullable(),
        version: z.number().nullable(),
      })
      .optional(),
    addresses: z.array(z.string()),
    servedNames: z.array(z.string()),
    counters: z.record(z.string(), z.unknown()),
  })
  .openapi("Gate");

export const warningShape = z
  .object({
    id: z.string(),
    at: instant,
    detector: z.string(),
    severity: z.enum(["info", "warning", "critical"]),
    says: z.string(),
    hits: z.array(z.string()),
    count: z.number(),
    gate: z.string().optional(),
  })
  .openapi("Warning");

export const tokenShape = z
  .object({
    id: z.string().describe("First 16 characters of the hash of its secret"),
    principal: z.string().describe("Short form, `service/web`"),
    role: z.enum(["admin", "deployer", "enroller", "auditor"]).optional(),
    createdBy: z.string(),
    createdMs: instant,
    expiresMs: instant,
    from: z.array(z.string()),
    spentMs: instant.optional(),
  })
  .openapi("Token");

const rootShape = z.object({
  id: z.string(),
  fingerprint: z.string().describe("SHA-256 of the SPKI, base64url"),
  createdMs: instant,
  notAfterMs: instant,
});

export const authorityShape = z
  .object({
    plane: z.enum(["control", "data"]),
    step: z.enum(["steady", "prepared", "activated"]),
    active: rootShape,
    next: rootShape.optional(),
    previous: rootShape.optional(),
    readyAtMs: instant.optional(),
  })
  .openapi("Authority");

const waitSays = "whole milliseconds, from 0 to 30000";

export const waitShape = z.coerce
  .number(waitSays)
  .int(waitSays)
  .min(0, waitSays)
  .max(30_000, waitSays)
  .default(0)
  .describe("How long to wait for gates to confirm, ms");

export const nameShape = z
  .string()
  .regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, "1 to 63 of a-z, 0-9 and inner hyphens");
