import { generateKeyPairSync } from "node:crypto";
import type { Clock, Random } from "../../base/clock.ts";
import type { Credentials } from "../../base/credentials.ts";
import type { Running } from "../../base/lifecycle.ts";
import type { Log } from "../../base/log.ts";
import type { Issuance } from "../../identity/issue/issuance.ts";
import { renewAt } from "../../identity/renew/renewal-schedule.ts";
import type { Principal } from "../../model/principal.ts";

/** A leaf that control gives itself, or its first administrator, without asking anybody. */
export type OwnLeaf = Running & {
  /** In use now. */
  credentials(): Credentials;
  /** Makes a new one at once: the authority has changed. What fails is thrown, and tried again within half a minute. */
  refresh(): Promise<void>;
};

/**
 * Issues a leaf of the control plane with a new key, and again in time, for as long as the process runs. `onNew` is called
 * with each one, the first before this resolves. Looks every half minute, so that a machine that slept is noticed.
 */
export async function keepOwnLeaf(options: {
  readonly principal: Principal;
  readonly issuance: Issuance;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly onNew: (credentials: Credentials) => void | Promise<void>;
}): Promise<OwnLeaf> {
  const { clock, issuance, log, principal } = options;
  let current: Credentials;
  let dueMs = 0;

  async function issue(): Promise<{ credentials: Credentials; renewMs: number }> {
    const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const { chain, bundle, record } = await issuance.issueDirect({
      principal,
      plane: "control",
      publicKeySpki: pair.publicKey.export({ format: "der", type: "spki" }),
    });
    const keyPem = pair.privateKey.export({ format: "pem", type: "pkcs8" }).toString();
    const renewMs = renewAt(record.notBeforeMs, record.notAfterMs, options.random);
    return { credentials: { keyPem, chainPem: chain, bundlePem: bundle }, renewMs };
  }

  let last: Promise<void> = Promise.resolve();
  function refresh(): Promise<void> {
    const turn = async (): Promise<void> => {
      // Until all of it is done it stays due, so that what failed is tried again.
      dueMs = 0;
      const { credentials, renewMs } = await issue();
      current = credentials;
      await options.onNew(current);
      dueMs = renewMs;
    };
    const next = last.then(turn, turn);
    last = next.catch(() => {});
    return next;
  }

  await refresh();
  const timer = setInterval(() => {
    if (clock() < dueMs) return;
    refresh().catch((cause) =>
      log.error(
        { err: cause, principal },
        "its certificate could not be renewed; tried again soon",
      ),
    );
  }, 30_000);
  return {
    credentials: () => current,
    refresh,
    async close() {
      clearInterval(timer);
      await last;
    },
  };
}
