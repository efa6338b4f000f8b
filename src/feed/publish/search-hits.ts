import type { Hit } from "../../model/hit.ts";
import { type HitFilter, hitsByDefault } from "../../model/hit-filter.ts";
import { hitsPerPageMax } from "../protocol.ts";
import type { GateConnection, HitCursor } from "./gate-connection.ts";
import type { HitSearch } from "./publisher.ts";

/**
 * Merges what several gates answer, newest first. Holds one page of each gate. A gate that is away, or falls silent on the way,
 * is named in `absent` and holds up nobody else.
 */
export function searchHits(
  filter: HitFilter,
  gates: readonly (readonly [name: string, connection: GateConnection | undefined])[],
): HitSearch {
  const absent: { gate: string; why: string }[] = [];
  const limit = filter.limit ?? hitsByDefault;

  async function* pages(): AsyncGenerator<readonly Hit[]> {
    const sources: Source[] = [];
    for (const [gate, connection] of gates) {
      if (connection)
        sources.push({
          gate,
          cursor: connection.query({ ...filter, limit }),
          held: [],
          done: false,
        });
      else absent.push({ gate, why: "not connected" });
    }
    let page: Hit[] = [];
    let given = 0;
    try {
      while (given < limit) {
        await Promise.all(sources.map(fill));
        const newest = sources.reduce<Source | undefined>(
          (best, source) => (isLater(source.held[0], best?.held[0]) ? source : best),
          undefined,
        );
        const hit = newest?.held.shift();
        if (!newest || !hit) break;
        // Which gate it was is known from the certificate, not from the line.
        page.push({ ...hit, gate: newest.gate });
        given += 1;
        if (page.length === hitsPerPageMax) {
          yield page;
          page = [];
        }
      }
      if (page.length > 0) yield page;
    } finally {
      for (const source of sources) source.cursor.stop();
    }
  }

  /** Leaves the source with a hit in hand, or done. */
  async function fill(source: Source): Promise<void> {
    while (source.held.length === 0 && !source.done) {
      try {
        const page = await source.cursor.next();
        // A gate that has nothing says `done`: one that keeps answering with nothing would keep us asking for ever.
        if (page.hits.length === 0 && !page.done) throw new Error("it answers with empty pages");
        source.held = [...page.hits];
        source.done = page.done;
        if (page.problem) absent.push({ gate: source.gate, why: page.problem });
      } catch (cause) {
        source.done = true;
        source.cursor.stop();
        absent.push({
          gate: source.gate,
          why: cause instanceof Error ? cause.message : String(cause),
        });
      }
    }
  }

  return { pages: { [Symbol.asyncIterator]: pages }, absent: () => absent };
}

type Source = { readonly gate: string; readonly cursor: HitCursor; held: Hit[]; done: boolean };

function isLater(hit: Hit | undefined, other: Hit | undefined): boolean {
  return hit !== undefined && (other === undefined || hit.at > other.at);
}
