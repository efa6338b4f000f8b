import type { Clock } from "../../base/clock.ts";
import type { Hit } from "../../model/hit.ts";
import type { HitFilter } from "../../model/hit-filter.ts";
import type { SubscribeNeeds } from "../needs.ts";
import { type Down, encode, hitsPerPageMax, queriesMax } from "../protocol.ts";

/**
 * Answers the control plane's questions about hits, one page for each asking. At most 16 searches are open; one that nobody
 * asked about for 30 s is given up.
 */
export function answerQueries(options: {
  readonly clock: Clock;
  readonly onQuery: SubscribeNeeds["onQuery"];
  readonly send: (line: string) => void;
}): QueryAnswers {
  const { clock, send } = options;
  const open = new Map<number, Search>();

  const give = async (id: number, search: Search): Promise<void> => {
    if (search.busy) return;
    search.busy = true;
    search.askedMs = clock();
    try {
      while (search.rest.length === 0 && !search.ended) {
        const { done, value } = await search.pages.next();
        if (done) search.ended = true;
        else search.rest = [...value];
      }
    } catch (cause) {
      search.ended = true;
      if (open.delete(id)) send(lastPage(id, cause instanceof Error ? cause.message : "unknown"));
      return;
    }
    if (open.get(id) !== search) return; // stopped meanwhile
    const hits = search.rest.splice(0, hitsPerPageMax);
    const done = search.ended && search.rest.length === 0;
    if (done) open.delete(id);
    search.busy = false;
    send(encode({ type: "hits.page", id, hits, done }));
  };
  const stop = (id: number): void => {
    const search = open.get(id);
    open.delete(id);
    void search?.pages.return(undefined).catch(() => {});
  };

  return {
    take(message) {
      if (message.type === "hits.stop") stop(message.id);
      else if (message.type === "hits.more") {
        const search = open.get(message.id);
        if (search) void give(message.id, search);
        else send(lastPage(message.id, "the search was given up: nobody asked for 30 seconds"));
      } else if (open.size >= queriesMax || open.has(message.id)) {
        send(lastPage(message.id, "too many searches at once"));
      } else {
        const search: Search = {
          // A log that cannot even be opened is told as the first page, like one that breaks off later.
          pages: begin(options.onQuery, message.filter),
          rest: [],
          ended: false,
          busy: false,
          askedMs: clock(),
        };
        open.set(message.id, search);
        void give(message.id, search);
      }
    },
    tick() {
      for (const [id, search] of open)
        if (!search.busy && clock() - search.askedMs > idleMs) stop(id);
    },
    stopAll() {
      for (const id of [...open.keys()]) stop(id);
    },
  };
}

const idleMs = 30_000;

export type QueryAnswers = {
  take(message: Extract<Down, { type: "hits.query" | "hits.more" | "hits.stop" }>): void;
  /** Called once a second. */
  tick(): void;
  stopAll(): void;
};

async function* begin(
  onQuery: SubscribeNeeds["onQuery"],
  filter: HitFilter,
): AsyncGenerator<readonly Hit[]> {
  yield* onQuery(filter);
}

type Search = {
  readonly pages: AsyncGenerator<readonly Hit[]>;
  rest: Hit[];
  ended: boolean;
  busy: boolean;
  askedMs: number;
};

function lastPage(id: number, problem: string): string {
  return encode({ type: "hits.page", id, hits: [], done: true, problem: problem.slice(0, 1_024) });
}
