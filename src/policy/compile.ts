import { createHash } from "node:crypto";
import { mainPort, type Port, type Rule, type Service } from "../model/register.ts";
import { parseHost } from "./host.ts";
import { localMinute } from "./hours.ts";
import { canonicalPath } from "./path.ts";
import { indexRevocations } from "./peer.ts";
import { hashSegment, isVariable, splitPattern } from "./segment.ts";
import type {
  CompiledPort,
  CompiledRule,
  CompiledService,
  Literal,
  Revocations,
  RuleTable,
  RuleTables,
  TrieNode,
  View,
  ViewPatch,
} from "./view.ts";

/** What a view says beside its services. */
export type ViewHeader = Omit<ViewPatch, "changed" | "removed">;

/** Gives each (rule, caller) its slot in the shared table of rate limits; `rule` is `orders/web-reads-orders`. */
export type SlotFor = (rule: string, caller: string) => number;

/**
 * Compiles one service into tables that answer without parsing. `callers` are the names of all registered services: what
 * `from: "*"` means for limits. Pure data comes out; runs in a gate's main thread, once for each service that changed.
 *
 * Fails closed: throws a `TypeError` on what `check` should have refused (a pattern that is not canonical or has a `*` elsewhere
 * than in a trailing `/**`, a time zone that is not known, a host that is none), so that the whole snapshot is refused.
 */
export function compileService(
  service: Service,
  callers: readonly string[],
  slotFor: SlotFor,
): CompiledService {
  const slotsGiven: (readonly [rule: string, caller: string, slot: number])[] = [];
  const remember: SlotFor = (rule, caller) => {
    const slot = slotFor(rule, caller);
    slotsGiven.push([rule, caller, slot]);
    return slot;
  };
  const rules = [...service.deny, ...service.allow];
  const compiled = rules.map((rule, order) => ({
    rule,
    compiled: compileRule(service, rule, order, callers, remember),
  }));
  const ports = new Map<string, CompiledPort>();
  for (const port of Object.values(service.ports)) {
    if (port.via !== "gate") continue;
    const covering = compiled.filter(({ rule }) => rule.ports.includes(port.name));
    ports.set(port.name, compilePort(service, port, covering));
  }
  const hosts = hostsOf(service);
  // Everything that was compiled from, and nothing else: a changed `owner` or `why` moves no worker.
  const { name, audit, staleAfter, accept } = service;
  const bare = rules.map((rule) => ({ ...rule, why: undefined }));
  const source = [name, audit, staleAfter, accept, [...hosts], service.ports, bare, slotsGiven];
  return {
    name,
    digest: createHash("sha256").update(JSON.stringify(source)).digest("hex"),
    audit,
    ...(staleAfter && { staleAfter }),
    accept,
    hosts,
    ports,
  };
}

/** Puts compiled services together. Fails closed: a name that two services claim for themselves leads nowhere. */
export function assembleView(header: ViewHeader, services: Iterable<CompiledService>): View {
  const byName = new Map<string, CompiledService>();
  for (const service of services) byName.set(service.name, service);
  return viewOf(header, byName, indexRevocations(header.revocations));
}

/** The next view of a worker. Takes what did not change from `view`, which stays as it is. */
export function applyPatch(view: View | undefined, patch: ViewPatch): View {
  const services = new Map(view?.services);
  for (const name of patch.removed) services.delete(name);
  for (const service of patch.changed) services.set(service.name, service);
  const revocations = indexRevocations(patch.revocations);
  if (!view || patch.removed.length > 0 || patch.changed.some((next) => isRenamed(view, next)))
    return viewOf(patch, services, revocations);
  // Nobody's names changed, so that what leads to an old port leads to its successor: a fifth of the work for 10,000 services.
  const routes = new Map(view.routes);
  for (const service of patch.changed)
    for (const [host, name] of service.hosts) {
      const port = service.ports.get(name);
      if (port && routes.get(host)?.service === service.name) routes.set(host, port);
    }
  return viewOf(patch, services, revocations, routes);
}

function isRenamed(view: View, next: CompiledService): boolean {
  const hosts = view.services.get(next.name)?.hosts;
  if (hosts?.size !== next.hosts.size) return true;
  for (const [host, port] of next.hosts) if (hosts.get(host) !== port) return true;
  return false;
}

/** What a worker that has `old` needs to get to `next`: services with another digest, and the names of those that went. */
export function diffServices(
  old: ReadonlyMap<string, CompiledService> | undefined,
  next: Iterable<CompiledService>,
): Pick<ViewPatch, "changed" | "removed"> {
  const changed: CompiledService[] = [];
  const kept = new Set<string>();
  for (const service of next) {
    kept.add(service.name);
    if (old?.get(service.name)?.digest !== service.digest) changed.push(service);
  }
  return { changed, removed: [...(old?.keys() ?? [])].filter((name) => !kept.has(name)) };
}

function viewOf(
  header: ViewHeader,
  services: ReadonlyMap<string, CompiledService>,
  revocations: Revocations,
  routes = routesOf(services.values()),
): View {
  const { epoch, version, at, trustDomain } = header;
  return {
    epoch,
    version,
    at,
    trustDomain,
    services,
    routes,
    revocations,
  };
}

/** Own names (`orders`, `metrics.orders`) come before `hosts:`; what two services claim otherwise is nobody's. */
function routesOf(services: Iterable<CompiledService>): ReadonlyMap<string, CompiledPort> {
  const routes = new Map<string, CompiledPort>();
  const extra = new Map<string, CompiledPort | undefined>();
  for (const service of services) {
    for (const [host, portName] of service.hosts) {
      const port = service.ports.get(portName);
      if (!port) continue;
      if (host === service.name || host === `${portName}.${service.name}`) routes.set(host, port);
      else extra.set(host, extra.has(host) ? undefined : port);
    }
  }
  for (const [host, port] of extra) if (port && !routes.has(host)) routes.set(host, port);
  return routes;
}

function hostsOf(service: Service): ReadonlyMap<string, string> {
  const hosts = new Map<string, string>();
  const main = mainPort(service);
  for (const port of Object.values(service.ports))
    if (port.via === "gate") hosts.set(`${port.name}.${service.name}`, port.name);
  if (!main) return hosts;
  hosts.set(service.name, main.name);
  for (const text of service.hosts) {
    const parsed = parseHost(text);
    if (!parsed || parsed.port !== undefined)
      throw new TypeError(`service ${service.name}: ${JSON.stringify(text)} is not a host name`);
    if (!hosts.has(parsed.host)) hosts.set(parsed.host, main.name);
  }
  return hosts;
}

type Pair = { readonly rule: Rule; readonly compiled: CompiledRule };

function compilePort(service: Service, port: Port, covering: readonly Pair[]): CompiledPort {
  const { audit, staleAfter, accept } = service;
  return {
    service: service.name,
    port: port.name,
    protocol: port.protocol,
    audit,
    ...(staleAfter && { staleAfter }),
    accept,
    upstreams: port.upstreams,
    timeouts: port.timeouts,
    plaintextUntilMs: port.plaintext?.expiresMs ?? 0,
    deny: tablesOf(covering.filter(({ rule }) => rule.effect === "deny")),
    allow: tablesOf(covering.filter(({ rule }) => rule.effect === "allow")),
  };
}

function compileRule(
  service: Service,
  rule: Rule,
  order: number,
  callers: readonly string[],
  slotFor: SlotFor,
): CompiledRule {
  if (rule.hours) localMinute(rule.hours.zone, 0); // an unknown zone throws here, not at a request
  const slots = new Map<string, number>();
  if (rule.limit) {
    for (const caller of rule.from.includes("*") ? callers : rule.from)
      slots.set(caller, slotFor(`${service.name}/${rule.id}`, caller));
  }
  return {
    id: rule.id,
    effect: rule.effect,
    methods:
      rule.methods &&
      new Set(rule.methods.includes("GET") ? [...rule.methods, "HEAD"] : rule.methods),
    expiresMs: rule.expiresMs ?? 0,
    hours: rule.hours,
    limit: rule.limit && { ...rule.limit, slots },
    order,
  };
}

function tablesOf(pairs: readonly Pair[]): RuleTables {
  const ofCaller = new Map<string, Pair[]>();
  const any: Pair[] = [];
  for (const pair of pairs) {
    if (pair.rule.from.includes("*")) any.push(pair);
    else
      for (const caller of new Set(pair.rule.from)) {
        const own = ofCaller.get(caller);
        if (own) own.push(pair);
        else ofCaller.set(caller, [pair]);
      }
  }
  // Callers with the same rules share a table: a hundred callers named in one rule cost one.
  const shared = new Map<string, RuleTable>();
  const byCaller = new Map<string, RuleTable>();
  for (const [caller, own] of ofCaller) {
    const key = own.map(({ compiled }) => compiled.order).join();
    const table = shared.get(key) ?? tableOf(own);
    shared.set(key, table);
    byCaller.set(caller, table);
  }
  return { byCaller, any: any.length > 0 ? tableOf(any) : undefined };
}

type Growing = {
  here: CompiledRule[];
  below: CompiledRule[];
  literals: Map<number, Literal[]> | undefined;
  variable: Growing | undefined;
};

function tableOf(pairs: readonly Pair[]): RuleTable {
  const root = seedling();
  for (const { rule, compiled } of pairs) {
    if (!rule.paths) root.below.push(compiled);
    else for (const pattern of rule.paths) grow(root, pattern, compiled);
  }
  return { root };
}

function grow(root: Growing, pattern: string, rule: CompiledRule): void {
  const { segments, isTree } = splitPattern(pattern);
  // Matching is on canonical paths: any other pattern would never match, and a denial would deny nothing.
  const plain = segments.map((segment) => (isVariable(segment) ? "id" : segment)).join("/");
  if (
    !pattern.startsWith("/") ||
    segments.some((s) => s.includes("*")) ||
    !isCanonical(`/${plain}`)
  )
    throw new TypeError(
      `rule ${rule.id}: ${JSON.stringify(pattern)} is not a pattern of canonical paths`,
    );
  let node: Growing = root;
  for (const segment of segments) {
    if (isVariable(segment)) {
      node.variable ??= seedling();
      node = node.variable;
    } else node = literalOf(node, segment);
  }
  const rules = isTree ? node.below : node.here;
  if (!rules.includes(rule)) rules.push(rule);
}

function isCanonical(path: string): boolean {
  const canonical = canonicalPath(path, { encodedSlash: true });
  return canonical?.path === path && canonical.query === "";
}

function literalOf(node: Growing, text: string): Growing {
  node.literals ??= new Map();
  const hash = hashSegment(text, 0, text.length);
  const bucket = node.literals.get(hash) ?? [];
  node.literals.set(hash, bucket);
  const found = bucket.find((literal) => literal.text === text);
  if (found) return found.node as Growing;
  const next = seedling();
  bucket.push({ text, node: next });
  return next;
}

function seedling(): TrieNode & Growing {
  return { here: [], below: [], literals: undefined, variable: undefined };
}
