/** What `GET /v1/status` says of a gate, as far as it is judged here. */
export type GateView = {
  readonly connected: boolean;
  readonly running: object | null;
  readonly addresses: readonly string[];
  /** What the gate counts of itself; a gate of another version may leave any of it out. */
  readonly counters?: Readonly<Record<string, unknown>>;
};

/**
 * Why a connected gate does not serve, and what to do about it: one sentence each, none when it serves. Nothing is said of a gate
 * that is away: what it counted then is not how it is now.
 */
export function gateTroubles(gate: GateView): readonly string[] {
  if (!gate.connected) return [];
  const { counters = {} } = gate;
  const troubles: string[] = [];
  if (counters.audit_failing === 1)
    troubles.push(
      "its hit log cannot be written, so callers get 503 audit_unavailable: free space on its disk, or let it write to its state directory again; it goes on by itself",
    );
  if (counters.workers === 0)
    troubles.push("no worker of it runs, so nobody is answered: read its log, and start it again");
  if (typeof counters.leaf_expires_seconds === "number" && counters.leaf_expires_seconds <= 0)
    troubles.push(
      "its certificate has ended, so callers do not trust it: its log says why it was not renewed, and whether it needs a new token",
    );
  if (typeof counters.names_missing === "number" && counters.names_missing > 0)
    troubles.push(
      `it has no certificate yet for ${Math.floor(counters.names_missing)} names of services, so their callers do not trust it: it asks for them in batches; if the number stays, read its log`,
    );
  if (gate.running === null)
    troubles.push("it serves no snapshot yet: if that lasts, read its log");
  else if (gate.addresses.length === 0)
    troubles.push("none of its data doors is open, so nobody reaches it: see planes.data.bind");
  return troubles;
}

/** Doors that a gate could not open, in its words. Others may be open: a bind need not fit every machine. */
export function shutDoors({ connected, counters }: GateView): readonly string[] {
  const said = connected ? counters?.doorProblems : undefined;
  return Array.isArray(said) ? said.filter((one) => typeof one === "string") : [];
}
