import { createHash } from "node:crypto";
import { z } from "zod";
import { verifySnapshot } from "../../base/signature.ts";
import type { Revocation, SignedSnapshot, Snapshot } from "../../model/snapshot.ts";
import { isNewer, snapshotName } from "../../model/snapshot.ts";
import type { Running } from "../needs.ts";
import { revocationShape, type SnapshotProblem } from "../protocol.ts";
import { registerShape } from "./register-shape.ts";

/**
 * Whether a snapshot may be served here. Fails closed: refused whole unless a pinned key signed these very bytes, they have the
 * shape of a snapshot, its register has the digest it says, and it is not below the highest that was ever served.
 * Compiling it is the caller's to try afterwards.
 */
export function judgeSnapshot(
  signed: SignedSnapshot,
  pinnedKeys: readonly string[],
  highest: Running | undefined,
): Judgement {
  // Before anything else: not a byte of an unsigned payload is parsed.
  if (!verifySnapshot(signed, pinnedKeys))
    return refuse("bad_signature", "the snapshot is not signed by a key that this gate has pinned");
  let value: unknown;
  try {
    value = JSON.parse(signed.payload);
  } catch {
    return refuse("bad_shape", "the snapshot is not JSON");
  }
  const shaped = shape.safeParse(value);
  if (!shaped.success) {
    const issue = shaped.error.issues[0];
    const where = issue?.path.join(".").slice(0, 200) || "the snapshot";
    return refuse("bad_shape", `the snapshot cannot be read at ${where}: ${issue?.message}`, value);
  }
  // The parsed value, not the schema's copy: the digest covers the order of keys.
  const snapshot = value as Snapshot;
  const digest = createHash("sha256").update(JSON.stringify(snapshot.register)).digest("hex");
  if (digest !== snapshot.digest)
    return refuse(
      "bad_digest",
      "the register does not have the digest that stands beside it",
      value,
    );
  if (highest && isNewer(highest, snapshot))
    return refuse(
      "older",
      `${snapshotName(snapshot)} is older than ${snapshotName(highest)}, which was served here`,
      value,
    );
  const isSame = highest && !isNewer(snapshot, highest);
  if (isSame && highest.digest !== digest)
    return refuse(
      "conflicting",
      `another register was served here under the same version ${snapshotName(snapshot)}`,
      value,
    );
  return { ok: true, snapshot };
}

export type Judgement =
  | { readonly ok: true; readonly snapshot: Snapshot }
  | {
      readonly ok: false;
      readonly code: SnapshotProblem;
      readonly message: string;
      /** What it said it was, as far as that could be read. */
      readonly named: Partial<Running>;
    };

const shape: z.ZodType<Snapshot> = z.strictObject({
  epoch: z.int().min(0),
  version: z.int().min(0),
  author: z.string().max(256),
  at: z.number().min(0).max(Number.MAX_SAFE_INTEGER),
  digest: z.string().regex(/^[0-9a-f]{64}$/),
  register: registerShape,
  revocations: z.array(revocationShape as z.ZodType<Revocation>),
});

const naming = z.object({
  epoch: z.int().min(0),
  version: z.int().min(0),
  digest: z.string().regex(/^[0-9a-f]{64}$/),
});

function refuse(code: SnapshotProblem, message: string, value?: unknown): Judgement {
  const named = naming.safeParse(value);
  return { ok: false, code, message, named: named.success ? named.data : {} };
}
