import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { queryHits } from "../../audit/hit-log/query.ts";
import { verifyLog } from "../../audit/hit-log/verify.ts";
import type { Log } from "../../base/log.ts";
import type { HitPage, HitVerdict } from "../../control/needs.ts";
import type { Anchor, ControlStore } from "../../control/store/store.ts";
import type { LogVerdict } from "../../feed/needs.ts";
import type { Publisher } from "../../feed/publish/publisher.ts";
import type { Hit } from "../../model/hit.ts";
import { type HitFilter, hitsByDefault } from "../../model/hit-filter.ts";
import { verdictOf } from "../log-verdict.ts";

/** The hit logs of this control process and of all its gates, as one. */
export type AllHits = {
  find(filter: HitFilter): Promise<HitPage>;
  verify(): Promise<HitVerdict>;
};

/** Logs on this machine are read here, those elsewhere by their gates. */
export function joinHits(options: {
  /** Control's own log. */
  readonly dir: string;
  /** Where the state of gates on this machine lies, a directory each. */
  readonly gatesDir: string;
  /** What control's own anchors are kept under. */
  readonly ownName: string;
  readonly store: Pick<ControlStore, "anchors">;
  readonly keepAnchors: () => Promise<void>;
  /** Undefined before the feed is open. */
  readonly publisher: () => Publisher | undefined;
  /** Bare names. */
  readonly enrolled: ReadonlySet<string>;
  readonly log: Log;
}): AllHits {
  const { dir, gatesDir, log, ownName, publisher, store } = options;

  /** All are held against the heads that lie in the store. */
  async function walk(): Promise<HitVerdict> {
    await options.keepAnchors();
    const here = (existsSync(gatesDir) ? readdirSync(gatesDir) : []).filter((name) =>
      existsSync(join(gatesDir, name, "hits")),
    );
    // Of many chains those that grew last.
    const kept = (await store.anchors()).toSorted((a, b) => b.at - a.at);
    const anchorsOf = (source: string) =>
      kept.filter((anchor) => anchor.source === source).map(withoutSource);
    const absent: string[] = [];
    const asked: (readonly [gate: string | undefined, verdict: LogVerdict])[] = [
      [undefined, verdictOf(await verifyLog([dir], anchorsOf(ownName)))],
    ];
    for (const gate of here)
      asked.push([
        gate,
        verdictOf(await verifyLog([join(gatesDir, gate, "hits")], anchorsOf(`gate/${gate}`))),
      ]);
    const away = [...options.enrolled].filter((name) => !here.includes(name)).sort();
    await Promise.all(
      away.map(async (gate) => {
        try {
          const verdict = await publisher()?.verify(gate, anchorsOf(`gate/${gate}`));
          if (verdict) asked.push([gate, verdict]);
        } catch (cause) {
          log.warn({ gate }, `its hit log could not be verified: ${(cause as Error).message}`);
          absent.push(gate);
        }
      }),
    );
    const named = <T>(gate: string | undefined, of: T) => ({ ...of, ...(gate && { gate }) });
    return {
      // A gate's own word that all is well is not taken against what it names.
      ok: asked.every(([, { ok, chains, problems }]) =>
        [ok, problems.length === 0, ...chains.map((chain) => chain.ok)].every(Boolean),
      ),
      chains: asked.flatMap(([gate, { chains }]) => chains.map((chain) => named(gate, chain))),
      problems: asked.flatMap(([gate, { problems }]) => problems.map((one) => named(gate, one))),
      absent: absent.sort(),
    };
  }

  let verifying: Promise<HitVerdict> | undefined;
  return {
    async find(filter) {
      const hits: Hit[] = [];
      const asked = publisher()?.query(filter);
      for await (const hit of queryHits(dir, filter)) hits.push(hit);
      if (asked) for await (const page of asked.pages) hits.push(...page);
      hits.sort((a, b) => b.at - a.at);
      const absent = (asked?.absent() ?? []).map(({ gate }) => gate);
      return { hits: hits.slice(0, filter.limit ?? hitsByDefault), absent };
    },
    /** Walking the logs costs the disk of every machine: whoever asks meanwhile gets the answer that is on its way. */
    verify() {
      verifying ??= walk().finally(() => {
        verifying = undefined;
      });
      return verifying;
    },
  };
}

function withoutSource({ chain, sequence, head }: Anchor) {
  return { chain, sequence, head };
}
