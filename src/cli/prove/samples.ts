import type { Register, Rule } from "../../model/register.ts";
import { ask } from "../../policy/ask.ts";
import { compileService } from "../../policy/compile.ts";
import { concretePath, hostOf, readingMethod } from "../../policy/sample-call.ts";
import type { CompiledPort } from "../../policy/view.ts";

/** A question to the gate whose answer the register gives: who, where, what. Only GET and HEAD. */
export type Sample = {
  readonly caller: string;
  readonly service: string;
  readonly host: string;
  readonly method: "GET" | "HEAD";
  readonly path: string;
  /** Undefined: a refusal, with this code. */
  readonly rule: string | undefined;
  readonly code: "not_authorized" | "denied" | undefined;
};

const samplesMost = 40;

/**
 * Questions that a register answers: for each allow rule that admits reading, one that it lets in, and for each gated port one by a caller whom
 * no rule lets in. The expectation comes from the same `ask` that gates decide by. At most 40.
 */
export function samplesOf(register: Register, nowMs: number): Sample[] {
  const callers = Object.keys(register.services);
  const samples: Sample[] = [];
  for (const service of Object.values(register.services)) {
    let slot = 0;
    const compiled = compileService(service, callers, () => slot++);
    for (const port of compiled.ports.values()) {
      if (port.protocol !== "http") continue;
      const host = hostOf(compiled, port.port);
      if (host === undefined) continue;
      const base = { service: service.name, host };
      for (const rule of service.allow)
        if (rule.ports.includes(port.port))
          samples.push(...fromRule(rule, port, callers, nowMs, base));
      const stranger = callers.find(
        (caller) => verdict(port, caller, "GET", "/", nowMs).rule === undefined,
      );
      if (stranger !== undefined) {
        const { code } = verdict(port, stranger, "GET", "/", nowMs);
        samples.push({
          ...base,
          caller: stranger,
          method: "GET",
          path: "/",
          rule: undefined,
          code,
        });
      }
    }
  }
  return samples.slice(0, samplesMost);
}

function fromRule(
  rule: Rule,
  port: CompiledPort,
  callers: readonly string[],
  nowMs: number,
  base: Pick<Sample, "service" | "host">,
): Sample[] {
  const method = readingMethod(rule.methods);
  if (method === undefined) return [];
  const path = concretePath(rule.paths?.[0] ?? "/");
  const from = rule.from.includes("*") ? callers.slice(0, 1) : rule.from.slice(0, 2);
  return from.map((caller) => ({
    ...base,
    caller,
    method,
    path,
    ...verdict(port, caller, method, path, nowMs),
  }));
}

function verdict(
  port: CompiledPort,
  caller: string,
  method: string,
  path: string,
  nowMs: number,
): Pick<Sample, "rule" | "code"> {
  const rule = ask(port, caller, method, path, nowMs);
  if (rule === undefined) return { rule: undefined, code: "not_authorized" };
  return rule.effect === "allow"
    ? { rule: rule.id, code: undefined }
    : { rule: undefined, code: "denied" };
}
