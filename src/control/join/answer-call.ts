import { z } from "zod";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Hit } from "../../model/hit.ts";
import { parsePrincipal, shortName } from "../../model/principal.ts";
import { type RefusalCode, refusals } from "../../model/refusal.ts";
import type { PeerVerdict, Trust } from "../../policy/peer.ts";
import type { FailureBudget } from "./failure-budget.ts";
import { judgeCaller, judgeRenewer } from "./judge-caller.ts";
import type { JoinNeeds } from "./needs.ts";

type TLSSocket = import("node:tls").TLSSocket;

/** What a call comes to: what is sent, and what the hit log is told about it. */
export type Answer = {
  readonly status: number;
  readonly body: object;
  readonly headers?: Readonly<Record<string, string>>;
  readonly hit: Partial<Omit<Hit, "id">> & Pick<Hit, "decision">;
};

export type Call = {
  readonly socket: TLSSocket;
  /** IP literal of the peer. */
  readonly address: string;
  /** Parsed JSON of a `POST`; not looked at before. */
  readonly body?: unknown;
};

export type CallWorld = Pick<JoinNeeds, "issuance" | "standing" | "discover"> & {
  readonly trust: () => Trust;
  readonly failures: FailureBudget;
  readonly clock: Clock;
  readonly log: Log;
};

/** The one call that needs no certificate: a token for one or two leaves. */
export async function enrol(call: Call, world: CallWorld): Promise<Answer> {
  const hit = { action: "enrol" };
  const waitMs = world.failures.retryAfterMs(call.address);
  if (waitMs > 0) {
    const headers = { "retry-after": String(Math.ceil(waitMs / 1_000)) };
    const message = "too many failed enrolments from your address";
    return { ...no(429, "rate_limited", message, hit), headers };
  }
  const body = enrolBody.safeParse(call.body);
  if (!body.success) return badBody(body.error, hit);
  try {
    const answer = await world.issuance.enrol({ ...body.data, peerAddress: call.address });
    const parts = parsePrincipal(answer.principal);
    const caller = parts && shortName(parts);
    return {
      status: 200,
      body: answer,
      hit: { ...hit, decision: "allowed", ...(caller && { caller }) },
    };
  } catch (cause) {
    const answer = refused(cause, hit, world.log);
    if (answer.status < 500) world.failures.fail(call.address);
    return answer;
  }
}

/** A new leaf for the one whose key was proven, in its own name and plane. */
export async function renew(call: Call, world: CallWorld): Promise<Answer> {
  const hit = { action: "renew" };
  const judged = judgeRenewer(call.socket, { trust: world.trust(), nowMs: world.clock() });
  if (!judged.ok) return unproven(judged.refusal, hit);
  const known = { ...hit, caller: shortName(judged.peer.principal), serial: judged.peer.serial };
  const body = renewBody.safeParse(call.body);
  if (!body.success) return badBody(body.error, known);
  try {
    const answer = await world.issuance.renew({
      ...body.data,
      leaf: judged.leaf,
      plane: judged.plane,
      peerAddress: call.address,
    });
    const detail = judged.isLapsed ? { detail: "within grace: the leaf had expired" } : {};
    return { status: 200, body: answer, hit: { ...known, ...detail, decision: "allowed" } };
  } catch (cause) {
    return refused(cause, known, world.log);
  }
}

/** A service's own phone book. */
export async function discoverFor(call: Call, world: CallWorld): Promise<Answer> {
  const hit = { action: "discover" };
  const { publicKey, verdict } = judgeCaller(call.socket, {
    plane: "data",
    kinds: ["service"],
    trust: world.trust(),
    nowMs: world.clock(),
  });
  if (!verdict.ok) return unproven(verdict, hit);
  const known = { ...hit, caller: shortName(verdict.principal), serial: verdict.serial };
  try {
    const code = await world.standing({ ...verdict, plane: "data", publicKey });
    if (code) return byCode(code, known);
    const body = await world.discover(verdict.principal.name);
    return { status: 200, body, hit: { ...known, decision: "allowed" } };
  } catch (cause) {
    return refused(cause, known, world.log);
  }
}

/** Whether a gate may hold a feed: `gate` is set exactly when the answer is yes. */
export async function admitFeed(
  call: Call,
  world: CallWorld,
): Promise<{ readonly answer: Answer; readonly gate?: Extract<PeerVerdict, { ok: true }> }> {
  const hit = { action: "feed" };
  const { publicKey, verdict } = judgeCaller(call.socket, {
    plane: "control",
    kinds: ["gate"],
    trust: world.trust(),
    nowMs: world.clock(),
  });
  if (!verdict.ok) return { answer: unproven(verdict, hit) };
  const known = {
    ...hit,
    caller: shortName(verdict.principal),
    gate: verdict.principal.name,
    serial: verdict.serial,
  };
  try {
    const code = await world.standing({ ...verdict, plane: "control", publicKey });
    if (code) return { answer: byCode(code, known) };
  } catch (cause) {
    return { answer: refused(cause, known, world.log) };
  }
  return {
    answer: { status: 101, body: {}, hit: { ...known, decision: "allowed" } },
    gate: verdict,
  };
}

/** A refusal with a stable code and a sentence. */
export function no(
  status: number,
  code: RefusalCode | string,
  message: string,
  hit: Partial<Omit<Hit, "id">> = {},
): Answer {
  return { status, body: { code, message }, hit: { ...hit, decision: "refused", code } };
}

function byCode(code: RefusalCode, hit: Partial<Omit<Hit, "id">>): Answer {
  return no(refusals[code].http || 403, code, refusals[code].says, hit);
}

/** The caller is told the code alone; what the certificate claimed is for the log. */
function unproven(
  verdict: Extract<PeerVerdict, { ok: false }>,
  hit: Partial<Omit<Hit, "id">>,
): Answer {
  const { claimed, detail } = verdict;
  const told = { ...hit, ...(claimed && { claimed }), detail: detail.slice(0, 512) };
  const kind = refusals[verdict.code];
  return no(kind.http || 401, verdict.code, kind.says, told);
}

const pem = z.string().min(1).max(16_384);
const enrolBody = z.union([
  z.strictObject({ token: z.string().min(1).max(4_096), csr: pem }),
  z.strictObject({ token: z.string().min(1).max(4_096), controlCsr: pem, dataCsr: pem }),
]);
// A batch of names: what one call may cost is bounded here and, for good, in `identity/issue`.
const names = z.array(z.string().max(253)).max(64);
const renewBody = z.union([
  z.strictObject({ csr: pem, names: names.exactOptional() }),
  z.strictObject({ names: names.min(1) }),
]);

function badBody(error: z.ZodError, hit: Partial<Omit<Hit, "id">>): Answer {
  // Where, never what: the value may be a token.
  const where = error.issues[0]?.path.join(".");
  const message = where
    ? `the body cannot be used: see ${where}`
    : "the body has other members than this call takes";
  return no(400, "bad_request", message, hit);
}

/** An expected no of issuing's carries a code and a status; anything else is a fault of ours, and the caller learns no more than that. */
function refused(cause: unknown, hit: Partial<Omit<Hit, "id">>, log: Log): Answer {
  const { code, status, principal, message } = Object(cause);
  if (typeof code === "string" && typeof status === "number" && status >= 400 && status < 500) {
    const about = typeof principal === "string" && !hit.caller ? { claimed: principal } : {};
    return no(status, code, String(message), { ...hit, ...about });
  }
  log.error({ action: hit.action, cause: String(message ?? cause) }, "a join call failed");
  const { says } = refusals.fault;
  return {
    status: 500,
    body: { code: "fault", message: says.replace("the gate", "the control plane") },
    hit: { ...hit, decision: "fault", code: "fault" },
  };
}
