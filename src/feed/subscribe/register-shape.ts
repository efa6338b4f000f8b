import { z } from "zod";
import { isName, isTrustDomain } from "../../model/principal.ts";
import type { Register } from "../../model/register.ts";

/**
 * The register as it travels. Fails closed on keys it does not know: a newer control plane may have put a condition there
 * that an older gate would ignore, and so let in whom it should not.
 */
const excuse = z.strictObject({ why: z.string(), expiresMs: z.number() });
const bind = z.strictObject({
  text: z.string(),
  host: z.string(),
  kind: z.enum(["address", "hostname", "network"]),
  port: z.int().min(0).max(65_535),
  unsafeBind: excuse.exactOptional(),
});
const door = z.strictObject({ binds: z.array(bind), from: z.array(z.string()) });
const name = z.string().refine(isName);
const duration = z.number().min(0);
// biome-ignore lint/suspicious/noThenProperty: the register says `staleAfter: { after, then }`, and a schema is never awaited
const staleAfter = z.strictObject({ afterMs: duration, then: z.enum(["warn", "refuse"]) });

const upstream = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("tcp"),
    host: z.string(),
    port: z.int().min(1).max(65_535),
  }),
  z.strictObject({ kind: z.literal("unix"), path: z.string() }),
]);

const port = z.strictObject({
  name,
  protocol: z.enum(["http", "grpc", "tcp"]),
  via: z.enum(["gate", "direct"]),
  exposure: z.string(),
  port: z.int().min(0).max(65_535).exactOptional(),
  upstreams: z.array(upstream),
  timeouts: z.strictObject({ connectMs: duration, responseHeadMs: duration, idleMs: duration }),
  plaintext: excuse.exactOptional(),
});

const rule = z.strictObject({
  id: z.string(),
  effect: z.enum(["allow", "deny"]),
  from: z.array(z.string()).min(1),
  ports: z.array(z.string()).min(1),
  methods: z.array(z.string()).exactOptional(),
  paths: z.array(z.string()).exactOptional(),
  limit: z
    .strictObject({
      count: z.number().positive(),
      perMs: z.number().positive(),
      burst: z.number().min(1),
    })
    .exactOptional(),
  expiresMs: z.number().exactOptional(),
  hours: z
    .strictObject({
      days: z.array(z.int().min(0).max(6)),
      startMinute: z.int().min(0).max(1_440),
      endMinute: z.int().min(0).max(1_440),
      zone: z.string(),
    })
    .exactOptional(),
  why: z.string().exactOptional(),
});

const service = z.strictObject({
  name,
  owner: z.string(),
  why: z.string().exactOptional(),
  hosts: z.array(z.string()),
  ports: z.record(name, port),
  allow: z.array(rule),
  deny: z.array(rule),
  audit: z.enum(["required", "bestEffort"]),
  graceMs: duration.exactOptional(),
  staleAfter: staleAfter.exactOptional(),
  accept: z.strictObject({
    encodedSlash: z.boolean(),
    underscoreHeaders: z.boolean(),
    userHeaders: z.boolean(),
  }),
});

const register = z.strictObject({
  version: z.literal(1),
  trustDomain: z.string().refine(isTrustDomain),
  networks: z.record(z.string(), z.array(z.string())),
  planes: z.strictObject({
    control: door,
    join: door,
    ops: door,
    data: door,
    decoys: z.array(bind),
  }),
  lifetimes: z.strictObject({ leafMs: duration.exactOptional() }),
  services: z.record(name, service),
});

export const registerShape: z.ZodType<Register> = register;

type Whole<T> = T extends readonly (infer One)[]
  ? readonly Whole<One>[]
  : T extends object
    ? { readonly [K in keyof T]-?: Whole<T[K]> }
    : T;
type Covers<T extends Whole<Register>> = T;
/**
 * Does not compile once the register has a member that is missing here: every snapshot that uses it would be refused.
 * @public nobody needs it by name
 */
export type RegisterIsCovered = Covers<Whole<z.infer<typeof register>>>;
