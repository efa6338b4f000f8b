import type { Revocation } from "../../model/snapshot.ts";
import type { Confirmation, RevocationWatch } from "./publisher.ts";

/** Which gate has confirmed which revocation. The newest 1,000 are kept, and sent again to gates that come back. */
export function createRevocationLedger(enrolled: () => readonly string[]): RevocationLedger {
  const entries = new Map<number, Entry>();
  // Gates remember no sequence beyond their connection, so it may begin anew with each process.
  let sequence = 0;
  let closed = false;

  const standing = ({ revocation, confirmed }: Entry): Confirmation => {
    // A gate whose own identity was revoked is cut off, not asked.
    const asked = enrolled().filter((name) => revocation.principal !== `gate/${name}`);
    return {
      confirmed: [...confirmed].sort(),
      missing: asked.filter((name) => !confirmed.has(name)).sort(),
    };
  };
  const wake = (entry: Entry): void => {
    for (const waiter of [...entry.waiting]) waiter();
  };

  return {
    open(revocation) {
      sequence += 1;
      const entry: Entry = { sequence, revocation, confirmed: new Set(), waiting: new Set() };
      entries.set(sequence, entry);
      const [oldest] = entries.keys();
      if (entries.size > entriesMax && oldest !== undefined) entries.delete(oldest);
      const confirmed = (waitMs: number): Promise<Confirmation> =>
        new Promise((resolve) => {
          const settle = (): void => {
            clearTimeout(deadline);
            entry.waiting.delete(look);
            resolve(standing(entry));
          };
          const look = (): void => {
            if (closed || standing(entry).missing.length === 0) settle();
          };
          const deadline = setTimeout(settle, waitMs);
          entry.waiting.add(look);
          look();
        });
      return { sequence, watch: { confirmed } };
    },
    confirm(number, gate) {
      const entry = entries.get(number);
      if (!entry) return;
      entry.confirmed.add(gate);
      wake(entry);
    },
    openFor: (gate) => [...entries.values()].filter((entry) => !entry.confirmed.has(gate)),
    close() {
      closed = true;
      for (const entry of entries.values()) wake(entry);
    },
  };
}

const entriesMax = 1_000;

type Entry = {
  readonly sequence: number;
  readonly revocation: Revocation;
  readonly confirmed: Set<string>;
  readonly waiting: Set<() => void>;
};

export type RevocationLedger = {
  open(revocation: Revocation): { readonly sequence: number; readonly watch: RevocationWatch };
  confirm(sequence: number, gate: string): void;
  /** What the gate has not confirmed, oldest first. */
  openFor(gate: string): readonly Pick<Entry, "sequence" | "revocation">[];
  /** Lets everybody who waits go, with what is known. */
  close(): void;
};
