import type { Clock } from "../../base/clock.ts";
import {
  CredentialsUnusable,
  dropPendingKey,
  keepPendingKey,
  readCredentials,
  type StoredCredentials,
  type StoredIdentity,
  writeCredentials,
} from "../credentials/credential-directory.ts";
import { storedFrom } from "../enroll/enroll.ts";
import { JoinUnreachable, joinRequest } from "../enroll/join-request.ts";
import { makeCsr, makeKey } from "../enroll/make-csr.ts";
import { leafOf } from "../leaf-facts.ts";

/**
 * One renewal: a new key and a new leaf for the identity in `dir`, shown with the old ones, whether or not they are still
 * valid (the control plane decides about grace). The key of a request whose answer was lost is used again. Nothing is replaced
 * until the answer is whole and ours. Throws `CredentialsUnusable`, `JoinRefused` or `JoinUnreachable`.
 */
export async function renew(options: {
  readonly dir: string;
  readonly clock: Clock;
  /** What is left of the trust on disk: roots that were retired since it was written are no longer in it. */
  readonly withTrust?: (held: StoredCredentials) => StoredCredentials;
  /** Ends it early; the next call goes on where it was. */
  readonly signal?: AbortSignal;
}): Promise<StoredCredentials> {
  const { dir } = options;
  const stored = await readCredentials(dir);
  const held = options.withTrust?.(stored) ?? stored;
  const identity = identityOf(dir, held);
  const keyPem = await keepPendingKey(dir, makeKey, held.keyPem);
  const answer = await joinRequest({
    join: identity.join,
    trust: joinTrust(held, identity),
    nowMs: options.clock(),
    method: "POST",
    path: "/join/v1/renew",
    ...(options.signal && { signal: options.signal }),
    body: { csr: await makeCsr(keyPem) },
  });
  const next = storedFrom({
    ...readAnswer(answer),
    keyPem,
    join: identity.join,
    plane: identity.plane,
    principal: identity.principal,
  });
  // An older leaf than ours is no renewal. One that looks expired may be fine: our own clock may be wrong.
  if (leafOf(next.chainPem).notBeforeMs < leafOf(held.chainPem).notBeforeMs)
    throw new JoinUnreachable("the join door answered with an older leaf than ours");
  await writeCredentials(dir, next);
  await dropPendingKey(dir);
  return next;
}

/** How an enrolled caller shows itself at the join door, and whom it takes for it: also for feed and discover. */
export function joinTrust(
  held: StoredCredentials,
  identity: StoredIdentity,
): {
  readonly credentials: { keyPem: string; chainPem: string; bundlePem: string };
  readonly trustDomain: string;
} {
  return {
    credentials: {
      keyPem: held.keyPem,
      chainPem: held.chainPem,
      bundlePem: identity.controlBundle,
    },
    trustDomain: leafOf(held.chainPem).parts.trustDomain,
  };
}

function identityOf(dir: string, held: StoredCredentials): StoredIdentity {
  if (held.identity) return held.identity;
  throw new CredentialsUnusable(
    `${dir} holds no identity.json, so nobody knows where to renew`,
    "enrol again: sallyport enroll --token-file FILE --out DIR",
  );
}

type Answer = {
  readonly chain: string;
  readonly bundle: string;
  readonly controlBundle: string;
};

function readAnswer(answer: unknown): Answer {
  const { chain, bundle, controlBundle } = (answer ?? {}) as Partial<Answer>;
  const isWhole =
    typeof chain === "string" && typeof bundle === "string" && typeof controlBundle === "string";
  if (!isWhole) throw new JoinUnreachable("the answer of the join door is not whole");
  return { chain, bundle, controlBundle };
}
