import type { NewHit } from "../recorder.ts";
import { sourceOf } from "../source.ts";

/** Sources and reasons that are told apart within a second. */
const bucketsMax = 4096;
/** Single lines a second for all sources together: a crowd of sources is as cheap to come by as one. */
const linesPerSecondMax = 2000;
/** Source of a `sum` line that stands for a crowd. */
const crowd = "many";

type Bucket = {
  readonly source: string;
  readonly like: NewHit;
  /** When the latest hit came. */
  at: number;
  lines: number;
  /** Id of the second's `sum` line, once there is one. */
  sum: string | undefined;
  /** Hits beyond the one that the first `sum` line counts. */
  more: number;
};

/**
 * Counts what strangers do beyond a budget, so that nobody can write the disk full by being refused. For each source and
 * reason a second has at most `perSecond` lines; the next hit is a `sum` line with `count: 1`, written at once because a
 * refused peer may be told its id, and the rest is one more `sum` line at the second's end, `of` the first. The number of other
 * lines plus all counts is the number of hits.
 */
export class StrangerBudget {
  readonly #perSecond: number;
  readonly #add: (hit: NewHit) => string;
  readonly #buckets = new Map<string, Bucket>();
  #second = 0;
  #lines = 0;

  constructor(perSecond: number, add: (hit: NewHit) => string) {
    this.#perSecond = perSecond;
    this.#add = add;
  }

  /** The id of the line that stands for the hit. */
  add(hit: NewHit, now: number): string {
    this.settle(now);
    const bucket = this.#bucketOf(hit);
    bucket.at = hit.at;
    if (bucket.lines < this.#perSecond && this.#lines < linesPerSecondMax) {
      bucket.lines++;
      this.#lines++;
      return this.#add(hit);
    }
    if (bucket.sum === undefined) bucket.sum = this.#add(sumOf(bucket, 1));
    else bucket.more++;
    return bucket.sum;
  }

  /** Writes what is still only counted, when its second is over. */
  settle(now: number): void {
    const second = Math.floor(now / 1000);
    if (second === this.#second) return;
    this.#second = second;
    this.finish();
  }

  /** Writes what is still only counted. */
  finish(): void {
    for (const bucket of this.#buckets.values())
      if (bucket.more > 0) this.#add({ ...sumOf(bucket, bucket.more), of: bucket.sum ?? "" });
    this.#buckets.clear();
    this.#lines = 0;
  }

  #bucketOf(hit: NewHit): Bucket {
    const source = sourceOf(hit.peer);
    const known = this.#buckets.get(`${source} ${hit.code}`);
    if (known && (known.sum !== undefined || this.#lines < linesPerSecondMax)) return known;
    const isCrowded = this.#buckets.size >= bucketsMax || this.#lines >= linesPerSecondMax;
    const name = isCrowded ? `${crowd} ${hit.code}` : `${source} ${hit.code}`;
    let bucket = this.#buckets.get(name);
    if (!bucket) {
      // Codes are our own and few, so the crowd's buckets may go beyond the table.
      bucket = {
        source: isCrowded ? crowd : source,
        like: hit,
        at: hit.at,
        lines: 0,
        sum: undefined,
        more: 0,
      };
      this.#buckets.set(name, bucket);
    }
    return bucket;
  }
}

function sumOf({ at, like, source }: Bucket, count: number): NewHit {
  return {
    at,
    plane: like.plane,
    kind: "sum",
    decision: like.decision,
    ...(like.code === undefined ? {} : { code: like.code }),
    peer: source,
    ...(like.local === undefined ? {} : { local: like.local }),
    ...(like.gate === undefined ? {} : { gate: like.gate }),
    count,
  };
}
