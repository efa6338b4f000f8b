/**
 * Every limit of the data plane that the register does not set, named and explained once. They are per worker, so that none
 * of them needs a lock; a gate with n workers admits n times the totals.
 */
export const bounds = {
  /** From accept to the end of the handshake. */
  handshakeMs: 5_000,
  /** What is read of a peer before it is known to speak TLS. */
  firstFlightBytes: 16_384,
  firstFlightReads: 64,
  /** In flight. Beyond either of them the oldest that stalls gives way: silent for the first of these times, unfinished for the second. */
  handshakes: 2_048,
  handshakesPerSource: 512,
  silentMs: 100,
  stalledMs: 1_000,
  connections: 20_000,
  connectionsPerCaller: 12_000,
  /** From a request's first byte to the end of its head. */
  headMs: 10_000,
  headBytes: 32_768,
  headers: 100,
  /** Keep-alive connection on which nothing happens. */
  idleMs: 60_000,
  /** How a refused peer's connection is closed: half-close, then this much is read and thrown away. */
  discardBytes: 1_048_576,
  discardMs: 2_000,
  /** Responses say `Connection: close` from this long before the caller's leaf expires. */
  expirySoonMs: 300_000,
  /** Kept for a caller that is slower than its upstream, beyond the socket's own buffer. */
  pendingBytes: 262_144,
  /** Connections to one upstream address, idle and busy. */
  upstreamConnections: 1_024,
  /** Requests that wait for one of them. */
  upstreamWaiting: 1_024,
  /** How long a pooled connection may rest where the upstream does not say: Node's servers close after five seconds. */
  upstreamIdleMs: 4_000,
  upstreamIdleMost: 256,
  /** How long an upstream address that refused a connection is passed over, at first and at most. */
  upstreamRestMs: 500,
  upstreamRestMostMs: 15_000,
  /** How often a host name behind the gate is looked up again. */
  resolveMs: 5_000,
  /** What is kept of a response head. */
  responseHeadBytes: 65_536,
  sweepMs: 250,
} as const;
