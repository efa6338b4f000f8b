import type { Clock, Random } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Hit } from "../model/hit.ts";
import type { View } from "../policy/view.ts";

/** What the data plane needs of the hit log: `audit/recorder.ts` says what each promises. */
export type Recorder = {
  add(hit: Omit<Hit, "id">): string;
  flush(): boolean;
  readonly failing: boolean;
};

/** All that a worker's data plane needs from the world. It imports none of those who provide it; `cli/roots` introduces them. */
export type Needs = {
  /** Name of this gate. */
  readonly gate: string;
  /** The view in force; undefined until the first snapshot came. Taken once per request. */
  readonly view: () => View | undefined;
  /** When control last confirmed that the view is current, epoch ms. */
  readonly confirmedMs: Clock;
  readonly recorder: Recorder;
  readonly clock: Clock;
  /** Milliseconds that only go forward, the same clock in every worker of the process. */
  readonly monotonic: Clock;
  readonly random: Random;
  readonly log: Log;
  /** One slot of 32 bits per (rule, caller), shared by all workers. */
  readonly limits: Int32Array;
  /** Whether an address that is about to be dialled is one of this process's own doors. */
  readonly isOwnDoor: (host: string, port: number) => boolean;
};
