import {
  type AddressClass,
  type Cidr,
  cidrContains,
  cidrMayBePublic,
  classifyAddress,
  compileCidrs,
  formatHostPort,
  parseAddress,
  parseCidr,
  suggestCidr,
} from "./address.ts";
import type { Problem } from "./problem.ts";

/** What somebody wants a door of ours to listen on. */
export type BindRequest = {
  /** As written, for messages: `mesh:7443`. */
  readonly text: string;
  /** IP literal without brackets, host name, or the name of a network. */
  readonly host: string;
  readonly kind: "address" | "hostname" | "network";
  /** 0 picks a free one. */
  readonly port: number;
  /** A danger spelled out, and until when (epoch ms) it is accepted. */
  readonly unsafeBind?: { readonly why: string; readonly expiresMs: number };
};

/** One address of this machine, as `node:os` tells it; a link-local IPv6 address carries its zone. */
export type LocalAddress = {
  readonly address: string;
  readonly family: "IPv4" | "IPv6";
  /** Whether it is a loopback interface's. */
  readonly internal: boolean;
  /** The address with the prefix of its subnet, `10.20.0.5/16`. */
  readonly cidr?: string | null;
};

/** All that the guard asks of the world. */
export type BindWorld = {
  /** Name → CIDRs. */
  readonly networks: Readonly<Record<string, readonly string[]>>;
  readonly interfaces: () => readonly LocalAddress[];
  /** Every address of a host name, both families. */
  readonly resolve: (host: string) => Promise<readonly string[]>;
  /** Epoch ms; decides whether an `unsafeBind` still stands. */
  readonly nowMs: number;
};

export type Endpoint = { readonly host: string; readonly port: number };

export type ResolvedBind = {
  /** Canonical IP literals, each once. Empty whenever any of them may not be bound. */
  readonly addresses: readonly Endpoint[];
  readonly problems: readonly Problem[];
};

/**
 * Which addresses a bind means on this machine, now, and whether it may have them. Judged by what each address means after
 * every name has been expanded, never by how it was written. Loopback and private addresses are free; shared space
 * (100.64/10) only inside a named network; wildcard, public, link-local, metadata, multicast and reserved ones need an
 * `unsafeBind` that has not expired. Fails closed: one address that may not be bound closes the whole bind, and so does
 * whatever could not be found out. Never throws.
 */
export async function resolveBind(bind: BindRequest, world: BindWorld): Promise<ResolvedBind> {
  const judge = new Judge(bind, world.nowMs);
  if (!Number.isInteger(bind.port) || bind.port < 0 || bind.port > 65_535)
    judge.refuse("bind-port", `${bind.port} is no port`, "write 0 to 65535");
  const hosts =
    bind.kind === "network" ? expandNetwork(judge, world) : await expandHost(judge, world);
  for (const host of hosts) {
    const meaning = classifyAddress(host);
    if (meaning === "loopback" || meaning === "private") continue;
    if (meaning === "shared" && isInANetwork(host, world.networks)) continue;
    judge.danger(meaning, host);
  }
  const addresses = judge.closed ? [] : hosts.map((host) => ({ host, port: bind.port }));
  return { addresses, problems: judge.problems };
}

/**
 * The last check, on what the kernel says after `listen`: whatever went wrong before, no door stays open on an address that
 * was not allowed. Throws an `Error`; the caller must close the listener. An allowed port of 0 stands for any port.
 */
export function assertBound(
  actual: BoundAddress | string | null,
  allowed: readonly Endpoint[],
): void {
  if (actual !== null && typeof actual !== "string") {
    const bound = parseAddress(actual.address);
    const isAllowed = allowed.some((endpoint) => {
      const wanted = parseAddress(endpoint.host);
      if (!bound || !wanted || bound.family !== wanted.family) return false;
      // The kernel may leave out the zone it was given.
      const isSame = bound.zone === undefined || bound.zone === wanted.zone;
      const isSamePort = actual.port > 0 && (endpoint.port === actual.port || endpoint.port === 0);
      return isSame && isSamePort && bound.bytes.every((byte, i) => byte === wanted.bytes[i]);
    });
    if (isAllowed) return;
  }
  const name =
    actual === null || typeof actual === "string"
      ? String(actual)
      : formatHostPort(actual.address, actual.port);
  throw new Error(
    `bound to ${name}, which is not what was allowed (${allowed.map(nameOf).join(", ") || "nothing"}); the door stays closed`,
  );
}

/** What `server.address()` and a handle's `getsockname` give. */
export type BoundAddress = { readonly address: string; readonly port: number };

/**
 * What to open and what to close when a bind was resolved again, every `followEveryMs`: Node has no event for interfaces
 * that change. A name that could not be looked up this time closes nothing that was allowed before; everything else that
 * is no longer allowed, an `unsafeBind` that expired among it, is closed.
 */
export function followBinds(
  before: readonly Endpoint[],
  now: ResolvedBind,
): { readonly open: readonly Endpoint[]; readonly close: readonly Endpoint[] } {
  const closing = now.problems.filter((problem) => problem.severity !== "warning");
  if (closing.length > 0 && closing.every((problem) => problem.code === "bind-unresolved"))
    return { open: [], close: [] };
  const wanted = new Set(now.addresses.map(nameOf));
  const held = new Set(before.map(nameOf));
  return {
    open: now.addresses.filter((endpoint) => !held.has(nameOf(endpoint))),
    close: before.filter((endpoint) => !wanted.has(nameOf(endpoint))),
  };
}

/** How often binds are resolved again: an address that comes or goes is noticed before a person would look for it. */
export const followEveryMs = 5000;

/**
 * Who may connect to one listener, by the peer's address, compiled once. `from` lists names of networks and CIDRs. When it
 * is empty the listener's own address decides: loopback admits loopback; a bind by network's name admits that network;
 * another private address admits the named networks it lies in, else the subnet of its interface, else itself; an address
 * that stands open by `unsafeBind` admits everybody, as its `why` has to justify.
 * Fails closed: text that is no address is admitted nowhere. Throws a `TypeError` for a name that is no network.
 */
export function admitsFrom(
  from: readonly string[],
  listener: { readonly bind: BindRequest; readonly host: string },
  world: Pick<BindWorld, "networks" | "interfaces">,
): (ip: string) => boolean {
  if (from.length > 0)
    return compileCidrs(from.flatMap((name) => rangesOf(world.networks, name) ?? [name]));
  const { bind, host } = listener;
  const meaning = classifyAddress(host);
  if (meaning === "loopback") return (ip) => classifyAddress(ip) === "loopback";
  const named = bind.kind === "network" ? rangesOf(world.networks, bind.host) : undefined;
  if (named) return compileCidrs(named);
  if (meaning === "private" || meaning === "shared") return compileCidrs(rangesAround(host, world));
  if (bind.unsafeBind && meaning !== "reserved") return (ip) => parseAddress(ip) !== undefined;
  return () => false;
}

/** Collects what is wrong with one bind, in the words of the person who wrote it. */
class Judge {
  readonly bind: BindRequest;
  readonly problems: Problem[] = [];
  closed = false;
  readonly #nowMs: number;

  constructor(bind: BindRequest, nowMs: number) {
    this.bind = bind;
    this.#nowMs = nowMs;
  }

  refuse(code: string, message: string, hint: string): void {
    this.closed = true;
    this.#add({ code, severity: "error", message: `${this.bind.text}: ${message}`, hint });
  }

  /** Refuses unless an `unsafeBind` stands; while it does, says so every time. */
  danger(meaning: AddressClass | "too-wide" | "holds-public", subject: string): void {
    const says = dangers[meaning];
    const message = `${this.bind.text}: ${subject} ${says}`;
    const excuse = this.bind.unsafeBind;
    if (!excuse) {
      this.closed = true;
      this.#add({
        code: `bind-${meaning}`,
        severity: "error",
        message,
        hint: "bind to 127.0.0.1, to a private address, or to the name of a network (mesh:7443); if it must be, add unsafeBind: { why: ..., expires: ... }",
      });
    } else if (!(excuse.expiresMs > this.#nowMs)) {
      // Written so that an expiry that is no number closes the door as well.
      this.expired(message);
    } else {
      this.#add({
        code: "unsafe-bind",
        severity: "warning",
        message: `${message}; accepted until ${dayOf(excuse.expiresMs)} because: ${excuse.why}`,
      });
    }
  }

  /** An excuse that has run out closes this door alone, and blocks nothing else: hence not an `error`. */
  expired(message: string): void {
    this.closed = true;
    this.#add({
      code: "unsafe-bind-expired",
      severity: "time",
      message: `${message}, and its unsafeBind expired on ${dayOf(this.bind.unsafeBind?.expiresMs ?? 0)}: this door stays closed`,
      hint: "bind it to a private address, or give the unsafeBind a new reason and a new date",
    });
  }

  get hasExpiredExcuse(): boolean {
    return this.bind.unsafeBind !== undefined && !(this.bind.unsafeBind.expiresMs > this.#nowMs);
  }

  #add(problem: Problem): void {
    if (!this.problems.some((known) => known.message === problem.message))
      this.problems.push(problem);
  }
}

/** What is wrong with each kind of address, after "127.0.0.1:80: <address>". */
const dangers: Readonly<Record<AddressClass | "too-wide" | "holds-public", string>> = {
  loopback: "is this machine alone",
  private: "is private",
  shared: "is shared address space, which is private only inside a network of the register",
  "link-local": "is link-local: whoever is on the wire reaches it, and no router asks",
  metadata: "belongs to the cloud's metadata service",
  public: "is a public address",
  wildcard: "is every address of this machine, those that come later included",
  multicast: "is a multicast address",
  reserved: "is reserved: nothing should listen there",
  "too-wide": "is wider than /8 (IPv4) or /16 (IPv6), too wide to name a bind",
  "holds-public": "may hold public addresses, so it cannot name a bind",
};

/** Every address of this machine inside the network, both families. */
function expandNetwork(judge: Judge, world: BindWorld): readonly string[] {
  const name = judge.bind.host;
  const texts = rangesOf(world.networks, name);
  if (!texts) {
    judge.refuse("bind-unknown-network", `there is no network "${name}"`, knownNetworks(world));
    return [];
  }
  const ranges = texts.flatMap((text) => {
    const cidr = parseCidr(text);
    if (!cidr)
      judge.refuse(
        "bind-bad-network",
        `"${text}" of network "${name}" is no range`,
        "write it like 10.20.0.0/16",
      );
    else if (isTooWide(cidr)) judge.danger("too-wide", `network "${name}" (${text})`);
    else if (cidrMayBePublic(cidr)) judge.danger("holds-public", `network "${name}" (${text})`);
    return cidr ? [cidr] : [];
  });
  const inside = canonical(world.interfaces().map((local) => local.address)).filter((address) =>
    ranges.some((range) => cidrContains(range, address)),
  );
  if (inside.length === 0)
    judge.refuse(
      "bind-nothing-here",
      `this machine has no address inside network "${name}" (${texts.join(", ")})`,
      "attach the machine to that network, or change the network; it is looked at again every 5 seconds",
    );
  return inside;
}

/** An address as it stands, or every address that a host name resolves to. */
async function expandHost(judge: Judge, world: BindWorld): Promise<readonly string[]> {
  const { host, kind } = judge.bind;
  const literal = parseAddress(host);
  if (literal) return [literal.text];
  if (kind === "address" || classifyAddress(host) === "wildcard") {
    judge.refuse(
      classifyAddress(host) === "wildcard" ? "bind-wildcard" : "bind-not-an-address",
      classifyAddress(host) === "wildcard"
        ? `"${host}" is a way to write every address of this machine`
        : `"${host}" is not an IP address`,
      "write an address in full, like 127.0.0.1 or [::1]",
    );
    return [];
  }
  const found = await world.resolve(host).catch((cause: unknown) => cause);
  if (!Array.isArray(found) || found.length === 0) {
    const reason = found instanceof Error ? `: ${found.message}` : "";
    judge.refuse(
      "bind-unresolved",
      `"${host}" has no address${reason}`,
      "check the name, or bind to an address",
    );
    // Otherwise a resolver that is down would keep a door open beyond its date.
    if (judge.hasExpiredExcuse)
      judge.expired(`${judge.bind.text}: "${host}" could not be looked up`);
    return [];
  }
  const all = [
    ...new Set((found as string[]).map((address) => parseAddress(address)?.text ?? address)),
  ];
  const here = new Set(canonical(world.interfaces().map((local) => local.address)));
  // `localhost` means ::1 too, also where there is no IPv6. What may not be bound stays in, to be refused.
  const kept = all.filter(
    (address) =>
      here.has(address) ||
      address.startsWith("127.") ||
      !["loopback", "private", "shared"].includes(classifyAddress(address)),
  );
  if (kept.length === 0)
    judge.refuse(
      "bind-not-here",
      `"${host}" means ${all.join(", ")}, which is not this machine`,
      "bind to an address of this machine",
    );
  return kept;
}

function canonical(addresses: readonly string[]): readonly string[] {
  return [...new Set(addresses.flatMap((text) => parseAddress(text)?.text ?? []))];
}

function rangesOf(networks: BindWorld["networks"], name: string): readonly string[] | undefined {
  return Object.hasOwn(networks, name) ? networks[name] : undefined;
}

function isInANetwork(host: string, networks: BindWorld["networks"]): boolean {
  return rangesHolding(host, Object.values(networks).flat()).length > 0;
}

function rangesAround(
  host: string,
  world: Pick<BindWorld, "networks" | "interfaces">,
): readonly string[] {
  const named = rangesHolding(host, Object.values(world.networks).flat());
  if (named.length > 0) return named;
  const local = world.interfaces().find((one) => parseAddress(one.address)?.text === host);
  const subnet = local?.cidr ? suggestCidr(local.cidr) : undefined;
  return subnet ? [subnet] : [host];
}

/** Ranges that could name a bind: a network called `internet` (0.0.0.0/0) makes nothing private and lets nobody in. */
function rangesHolding(host: string, ranges: readonly string[]): readonly string[] {
  return ranges.filter((text) => {
    const cidr = parseCidr(text);
    return (
      cidr !== undefined && !isTooWide(cidr) && !cidrMayBePublic(cidr) && cidrContains(cidr, host)
    );
  });
}

function isTooWide(cidr: Cidr): boolean {
  return cidr.prefix < (cidr.family === 4 ? 8 : 16);
}

function knownNetworks(world: BindWorld): string {
  const names = Object.keys(world.networks);
  return names.length === 0
    ? "the register has no networks: add one under networks:"
    : `the register has: ${names.join(", ")}`;
}

function nameOf(endpoint: Endpoint): string {
  return formatHostPort(endpoint.host, endpoint.port);
}

function dayOf(ms: number): string {
  return Number.isFinite(ms) ? new Date(ms).toISOString().slice(0, 10) : "a date nobody can read";
}
