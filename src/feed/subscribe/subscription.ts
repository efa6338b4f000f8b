import type { Clock, Random } from "../../base/clock.ts";
import type { Credentials } from "../../base/credentials.ts";
import type { Running } from "../../base/lifecycle.ts";
import type { Log } from "../../base/log.ts";
import type { Snapshot } from "../../model/snapshot.ts";
import type { Warning } from "../../model/warning.ts";
import type { SubscribeNeeds } from "../needs.ts";

/** The gate's end of the feed, for as long as the gate runs: it reconnects by itself. */
export type Subscription = Running & {
  /** The snapshot in force here: from the feed, or from disk before the feed was reached. */
  lastGood(): Snapshot | undefined;
  state(): SubscriptionState;
  /** `heldRoots` has something new: control is told at once, instead of within a second. */
  rootsChanged(): void;
  /** Tells control, at once or after the next connection. The newest 1,000 are kept while there is none. */
  warn(warning: Warning): void;
};

export type SubscriptionState = {
  readonly connected: boolean;
  /** When the present connection, or the present lack of one, began. Epoch ms. */
  readonly since: number;
  /** When a byte of control last came. Epoch ms; undefined: never since the start. */
  readonly lastContactMs: number | undefined;
  /** `host:port` of the join door in use. */
  readonly join: string | undefined;
  /** What keeps the feed, or the newest snapshot, from being used; undefined: nothing. */
  readonly problem: string | undefined;
};

export type SubscriptionOptions = SubscribeNeeds & {
  /** Join doors, `host:port` (`[::1]:7442`), tried in turn. */
  readonly join: readonly string[];
  /** The gate's name: the `front` of `gate/front`. */
  readonly gate: string;
  /** Version of this program. */
  readonly version: string;
  /** The gate's control-plane leaf; asked again for each connection and once a second. */
  readonly credentials: () => Credentials;
  /** The gate's own state directory; must exist with mode 0700. */
  readonly dir: string;
  /** The snapshot key that was pinned at enrolment: SPKI, PEM. Another one than last time (a new enrolment) starts afresh. */
  readonly pinnedKey: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Overrides for tests. */
  readonly timings?: Partial<SubscriptionTimings>;
};

export type SubscriptionTimings = {
  /** Connecting, TLS and the upgrade together. Default 5 s. */
  readonly connectMs: number;
  /** First and longest wait between attempts. Defaults 100 ms and 10 s. */
  readonly backoffMinMs: number;
  readonly backoffMaxMs: number;
  /** Silence after which the connection counts as dead. Default 9 s: control pings every 3. */
  readonly silenceMs: number;
  /** Heads and status are sent, credentials looked at, this often. Default 1 s. */
  readonly tickMs: number;
};
