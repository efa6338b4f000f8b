import { setTimeout as wait } from "node:timers/promises";
import { queryHits } from "../../audit/hit-log/query.ts";
import type { FindHit } from "./attempt.ts";

const withinMs = 3_000;
const everyMs = 25;

/** Looks in hit logs on this machine. The hit of a connection is written when it ends, which may be a moment after we saw it end. */
export function findHitIn(dirs: readonly string[]): FindHit {
  return async (which) => {
    const filter =
      "id" in which
        ? { id: which.id }
        : {
            peer: which.peer,
            decision: "refused" as const,
            ...(which.code && { code: which.code }),
          };
    for (const deadline = Date.now() + withinMs; Date.now() < deadline; await wait(everyMs))
      for await (const hit of queryHits(dirs, { ...filter, limit: 1 })) return hit;
    return undefined;
  };
}
