/**
 * The register as the rest of the program sees it: parsed, merged, every default filled in, plain JSON (it travels in
 * snapshots). `register/parse.ts` is the only maker. All durations are milliseconds, all instants epoch milliseconds.
 */
export type Register = {
  readonly version: 1;
  readonly trustDomain: string;
  /** Name → CIDRs in canonical text. */
  readonly networks: Readonly<Record<string, readonly string[]>>;
  readonly planes: Planes;
  readonly lifetimes: Lifetimes;
  /** By name, in the order of the file. */
  readonly services: Readonly<Record<string, Service>>;
};

export type Planes = {
  readonly control: Door;
  readonly join: Door;
  readonly ops: Door;
  readonly data: Door;
  /** Ports nobody has a reason to touch; each connection is a hit and a warning. */
  readonly decoys: readonly Bind[];
};

export type Door = {
  /** One or more addresses this door listens on. */
  readonly binds: readonly Bind[];
  /** Names of networks, or CIDRs, that peers must come from. Empty: the network of the bind decides (see `base/guard`). */
  readonly from: readonly string[];
};

export type Bind = {
  /** As written: `mesh:7443`, `127.0.0.1:7440`, `[::1]:7440`. */
  readonly text: string;
  /** IP literal (no brackets), host name, or the name of a network. */
  readonly host: string;
  readonly kind: "address" | "hostname" | "network";
  /** 0 to 65535; 0 picks a free one (tests and the demo). */
  readonly port: number;
  readonly unsafeBind?: Excuse;
};

/** A danger spelled out: why it is accepted and until when. */
export type Excuse = { readonly why: string; readonly expiresMs: number };

export type Lifetimes = {
  /** Lifetime of service and gate leaves; undefined: 1 h when control runs apart, 12 h under `up`. 5 min to 24 h. */
  readonly leafMs?: number;
};

export type Service = {
  readonly name: string;
  readonly owner: string;
  readonly why?: string;
  /** Other names callers may put in `Host` for this service's main port; lower case, no port. */
  readonly hosts: readonly string[];
  /** By name. A service without ports only calls. */
  readonly ports: Readonly<Record<string, Port>>;
  readonly allow: readonly Rule[];
  readonly deny: readonly Rule[];
  /** `required`: without a writable hit log its requests are refused. */
  readonly audit: "required" | "bestEffort";
  /** How long after expiry a leaf may still be renewed with its key; undefined: not at all. */
  readonly graceMs?: number;
  /** What a gate does once its snapshot is older than this; undefined: serve for ever. */
  readonly staleAfter?: { readonly afterMs: number; readonly then: "warn" | "refuse" };
  /** Exceptions to the strict defaults, named after what they let in. */
  readonly accept: {
    readonly encodedSlash: boolean;
    readonly underscoreHeaders: boolean;
    readonly userHeaders: boolean;
  };
};

export type Port = {
  readonly name: string;
  /** What callers speak. The engine serves `http`; others are refused by `check` where `via` is `gate`. */
  readonly protocol: "http" | "grpc" | "tcp";
  readonly via: "gate" | "direct";
  /** `internal`, `public`, or the name of a network. */
  readonly exposure: string;
  /** Where the service itself listens, for `via: direct`, or where known. */
  readonly port?: number;
  readonly upstreams: readonly Upstream[];
  readonly timeouts: Timeouts;
  /** Why plaintext to an upstream off loopback is accepted. */
  readonly plaintext?: Excuse;
};

export type Upstream =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

export type Timeouts = {
  /** TCP connect to an upstream. Default 1 s. */
  readonly connectMs: number;
  /** From the request's end to the response head. Default 15 s. */
  readonly responseHeadMs: number;
  /** No byte in either direction of a request in flight. Default 60 s. */
  readonly idleMs: number;
};

export type Rule = {
  /** Unique within its service. */
  readonly id: string;
  readonly effect: "allow" | "deny";
  /** Names of calling services, or `["*"]`: every registered service. */
  readonly from: readonly string[];
  /** Names of gated ports; by default the service's main port. Never empty. */
  readonly ports: readonly string[];
  /** Upper case; `GET` includes `HEAD`. Undefined: every method. */
  readonly methods?: readonly string[];
  /** Patterns: literal segments, `:id` one segment, trailing `/**` it and all below. Undefined: every path. */
  readonly paths?: readonly string[];
  readonly limit?: RateLimit;
  readonly expiresMs?: number;
  readonly hours?: Hours;
  readonly why?: string;
};

/** GCRA: `count` per `perMs`, and `burst` (at least 1) that may come at once. */
export type RateLimit = { readonly count: number; readonly perMs: number; readonly burst: number };

export type Hours = {
  /** 0 Sunday … 6 Saturday. */
  readonly days: readonly number[];
  /** Minutes since midnight in `zone`; an end at or before the start is the next day's. */
  readonly startMinute: number;
  readonly endMinute: number;
  /** IANA time zone. */
  readonly zone: string;
};

/** The port that a bare `Host: orders` means: the one named `http`, or the only gated one. */
export function mainPort(service: Pick<Service, "ports">): Port | undefined {
  const gated = Object.values(service.ports).filter((port) => port.via === "gate");
  return gated.find((port) => port.name === "http") ?? (gated.length === 1 ? gated[0] : undefined);
}
