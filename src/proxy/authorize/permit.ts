import { Refusal } from "../../model/refusal.ts";
import { ask } from "../../policy/ask.ts";
import type { CompiledPort, CompiledRule } from "../../policy/view.ts";
import type { Caller } from "../identify/caller.ts";
import type { Target } from "../route/route.ts";

/** Proof that policy said yes to this caller, method and path. `forward` demands one, and only `ask` can make one. */
export class Permit {
  // A #field: TypeScript compares shapes, and no look-alike has this one.
  readonly #rule: CompiledRule;
  readonly caller: Caller;
  readonly target: Target;

  private constructor(rule: CompiledRule, caller: Caller, target: Target) {
    this.#rule = rule;
    this.caller = caller;
    this.target = target;
  }

  /** Fails closed: no matching rule, no permit. Throws `Refusal` `denied` or `not_authorized`. */
  static ask(caller: Caller, target: Target, nowMs: number): Permit {
    const rule = ask(target.port, caller.name, target.method, target.path, nowMs);
    if (rule === undefined)
      throw new Refusal(
        "not_authorized",
        `no rule admits ${caller.name} to ${target.port.service}`,
      );
    if (rule.effect !== "allow") throw new DeniedBy(rule);
    return new Permit(rule, caller, target);
  }

  /** Whether the same question would be answered the same by another version of the port. Fails closed. */
  standsIn(port: CompiledPort, nowMs: number): boolean {
    const rule = ask(port, this.caller.name, this.target.method, this.target.path, nowMs);
    return rule?.effect === "allow";
  }

  /** The rule that said yes, for the limit and the record. */
  get rule(): CompiledRule {
    return this.#rule;
  }
}

/** A deny rule matched: the record names it, the client is not told. */
export class DeniedBy extends Refusal {
  readonly rule: string;
  constructor(rule: CompiledRule) {
    super("denied", `denied by ${rule.id}`);
    this.rule = rule.id;
  }
}
