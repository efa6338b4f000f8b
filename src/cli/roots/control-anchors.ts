import type { Clock } from "../../base/clock.ts";
import type { Anchor, ControlStore } from "../../control/store/store.ts";
import type { ChainHead } from "../../model/chain-head.ts";
import type { Warning } from "../../model/warning.ts";

/** The heads of every hit log, kept in the store: what is cut from a log or written anew is missed there. */
export type Anchors = {
  /** What a gate says of its own chains; stored with the next `keep`, which then calls `kept`: of one gate, the latest. */
  heard(gate: string, heads: readonly ChainHead[], kept?: () => void): void;
  /** Stores what is new; what could not be stored is stored the next time. A head that contradicts an older one is a critical warning. */
  keep(): Promise<void>;
};

/** Chains of one gate that are anchored: a gate that restarts every minute begins as many in eleven days. */
const chainsMax = 16_384;

/** Knows from the start which chains the store has. */
export async function openAnchors(options: {
  readonly store: Pick<ControlStore, "anchors" | "saveAnchors">;
  readonly clock: Clock;
  /** Of this process: its name as a source, its heads, and what is to be called when they are stored. */
  readonly own: {
    readonly name: string;
    readonly heads: () => readonly ChainHead[];
    readonly kept: (heads: readonly ChainHead[]) => void;
  };
  readonly raise: (warning: Warning) => void;
  /** Nothing is stored any more. */
  readonly isLeaving: () => boolean;
}): Promise<Anchors> {
  const { clock, own, raise, store } = options;
  const fresh = new Map<string, Anchor>();
  const waiting = new Map<string, () => void>();
  /** Of each gate, all that are anchored: one that was taken over must not fill the store with chains that are none. */
  const known = new Map<string, Set<string>>();
  for (const { source, chain } of await store.anchors())
    known.set(source, (known.get(source) ?? new Set()).add(chain));

  function raiseTooMany(source: string): void {
    raise({
      id: `too-many-chains:${source}`,
      at: clock(),
      detector: "log-changed",
      severity: "critical",
      says: `${source} says that it keeps more than ${chainsMax} chains of hits: no more of them are anchored. A gate that was not restarted as often is not what it was`,
      hits: [],
      count: 1,
    });
  }

  return {
    heard(gate, heads, kept) {
      const source = `gate/${gate}`;
      const chains = known.get(source) ?? new Set<string>();
      known.set(source, chains);
      for (const head of heads) {
        if (!chains.has(head.chain) && chains.size >= chainsMax) {
          raiseTooMany(source);
          break;
        }
        chains.add(head.chain);
        fresh.set(`${gate} ${head.chain}`, { source, at: clock(), ...head });
      }
      if (kept !== undefined) waiting.set(gate, kept);
    },
    async keep() {
      const ownHeads = own.heads();
      const mine = ownHeads.map((head) => ({ source: own.name, at: clock(), ...head }));
      const heads = [...fresh.values(), ...mine];
      if (options.isLeaving()) return;
      const heardNow = new Map(fresh);
      const asked = new Map(waiting);
      fresh.clear();
      waiting.clear();
      let contradictions: readonly Anchor[] = [];
      try {
        if (heads.length > 0) contradictions = await store.saveAnchors(heads);
      } catch (cause) {
        for (const [key, anchor] of heardNow) if (!fresh.has(key)) fresh.set(key, anchor);
        for (const [gate, kept] of asked) if (!waiting.has(gate)) waiting.set(gate, kept);
        throw cause;
      }
      for (const kept of asked.values()) kept();
      own.kept(ownHeads);
      for (const { source, chain, sequence } of contradictions)
        raise({
          id: `log-changed:${source}:${chain}`,
          at: clock(),
          detector: "log-changed",
          severity: "critical",
          says: `the hit log of ${source} contradicts what it said before (chain ${chain}, line ${sequence}): run sallyport hits verify there`,
          hits: [],
          count: 1,
        });
    },
  };
}
