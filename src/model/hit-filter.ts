import type { Hit } from "./hit.ts";

/** What to look for in a hit log. Every field narrows; absent ones do not. */
export type HitFilter = {
  readonly id?: string;
  /** Epoch ms, inclusive. */
  readonly sinceMs?: number;
  /** Epoch ms, exclusive. */
  readonly untilMs?: number;
  readonly plane?: Hit["plane"];
  readonly kind?: Hit["kind"];
  readonly decision?: Hit["decision"];
  readonly code?: string;
  /** `service/web`, or `web` for that. */
  readonly caller?: string;
  readonly service?: string;
  /** An address with or without its port. */
  readonly peer?: string;
  readonly rule?: string;
  readonly path?: string;
  /** Of each log that is asked, the newest. Default `hitsByDefault`; over the feed and the API at most 10,000. */
  readonly limit?: number;
};

/** How many hits are given to whoever names no limit. */
export const hitsByDefault = 1_000;
