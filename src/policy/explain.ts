import { type RefusalCode, refusals } from "../model/refusal.ts";
import { mainPort, type Register, type Rule, type Service } from "../model/register.ts";
import { ask, routeOf } from "./ask.ts";
import { assembleView, compileService } from "./compile.ts";
import { parseHost } from "./host.ts";
import { absoluteForm, canonicalPath } from "./path.ts";
import type { CompiledPort } from "./view.ts";

export type Question = {
  /** Name of the calling service. */
  readonly caller: string;
  /** Upper case. */
  readonly method: string;
  /** `orders/orders/7` (a host name, then the path) or `http://orders/orders/7`. */
  readonly target: string;
  /** The moment to decide for, epoch ms. */
  readonly nowMs: number;
};

export type Explanation = {
  readonly allowed: boolean;
  /** What the gate would answer; absent when allowed. */
  readonly code?: RefusalCode;
  /** The rule that decided. */
  readonly rule?: string;
  /** The service, port and canonical path that were meant, as far as it came. */
  readonly service?: string;
  readonly port?: string;
  readonly path?: string;
  /** Every rule of the port: denials first, each in the order of the register. */
  readonly considered: readonly Considered[];
  /** What to do next, a sentence. */
  readonly hint: string;
};

export type Considered = {
  readonly rule: string;
  readonly effect: "allow" | "deny";
  readonly matched: boolean;
  /** Why it does not match, or what follows from its match. */
  readonly because: string;
};

/**
 * What a gate would answer a caller, and why. It compiles and asks as the gate does, also for each rule by itself, so that it cannot
 * come to another verdict. Says nothing about rate limits, certificates and upstreams, which no register can foresee.
 */
export function explain(register: Register, question: Question): Explanation {
  const { caller, method, nowMs } = question;
  const target = splitTarget(question.target);
  const host = target && parseHost(target.host)?.host;
  if (target === undefined || host === undefined)
    return no("bad_host", `write the target as service/path or http://service/path`);
  const names = Object.keys(register.services);
  const services = Object.values(register.services).map((service) =>
    compileService(service, names, noSlot),
  );
  const header = {
    epoch: 0,
    version: 0,
    at: 0,
    trustDomain: register.trustDomain,
    revocations: [],
  };
  const port = routeOf(assembleView(header, services), host);
  if (!port) return no("unknown_service", hintForHost(register, host));
  const place = { service: port.service, port: port.port };
  if (!Object.hasOwn(register.services, caller))
    return no("not_registered", `register ${caller} under services: first`, place);
  const path = canonicalPath(target.path, port.accept)?.path;
  if (path === undefined)
    return no("bad_path", "the gate takes only paths that can be read in one way", place);

  const service = register.services[port.service] as Service;
  const verdict = ask(port, caller, method, path, nowMs);
  const rules = [...service.deny, ...service.allow].filter((rule) =>
    rule.ports.includes(port.port),
  );
  const considered = rules.map((rule): Considered => {
    const matched = matches(service, rule, port, [caller, method, path, nowMs]);
    const because = matched
      ? consequence(rule, verdict?.id)
      : obstacles(service, rule, port, [caller, method, path, nowMs]).join("; ");
    return { rule: rule.id, effect: rule.effect, matched, because };
  });
  const where = { ...place, path };
  if (!verdict)
    return {
      ...no("not_authorized", hintForNone(service, port, caller, rules), where),
      considered,
    };
  const { id: rule } = verdict;
  if (verdict.effect === "deny") {
    const hint = `deny wins over every allow: change or remove the deny rule ${rule} of ${port.service}`;
    return { ...no("denied", hint, where), rule, considered };
  }
  const limit = verdict.limit
    ? `, ${verdict.limit.count} times in ${verdict.limit.perMs / 1000} s and ${verdict.limit.burst} at once`
    : "";
  return { allowed: true, rule, ...where, considered, hint: `${caller} may do this${limit}` };
}

type Asked = readonly [caller: string, method: string, path: string, nowMs: number];

function noSlot(): number {
  return 0;
}

function no(code: RefusalCode, hint: string, where: Partial<Explanation> = {}): Explanation {
  return {
    allowed: false,
    code,
    ...where,
    considered: [],
    hint: `${refusals[code].says}: ${hint}`,
  };
}

/** `http://host/path?query` or `host/path?query`, into what a caller would put into `Host` and into the request line. */
function splitTarget(text: string): { host: string; path: string } | undefined {
  const absolute = absoluteForm(text);
  if (absolute) return { host: absolute.host, path: absolute.target };
  const slash = text.indexOf("/");
  if (slash === 0 || text.includes("://")) return undefined;
  return slash === -1
    ? { host: text, path: "/" }
    : { host: text.slice(0, slash), path: text.slice(slash) };
}

/** The rule alone, compiled and asked: what the gate would find if there were no other. */
function matches(service: Service, rule: Rule, port: CompiledPort, asked: Asked): boolean {
  const rules = rule.effect === "deny" ? { deny: [rule], allow: [] } : { deny: [], allow: [rule] };
  const alone = compileService({ ...service, ...rules }, [], noSlot).ports.get(port.port);
  return alone !== undefined && ask(alone, ...asked) !== undefined;
}

function consequence(rule: Rule, decided: string | undefined): string {
  if (rule.id === decided) return rule.effect === "deny" ? "it refuses this" : "it allows this";
  return decided === undefined ? "it matches" : `it matches, but ${decided} decides`;
}

/** Which conditions of a rule stand in the way: each is asked about by itself. */
function obstacles(service: Service, rule: Rule, port: CompiledPort, asked: Asked): string[] {
  const [caller, method, path, nowMs] = asked;
  const { id, effect, ports } = rule;
  const bare: Rule = { id, effect, ports, from: ["*"] };
  const fails = (condition: Partial<Rule>): boolean =>
    !matches(service, { ...bare, ...condition }, port, asked);
  const because: string[] = [];
  if (fails({ from: rule.from })) because.push(`for ${rule.from.join(", ")} only, not ${caller}`);
  if (rule.methods && fails({ methods: rule.methods }))
    because.push(`only ${rule.methods.join(", ")}, not ${method}`);
  if (rule.paths && fails({ paths: rule.paths }))
    because.push(`path ${path} is not under ${rule.paths.join(", ")}`);
  if (rule.expiresMs !== undefined && fails({ expiresMs: rule.expiresMs }))
    because.push(`expired on ${isoMinute(rule.expiresMs)}`);
  if (rule.hours && fails({ hours: rule.hours }))
    because.push(`outside ${describeHours(rule.hours)} at ${isoMinute(nowMs)}`);
  return because;
}

const dayNames = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

function describeHours(hours: NonNullable<Rule["hours"]>): string {
  // Weeks begin on Monday here, so that mon-fri and sat-sun are runs.
  const days = [...new Set(hours.days)].map((day) => (day + 6) % 7).sort((a, b) => a - b);
  const runs: number[][] = [];
  for (const day of days) {
    const run = runs.at(-1);
    if (run && run.at(-1) === day - 1) run.push(day);
    else runs.push([day]);
  }
  const name = (day: number | undefined): string => dayNames[((day ?? 0) + 1) % 7] ?? "";
  const written = runs.map((run) =>
    run.length > 2 ? `${name(run[0])}-${name(run.at(-1))}` : run.map(name).join(","),
  );
  return `${written.join(",")} ${clock(hours.startMinute)}–${clock(hours.endMinute)} ${hours.zone}`;
}

function clock(minute: number): string {
  const two = (n: number): string => String(n).padStart(2, "0");
  return `${two(Math.floor(minute / 60))}:${two(minute % 60)}`;
}

function isoMinute(ms: number): string {
  return Math.abs(ms) <= 8.64e15
    ? `${new Date(ms).toISOString().slice(0, 16).replace("T", " ")} UTC`
    : "?";
}

function hintForHost(register: Register, host: string): string {
  const service = register.services[host];
  if (service && Object.keys(service.ports).length === 0)
    return `${host} is registered without ports: it calls, but cannot be called`;
  if (service && !Object.values(service.ports).some((port) => port.via === "gate"))
    return `the ports of ${host} are declared via: direct, so no gate serves them`;
  if (service && !mainPort(service)) {
    const gated = Object.values(service.ports).filter((port) => port.via === "gate");
    return `${host} has several ports: ask for ${gated.map((p) => `${p.name}.${host}`).join(" or ")}`;
  }
  return `nothing in the register is called ${host}`;
}

function hintForNone(
  service: Service,
  port: CompiledPort,
  caller: string,
  rules: readonly Rule[],
): string {
  const mine = rules.filter(
    (rule) => rule.effect === "allow" && (rule.from.includes(caller) || rule.from.includes("*")),
  );
  if (mine.length > 0)
    return `${mine.map((rule) => rule.id).join(", ")} of ${service.name} ${mine.length === 1 ? "lets" : "let"} ${caller} in, but not with this request: change the request or the rule`;
  return `add an allow rule with from: ${caller} to ${service.name} (port ${port.port})`;
}
