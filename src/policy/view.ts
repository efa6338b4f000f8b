import type { RateLimit, Timeouts, Upstream } from "../model/register.ts";
import type { Revocation } from "../model/snapshot.ts";

/**
 * What a snapshot compiles to: tables that answer without parsing. Plain data (objects, arrays, Maps), so that one service's
 * part can cross to a worker by structured clone; the questions are functions in `ask.ts`.
 */
export type View = {
  readonly epoch: number;
  readonly version: number;
  /** When the snapshot was published, epoch ms. */
  readonly at: number;
  readonly trustDomain: string;
  /** Every registered service by name. Callers must be among them. */
  readonly services: ReadonlyMap<string, CompiledService>;
  /** What a `Host` or SNI means: `orders`, `metrics.orders`, extra `hosts`; lower case, no port. Gated ports only. */
  readonly routes: ReadonlyMap<string, CompiledPort>;
  readonly revocations: Revocations;
};

export type Revocations = {
  /** Principal's short form → epoch ms: leaves issued before it are out. */
  readonly principals: ReadonlyMap<string, number>;
  readonly serials: ReadonlySet<string>;
  readonly lineages: ReadonlySet<string>;
  readonly all: readonly Revocation[];
};

export type CompiledService = {
  readonly name: string;
  /** Changes exactly when something compiled from the service changes. */
  readonly digest: string;
  readonly audit: "required" | "bestEffort";
  readonly staleAfter?: { readonly afterMs: number; readonly then: "warn" | "refuse" };
  readonly accept: {
    readonly encodedSlash: boolean;
    readonly underscoreHeaders: boolean;
    readonly userHeaders: boolean;
  };
  /** Names that lead to a port of this service → name of the port. */
  readonly hosts: ReadonlyMap<string, string>;
  readonly ports: ReadonlyMap<string, CompiledPort>;
};

export type CompiledPort = {
  readonly service: string;
  readonly port: string;
  readonly protocol: "http" | "grpc" | "tcp";
  readonly audit: "required" | "bestEffort";
  readonly staleAfter?: { readonly afterMs: number; readonly then: "warn" | "refuse" };
  readonly accept: {
    readonly encodedSlash: boolean;
    readonly underscoreHeaders: boolean;
    readonly userHeaders: boolean;
  };
  readonly upstreams: readonly Upstream[];
  readonly timeouts: Timeouts;
  /** Until when plaintext to an upstream off loopback is excused (`plaintext.expiresMs`), epoch ms; 0: never. */
  readonly plaintextUntilMs: number;
  /** Rules for one caller by its service name; `any` holds those `from: "*"`. */
  readonly deny: RuleTables;
  readonly allow: RuleTables;
};

export type RuleTables = {
  readonly byCaller: ReadonlyMap<string, RuleTable>;
  readonly any: RuleTable | undefined;
};

/** Path trie. How it is laid out is `compile.ts`'s business; `ask.ts` alone walks it. */
export type RuleTable = { readonly root: TrieNode };

export type TrieNode = {
  /** Rules that match exactly here. */
  readonly here: readonly CompiledRule[];
  /** Rules that match here and at anything below. */
  readonly below: readonly CompiledRule[];
  /** By `hashSegment` of the literal, so that a lookup cuts no string out of the path. */
  readonly literals: ReadonlyMap<number, readonly Literal[]> | undefined;
  readonly variable: TrieNode | undefined;
};

export type Literal = { readonly text: string; readonly node: TrieNode };

export type CompiledRule = {
  readonly id: string;
  readonly effect: "allow" | "deny";
  /** Undefined: every method. `HEAD` is already in where `GET` is. */
  readonly methods: ReadonlySet<string> | undefined;
  /** 0: never. */
  readonly expiresMs: number;
  readonly hours: CompiledHours | undefined;
  readonly limit: CompiledLimit | undefined;
  /** Position in the register, so that the first match of several tables can be told. */
  readonly order: number;
};

export type CompiledHours = {
  readonly days: readonly number[];
  readonly startMinute: number;
  readonly endMinute: number;
  readonly zone: string;
};

export type CompiledLimit = RateLimit & {
  /** Caller's service name → slot in the shared GCRA table, the same in every worker and every later view. */
  readonly slots: ReadonlyMap<string, number>;
};

/** What crosses to a worker: the header, and only the services that changed or went. */
export type ViewPatch = {
  readonly epoch: number;
  readonly version: number;
  readonly at: number;
  readonly trustDomain: string;
  readonly revocations: readonly Revocation[];
  readonly changed: readonly CompiledService[];
  readonly removed: readonly string[];
};
