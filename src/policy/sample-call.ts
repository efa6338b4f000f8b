import type { Rule, Service } from "../model/register.ts";
import { ask } from "./ask.ts";
import { compileService } from "./compile.ts";
import type { CompiledPort, CompiledService } from "./view.ts";

/** A call that a person or a script can try: what is asked of whom. */
export type SampleCall = {
  /** What goes into `Host`: `orders`, `metrics.orders`. */
  readonly host: string;
  readonly method: string;
  readonly path: string;
};

/**
 * A call of `caller` to this service that one of its allow rules lets through at `nowMs`, with denials, hours and `expires` taken
 * into account by the same `ask` that gates decide by. One that only reads where there is one. Undefined: there is none, or none that
 * is HTTP.
 */
export function findAllowedCall(
  service: Service,
  caller: string,
  nowMs: number,
): SampleCall | undefined {
  const rules = service.allow.filter(({ from }) => from.includes(caller) || from.includes("*"));
  if (rules.length === 0) return undefined;
  const compiled = compiledOf(service);
  const calls = rules.flatMap((rule) => callsOf(rule, compiled));
  const isAllowed = ({ port, method, path }: Candidate) =>
    ask(port, caller, method, path, nowMs)?.effect === "allow";
  const found = calls.find((call) => isReading(call) && isAllowed(call)) ?? calls.find(isAllowed);
  return found && { host: found.host, method: found.method, path: found.path };
}

/** Whether a call changes nothing at a service that keeps to the meaning of methods (RFC 9110, section 9.2.1). */
export function isReading({ method }: Pick<SampleCall, "method">): boolean {
  return method === "GET" || method === "HEAD";
}

/** The method of a rule that only reads; undefined where it has none. */
export function readingMethod(methods: readonly string[] | undefined): "GET" | "HEAD" | undefined {
  if (methods === undefined || methods.includes("GET")) return "GET";
  return methods.includes("HEAD") ? "HEAD" : undefined;
}

/** A path that a pattern matches: variables get a word that tells what made the request. */
export function concretePath(pattern: string): string {
  const path = pattern
    .replace(/\/\*\*$/, "")
    .split("/")
    .map((segment) => (segment.startsWith(":") ? canary : segment))
    .join("/");
  return path === "" ? "/" : path;
}

/** The name that leads to a port: the service's own where that is one of them. */
export function hostOf(service: CompiledService, port: string): string | undefined {
  const names = [...service.hosts].filter(([, leadsTo]) => leadsTo === port).map(([name]) => name);
  return names.includes(service.name) ? service.name : names[0];
}

const canary = "sallyport-canary";

type Candidate = SampleCall & { readonly port: CompiledPort };

function callsOf(rule: Rule, service: CompiledService): Candidate[] {
  const reading = readingMethod(rule.methods);
  const methods = [...(reading ? [reading] : []), ...(rule.methods ?? ["POST"])];
  // What a denial takes out at the top of a tree may be left below it.
  const paths = (rule.paths ?? ["/**"]).flatMap((pattern) => {
    const path = concretePath(pattern);
    return pattern.endsWith("/**") ? [path, `${path === "/" ? "" : path}/${canary}`] : [path];
  });
  return rule.ports.flatMap((name) => {
    const port = service.ports.get(name);
    const host = hostOf(service, name);
    if (port?.protocol !== "http" || host === undefined) return [];
    return methods.flatMap((method) => paths.map((path) => ({ port, host, method, path })));
  });
}

/** A published service never changes, and is asked about again and again. */
const compiledServices = new WeakMap<Service, CompiledService>();

function compiledOf(service: Service): CompiledService {
  const known = compiledServices.get(service);
  if (known) return known;
  // Who has which slot in the table of rate limits plays no part in the answer.
  const compiled = compileService(service, [], () => 0);
  compiledServices.set(service, compiled);
  return compiled;
}
