import type { Clock } from "../../base/clock.ts";
import { Refusal } from "../../model/refusal.ts";
import type { RateLimit } from "../../model/register.ts";
import type { Permit } from "../authorize/permit.ts";
import { admit } from "./gcra.ts";

/** Over the limit: carries what the client may know about it. */
export class RateLimited extends Refusal {
  readonly limit: RateLimit;
  readonly retryAfterMs: number;
  readonly rule: string;
  constructor(rule: string, limit: RateLimit, retryAfterMs: number) {
    super("rate_limited", `over the limit of rule ${rule}`);
    this.rule = rule;
    this.limit = limit;
    this.retryAfterMs = retryAfterMs;
  }
}

/** Counts the request against its rule's limit. Fails closed: a rule whose limit has no slot for this caller admits nothing. */
export function limit(permit: Permit, table: Int32Array, monotonic: Clock): void {
  const { limit, id } = permit.rule;
  if (limit === undefined) return;
  const slot = limit.slots.get(permit.caller.name);
  if (slot === undefined || slot >= table.length)
    throw new Refusal("overloaded", `rule ${id} has no slot for ${permit.caller.name}`);
  const retryAfterMs = admit(table, slot, limit, monotonic());
  if (retryAfterMs > 0) throw new RateLimited(id, limit, retryAfterMs);
}
