import type { RefusalCode } from "./refusal.ts";

/**
 * One connection or request on an internal port, or one action on the control plane, whatever became of it: a line of the
 * hit log. Absent means unknown or not applicable. Query strings, header values, tokens and keys are never in it.
 */
export type Hit = {
  /** Names one line for ever: `<chain>-<sequence>`, the chain in lower-case base32, the sequence in decimal. */
  readonly id: string;
  /** Epoch ms when it began. */
  readonly at: number;
  /** Which door. */
  readonly plane: "data" | "control" | "join" | "decoy";
  /**
   * `request`: one HTTP request. `connection`: one that never became a request (refused handshake, not TLS, decoy).
   * `action`: something done through the API or the join door. `close`: the second record of a hit, by `of`.
   * `process`: a gate or worker started, died, drained. `sum`: refusals of one source and reason, counted.
   */
  readonly kind: "request" | "connection" | "action" | "close" | "process" | "sum";
  readonly decision: "allowed" | "refused" | "fault";
  /** Why not. Absent when allowed. */
  readonly code?: RefusalCode | string;
  /** The verified caller, `service/web`. */
  readonly caller?: string;
  /** What an unverified peer said it was. Never to be believed. */
  readonly claimed?: string;
  /** Serial of the leaf whose key was proven, lower-case hex. */
  readonly serial?: string;
  /** `ip:port` of the peer, `[ip]:port` for IPv6. */
  readonly peer?: string;
  /** Where it arrived, `ip:port`. */
  readonly local?: string;
  readonly gate?: string;
  readonly service?: string;
  readonly port?: string;
  readonly method?: string;
  /** The canonical path, or, of a request that was refused before it had one, the path as sent; without its query; at most 1,024 characters. */
  readonly path?: string;
  readonly rule?: string;
  /** HTTP status that the client was sent; 0: none. */
  readonly status?: number;
  readonly upstream?: string;
  /** Version of the snapshot that decided, `epoch.version`. */
  readonly snapshot?: string;
  readonly bytesIn?: number;
  readonly bytesOut?: number;
  /** Milliseconds, three decimals. */
  readonly tookMs?: number;
  /** `close`: the id of the hit that this closes. */
  readonly of?: string;
  /** `action`: what was done, `apply`, `token.create`; `process`: `start`, `worker_died`. */
  readonly action?: string;
  /** `sum`: how many hits this line stands for. */
  readonly count?: number;
  /** Set when a tool of ours made the request: `prove`, `demo`. */
  readonly canary?: string;
  /** Anything else worth knowing: OpenSSL's word, SNI, versions offered, first bytes escaped; at most 512 characters. */
  readonly detail?: string;
};
