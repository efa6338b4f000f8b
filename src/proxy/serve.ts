import { Refusal } from "../model/refusal.ts";
import type { CompiledPort, View } from "../policy/view.ts";
import type { RequestHead } from "../wire/http1/request-parser.ts";
import { Permit } from "./authorize/permit.ts";
import type { Caller } from "./identify/caller.ts";
import { limit } from "./limit/limit.ts";
import type { Needs } from "./needs.ts";
import { findPort, findTarget, type Target } from "./route/route.ts";

/** One request as far as it got: what the record says of it even when it is refused half way. */
export type Attempt = {
  readonly head: RequestHead;
  readonly caller: Caller;
  readonly sni: string | undefined;
  readonly atMs: number;
  port: CompiledPort | undefined;
  target: Target | undefined;
  view: View | undefined;
};

/**
 * One request, from its head to the proof that it may go on. Read it aloud: this is the product. The caller was identified when
 * its handshake ended; what is returned, `forward` demands. Fails closed: throws `Refusal`, and nothing has reached an upstream.
 */
export function serve(attempt: Attempt, needs: Needs): Permit {
  const view = viewInForce(attempt, needs); // one view for the whole request
  const port = findPort(attempt.head, view);
  attempt.port = port;
  const target = findTarget(attempt.head, port, attempt.sni, view);
  attempt.target = target;
  mustBeFresh(target.port, attempt.atMs - needs.confirmedMs());
  mustBeRecordable(target.port, needs);
  const permit = Permit.ask(attempt.caller, target, attempt.atMs);
  limit(permit, needs.limits, needs.monotonic);
  return permit;
}

/** Fails closed: no view, or a caller that the view does not know, is refused. */
function viewInForce(attempt: Attempt, needs: Needs): View {
  const view = needs.view();
  if (view === undefined) throw new Refusal("no_view", "no snapshot yet");
  attempt.view = view;
  if (!view.services.has(attempt.caller.name))
    throw new Refusal("not_registered", `${attempt.caller.name} is not in the register`);
  return view;
}

/** Fails closed where the register says so: a view that control has not confirmed for too long does not decide. */
function mustBeFresh(port: CompiledPort, unconfirmedMs: number): void {
  const stale = port.staleAfter;
  if (stale?.then === "refuse" && unconfirmedMs > stale.afterMs)
    throw new Refusal("stale", `control was last heard ${unconfirmedMs} ms ago`);
}

/** Fails closed: while the log cannot be written, nothing that must be recorded begins. */
function mustBeRecordable(port: CompiledPort, needs: Needs): void {
  if (needs.recorder.failing && port.audit === "required")
    throw new Refusal("audit_unavailable", "the hit log cannot be written");
}
