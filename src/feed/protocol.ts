import { z } from "zod";
import type { ChainHead } from "../model/chain-head.ts";
import type { Hit } from "../model/hit.ts";
import type { HitFilter } from "../model/hit-filter.ts";
import type { Revocation, SignedSnapshot } from "../model/snapshot.ts";
import type { Warning } from "../model/warning.ts";
import type { HeldRoots, KeyAnnouncement, LogVerdict, Roots, Running } from "./needs.ts";

/**
 * What the two ends of a feed say to each other: one JSON object a line, UTF-8, `\n` at the end, both ways, after
 * `101 Switching Protocols`. The gate speaks first (`hello`). Every line is input from a stranger until it has been parsed here.
 */
export const feedProtocol = "sallyport-feed/1";

/** A line that is longer ends the connection. Down: a whole register travels in one line. */
export const lineBytesMax = { down: 64 * 1024 * 1024, up: 4 * 1024 * 1024 } as const;

/** A page of hits stays far below the line limit: a hit is at most about 4 KiB. */
export const hitsPerPageMax = 500;
export const hitsPerQueryMax = 10_000;
/** Of the newest chains: one chain is a worker's life. */
export const anchorsMax = 16_384;
/** Verdicts are cut to this many chains and problems; the broken ones are named first. */
export const verdictMax = { chains: 8_192, problems: 1_000 } as const;
/** Queries one gate answers at a time; more are answered with an empty last page. */
export const queriesMax = 16;
/** What a gate tells of itself in `status`, as JSON. */
export const countersCharactersMax = 65_536;

/** Control → gate. */
export type Down =
  | { readonly type: "snapshot"; readonly signed: SignedSnapshot }
  | { readonly type: "revoke"; readonly sequence: number; readonly revocation: Revocation }
  | { readonly type: "key"; readonly announcement: KeyAnnouncement }
  /** An authority has changed: the gate should ask for new leaves, and roots with them, before their time. */
  | { readonly type: "renew" }
  /** Who is trusted now. Goes ahead of what else waits, as a revocation does: it takes a retired root away. */
  | ({ readonly type: "roots" } & Roots)
  | { readonly type: "control-heads"; readonly heads: readonly ChainHead[] }
  /** The heads that the gate sent under this id, and all before them, are in control's store. */
  | { readonly type: "heads-kept"; readonly id: number }
  /** Asks for the first page; `hits.more` for each one after it; `hits.stop` says that no more are wanted. */
  | { readonly type: "hits.query"; readonly id: number; readonly filter: HitFilter }
  | { readonly type: "hits.more"; readonly id: number }
  | { readonly type: "hits.stop"; readonly id: number }
  /** Asks the gate to walk its whole hit log; `anchors` are heads of it that control kept. */
  | { readonly type: "verify"; readonly id: number; readonly anchors: readonly ChainHead[] }
  | { readonly type: "ping"; readonly sequence: number }
  /** Last words: why control closes. */
  | { readonly type: "bye"; readonly reason: ByeReason };

/** `replaced`: the same gate connected again. `expired`: its leaf ran out. `closing`: control shuts down, come back. */
export type ByeReason = "replaced" | "revoked" | "expired" | "closing" | "protocol" | "silent";

/** Gate → control. */
export type Up =
  | Hello
  | ({ readonly type: "ack" } & Running)
  /** The snapshot was refused whole. `running` is what the gate serves instead. */
  | {
      readonly type: "problem";
      readonly epoch: number | null;
      readonly version: number | null;
      readonly digest: string | null;
      readonly code: SnapshotProblem;
      readonly message: string;
      readonly running: Running | null;
    }
  | { readonly type: "revoked"; readonly sequence: number }
  /** By which roots every worker of the gate goes now: an answer to `roots`, and again when it changes. */
  | ({ readonly type: "roots" } & HeldRoots)
  /** `id`: the gate wants to be told when they are kept. */
  | { readonly type: "heads"; readonly heads: readonly ChainHead[]; readonly id?: number }
  | { readonly type: "warning"; readonly warning: Warning }
  | {
      readonly type: "hits.page";
      readonly id: number;
      readonly hits: readonly Hit[];
      /** No page follows. */
      readonly done: boolean;
      /** Why the log could not be read to the end. */
      readonly problem?: string;
    }
  /** One of the two: what was found, or why nothing could be. */
  | {
      readonly type: "verified";
      readonly id: number;
      readonly verdict?: LogVerdict;
      readonly problem?: string;
    }
  | {
      readonly type: "status";
      readonly addresses: readonly string[];
      readonly servedNames: readonly string[];
      readonly counters: Readonly<Record<string, unknown>>;
    }
  | { readonly type: "pong"; readonly sequence: number };

export type Hello = {
  readonly type: "hello";
  readonly protocol: typeof feedProtocol;
  /** The gate's name; must be that of its certificate. */
  readonly gate: string;
  /** Random for each start of the gate. */
  readonly boot: string;
  readonly versions: { readonly sallyport: string; readonly node: string };
  readonly running: Running | null;
  readonly addresses: readonly string[];
  readonly servedNames: readonly string[];
};

/** Why a snapshot was refused. */
export type SnapshotProblem =
  | "bad_signature"
  | "bad_shape"
  | "bad_digest"
  | "older"
  | "conflicting"
  | "not_served"
  | "not_saved";

/** A line that is not what this protocol says. The message never quotes the line: it may hold a register. */
export class BadMessage extends Error {}

/** One message as the line that carries it. */
export function encode(message: Down | Up): string {
  return `${JSON.stringify(message)}\n`;
}

/** Fails closed: throws a `BadMessage` on anything but one complete, known message without unknown keys. */
export function parseDown(line: string): Down {
  return parse(down, line);
}

/** Fails closed, as `parseDown`. */
export function parseUp(line: string): Up {
  return parse(up, line);
}

const text = (max: number) => z.string().max(max);
const count = z.int().min(0);
const instant = z.number().min(0).max(Number.MAX_SAFE_INTEGER);
const hex = z.string().regex(/^[0-9a-f]{1,128}$/);
const base64url = (max: number) =>
  z
    .string()
    .max(max)
    .regex(/^[A-Za-z0-9_-]+$/);

export const revocationShape: z.ZodType<Revocation> = z.strictObject({
  principal: z
    .string()
    .max(128)
    .regex(/^[a-z]+\/[a-z0-9-]+$/),
  serial: hex.exactOptional(),
  lineage: hex.exactOptional(),
  at: instant,
});

export const signedShape: z.ZodType<SignedSnapshot> = z.strictObject({
  payload: text(lineBytesMax.down),
  signature: base64url(128),
  key: base64url(128),
});

const chainName = z.string().regex(/^[a-z0-9._-]{1,128}$/i);
const head: z.ZodType<ChainHead> = z.strictObject({
  chain: chainName,
  sequence: count,
  head: hex,
});
const heads = z.array(head).max(1_024);

const runningShape: z.ZodType<Running> = z.strictObject({
  epoch: count,
  version: count,
  digest: hex,
});

const filter: z.ZodType<HitFilter> = z.strictObject({
  id: text(256).exactOptional(),
  sinceMs: instant.exactOptional(),
  untilMs: instant.exactOptional(),
  plane: z.enum(["data", "control", "join", "decoy"]).exactOptional(),
  kind: z.enum(["request", "connection", "action", "close", "process", "sum"]).exactOptional(),
  decision: z.enum(["allowed", "refused", "fault"]).exactOptional(),
  code: text(64).exactOptional(),
  caller: text(128).exactOptional(),
  service: text(64).exactOptional(),
  peer: text(64).exactOptional(),
  rule: text(128).exactOptional(),
  path: text(1_024).exactOptional(),
  limit: z.int().min(1).max(hitsPerQueryMax).exactOptional(),
});

export const announcementShape: z.ZodType<KeyAnnouncement> = z.strictObject({
  successor: base64url(1_024),
  by: base64url(128),
  signature: base64url(128),
});

// In the middle of a rotation there are two; a list without any would be a slip, and shut every door.
const fingerprint = z.string().regex(/^[A-Za-z0-9_-]{43}$/);
const planeRoots = z.strictObject({
  active: fingerprint,
  trusted: z.array(fingerprint).min(1).max(8),
});
const heldPlaneRoots = z.strictObject({
  trusted: z.array(fingerprint).max(8),
  leaf: fingerprint.nullable(),
});

const down: z.ZodType<Down> = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("snapshot"), signed: signedShape }),
  z.strictObject({ type: z.literal("revoke"), sequence: count, revocation: revocationShape }),
  z.strictObject({ type: z.literal("key"), announcement: announcementShape }),
  z.strictObject({ type: z.literal("renew") }),
  z.strictObject({ type: z.literal("roots"), control: planeRoots, data: planeRoots }),
  z.strictObject({ type: z.literal("control-heads"), heads }),
  z.strictObject({ type: z.literal("heads-kept"), id: count }),
  z.strictObject({ type: z.literal("hits.query"), id: count, filter }),
  z.strictObject({ type: z.literal("hits.more"), id: count }),
  z.strictObject({ type: z.literal("hits.stop"), id: count }),
  z.strictObject({
    type: z.literal("verify"),
    id: count,
    anchors: z.array(head).max(anchorsMax),
  }),
  z.strictObject({ type: z.literal("ping"), sequence: count }),
  z.strictObject({
    type: z.literal("bye"),
    reason: z.enum(["replaced", "revoked", "expired", "closing", "protocol", "silent"]),
  }),
]);

// What a gate says is shown to people and written to our log: no escape sequence of a gate that was taken over may reach a
// terminal, no line break pose as a line of ours, and no mark turn the order of letters around.
const shown = (max: number) =>
  text(max).transform((said) => said.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu, "?"));
const word = z.string().regex(/^[A-Za-z][A-Za-z0-9_.-]{0,127}$/);
const names = z.array(shown(256)).max(4_096);
const addresses = z.array(shown(300)).max(256);

// As deep as somebody would read, and no deeper: what nests a million times is read without harm and written with none.
const counted = (depth: number): z.ZodType => {
  const plain = z.union([z.number(), z.boolean(), z.null(), shown(2_048)]);
  if (depth === 0) return plain;
  return z.union([plain, z.array(counted(depth - 1)), z.record(shown(256), counted(depth - 1))]);
};
const counters = z
  .record(shown(128), counted(3))
  .refine((all) => JSON.stringify(all).length <= countersCharactersMax);

// A hit from a gate is only ever shown and merged by time, never decided on; a newer gate's extra fields may pass, but each
// value is a short text, a number or a truth value, so that nothing nested or huge hides in one.
const hit = z
  .record(word, z.union([shown(2_048), z.number(), z.boolean()]))
  .refine((fields) => typeof fields.id === "string" && typeof fields.at === "number")
  .transform((fields) => fields as unknown as Hit);

const warning: z.ZodType<Warning> = z.strictObject({
  id: shown(512),
  at: instant,
  detector: shown(64),
  severity: z.enum(["info", "warning", "critical"]),
  says: shown(4_096),
  hits: z.array(shown(256)).max(20),
  count,
  gate: shown(64).exactOptional(),
});

const verdict: z.ZodType<LogVerdict> = z.strictObject({
  ok: z.boolean(),
  chains: z
    .array(
      z.strictObject({
        chain: chainName,
        ok: z.boolean(),
        writer: shown(256).exactOptional(),
        kind: shown(64).exactOptional(),
        lines: count,
        first: count,
        last: count,
        lost: count,
        torn: count,
        pruned: z.boolean(),
      }),
    )
    .max(verdictMax.chains),
  problems: z
    .array(
      z.strictObject({
        kind: shown(64),
        chain: chainName,
        file: shown(300).exactOptional(),
        line: count.exactOptional(),
        says: shown(1_024),
      }),
    )
    .max(verdictMax.problems),
});

const up: z.ZodType<Up> = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("hello"),
    protocol: z.literal(feedProtocol),
    gate: z.string().regex(/^[a-z0-9-]{1,63}$/),
    boot: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/),
    versions: z.strictObject({ sallyport: shown(64), node: shown(64) }),
    running: runningShape.nullable(),
    addresses,
    servedNames: names,
  }),
  z.strictObject({ type: z.literal("ack"), epoch: count, version: count, digest: hex }),
  z.strictObject({
    type: z.literal("problem"),
    epoch: count.nullable(),
    version: count.nullable(),
    digest: hex.nullable(),
    code: z.enum([
      "bad_signature",
      "bad_shape",
      "bad_digest",
      "older",
      "conflicting",
      "not_served",
      "not_saved",
    ]),
    message: shown(4_096),
    running: runningShape.nullable(),
  }),
  z.strictObject({ type: z.literal("revoked"), sequence: count }),
  z.strictObject({ type: z.literal("roots"), control: heldPlaneRoots, data: heldPlaneRoots }),
  z.strictObject({ type: z.literal("heads"), heads, id: count.exactOptional() }),
  z.strictObject({ type: z.literal("warning"), warning }),
  z.strictObject({
    type: z.literal("hits.page"),
    id: count,
    hits: z.array(hit).max(hitsPerPageMax),
    done: z.boolean(),
    problem: shown(1_024).exactOptional(),
  }),
  z.strictObject({
    type: z.literal("verified"),
    id: count,
    verdict: verdict.exactOptional(),
    problem: shown(1_024).exactOptional(),
  }),
  z.strictObject({
    type: z.literal("status"),
    addresses,
    servedNames: names,
    counters,
  }),
  z.strictObject({ type: z.literal("pong"), sequence: count }),
]);

function parse<T>(shape: z.ZodType<T>, line: string): T {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw new BadMessage("a line of the feed is not JSON");
  }
  const result = shape.safeParse(value);
  if (result.success) return result.data;
  const where = result.error.issues[0]?.path.join(".").slice(0, 128) || "the message";
  throw new BadMessage(`a line of the feed is not a message of ${feedProtocol}: see ${where}`);
}
