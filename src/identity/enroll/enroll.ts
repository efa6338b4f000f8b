import { createPublicKey, X509Certificate } from "node:crypto";
import type { Clock } from "../../base/clock.ts";
import { certificatesIn } from "../../base/secure-context.ts";
import { keyId } from "../../base/signature.ts";
import type { Plane, Principal } from "../../model/principal.ts";
import {
  dropPendingKey,
  keepPendingKey,
  type StoredCredentials,
  writeCredentials,
} from "../credentials/credential-directory.ts";
import { leadsToRoot, leafOf } from "../leaf-facts.ts";
import { parseToken, type TokenParts } from "../token.ts";
import { JoinUnreachable, joinRequest } from "./join-request.ts";
import { makeCsr, makeKey } from "./make-csr.ts";

export type Enrolled = {
  readonly principal: Principal;
  readonly credentials: StoredCredentials;
};

/** Not a token, whatever was handed in. Never repeats it. */
export class TokenUnreadable extends Error {}

/**
 * Turns a token into credentials in `out`. The key is made there and stays there; if the answer is lost, the same call may be
 * made again. Throws `TokenUnreadable`, `JoinRefused`, `JoinUnreachable` or `CredentialsUnusable`; nothing was replaced then.
 */
export async function enroll(options: {
  readonly token: string;
  readonly out: string;
  readonly clock: Clock;
}): Promise<Enrolled> {
  const token = readToken(options.token);
  const keyPem = await keepPendingKey(options.out, makeKey);
  const answer = await ask(token, options, { csr: await makeCsr(keyPem) });
  const planes = Object.keys(answer.leaves) as Plane[];
  const [plane] = planes;
  if (plane === undefined || planes.length !== 1) throw malformed("it holds not exactly one leaf");
  const credentials = assemble(token, answer, plane, keyPem);
  await writeCredentials(options.out, credentials);
  await dropPendingKey(options.out);
  return { principal: answer.principal, credentials };
}

export type EnrolledGate = {
  readonly principal: Principal;
  readonly control: StoredCredentials;
  readonly data: StoredCredentials;
  /** SPKI PEM of the key that signs snapshots: to be pinned. */
  readonly snapshotKeyPem: string;
};

/** The same for a gate, which holds a leaf of each plane, with a key of its own for each. */
export async function enrollGate(options: {
  readonly token: string;
  readonly controlOut: string;
  readonly dataOut: string;
  readonly clock: Clock;
}): Promise<EnrolledGate> {
  const token = readToken(options.token);
  const controlKey = await keepPendingKey(options.controlOut, makeKey);
  const dataKey = await keepPendingKey(options.dataOut, makeKey);
  const answer = await ask(token, options, {
    controlCsr: await makeCsr(controlKey),
    dataCsr: await makeCsr(dataKey),
  });
  if (answer.snapshotKey === undefined) throw malformed("it names no key for snapshots");
  const control = assemble(token, answer, "control", controlKey);
  const data = assemble(token, answer, "data", dataKey);
  await writeCredentials(options.controlOut, control);
  await writeCredentials(options.dataOut, data);
  await dropPendingKey(options.controlOut);
  await dropPendingKey(options.dataOut);
  return { principal: answer.principal, control, data, snapshotKeyPem: answer.snapshotKey };
}

type Answer = {
  readonly leaves: {
    readonly [plane in Plane]?: { readonly chain: string; readonly bundle: string };
  };
  readonly principal: Principal;
  readonly controlBundle: string;
  readonly snapshotKey?: string;
};

function readToken(text: string): TokenParts {
  const token = parseToken(text.trim());
  if (!token)
    throw new TokenUnreadable(
      "this is not an enrolment token: it begins with sp1. and has to be copied whole",
    );
  return token;
}

async function ask(
  token: TokenParts,
  options: { readonly token: string; readonly clock: Clock },
  requests: Readonly<Record<string, string>>,
): Promise<Answer> {
  const answer = await joinRequest({
    join: token.join,
    trust: { fingerprint: token.fingerprint },
    nowMs: options.clock(),
    method: "POST",
    path: "/join/v1/enrol",
    body: { token: options.token.trim(), ...requests },
  });
  return readAnswer(answer);
}

function readAnswer(answer: unknown): Answer {
  const { leaves, principal, controlBundle, snapshotKey } = (answer ?? {}) as Partial<Answer>;
  if (typeof leaves !== "object" || leaves === null) throw malformed("it holds no leaves");
  for (const leaf of Object.values(leaves))
    if (typeof leaf?.chain !== "string" || typeof leaf.bundle !== "string")
      throw malformed("a leaf is not whole");
  if (typeof principal !== "string" || typeof controlBundle !== "string")
    throw malformed("it names no principal or no roots");
  if (snapshotKey !== undefined && typeof snapshotKey !== "string")
    throw malformed("its snapshot key is no text");
  return {
    leaves,
    principal,
    controlBundle,
    ...(snapshotKey !== undefined && { snapshotKey }),
  };
}

/** Believes the answer only where it can be checked: our key, the principal, and a chain that leads to the bundle. */
function assemble(
  token: TokenParts,
  answer: Answer,
  plane: Plane,
  keyPem: string,
): StoredCredentials {
  const leaf = answer.leaves[plane];
  if (!leaf) throw malformed(`it holds no leaf of the ${plane} plane`);
  assertRoots(answer.controlBundle, token.fingerprint);
  return storedFrom({
    keyPem,
    chain: leaf.chain,
    bundle: leaf.bundle,
    controlBundle: answer.controlBundle,
    join: token.join,
    plane,
    principal: answer.principal,
  });
}

/** What goes to disk, from what the join door answered. Throws `JoinUnreachable` when the parts do not fit together. */
export function storedFrom(answer: {
  readonly keyPem: string;
  readonly chain: string;
  readonly bundle: string;
  readonly controlBundle: string;
  readonly join: string;
  readonly plane: Plane;
  readonly principal: string;
}): StoredCredentials {
  const own = checkChain(answer.chain, answer);
  if (certificates(answer.controlBundle).length === 0) throw malformed("it holds no control roots");
  return {
    keyPem: answer.keyPem,
    chainPem: answer.chain,
    bundlePem: answer.bundle,
    identity: {
      principal: answer.principal,
      serial: own.serial,
      notBefore: new Date(own.notBeforeMs).toISOString(),
      notAfter: new Date(own.notAfterMs).toISOString(),
      join: answer.join,
      plane: answer.plane,
      controlBundle: answer.controlBundle,
    },
  };
}

function checkChain(
  chainPem: string,
  of: { readonly bundle: string; readonly keyPem: string; readonly principal: string },
): ReturnType<typeof leafOf> {
  const chain = certificates(chainPem);
  if (!leadsToRoot(chain, certificates(of.bundle)))
    throw malformed("a chain does not lead to the bundle");
  const facts = leafOf(chainPem);
  if (facts.principal !== of.principal) throw malformed("a leaf is somebody else's");
  const ours = keyId(createPublicKey(of.keyPem).export({ format: "der", type: "spki" }));
  if (keyId(facts.leaf.publicKey.export({ format: "der", type: "spki" })) !== ours)
    throw malformed("a leaf is for another key");
  return facts;
}

/** From here on the join door is judged by these roots: the one that the token pinned has to be among them. */
function assertRoots(controlBundle: string, fingerprint: string): void {
  const isThere = certificates(controlBundle).some(
    (root) => keyId(root.publicKey.export({ format: "der", type: "spki" })) === fingerprint,
  );
  if (!isThere) throw malformed("its control roots are not those of the token");
}

function certificates(pem: string): X509Certificate[] {
  try {
    return certificatesIn(pem).map((one) => new X509Certificate(one));
  } catch {
    throw malformed("a certificate cannot be read");
  }
}

function malformed(why: string): JoinUnreachable {
  return new JoinUnreachable(`the answer of the join door cannot be used: ${why}`);
}
