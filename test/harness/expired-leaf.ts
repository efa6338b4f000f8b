import assert from "node:assert/strict";
import { keyId } from "../../src/base/signature.ts";
import {
  readCredentials,
  writeCredentials,
} from "../../src/identity/credentials/credential-directory.ts";
import { makeKey } from "../../src/identity/enroll/make-csr.ts";
import { type IssuanceWorld, spkiOf } from "./issuance-world.ts";

const hourMs = 3_600_000;

/** Puts a leaf of `service/web` into its directory that ended an hour ago, and of which control knows. */
export async function putExpiredLeaf(world: IssuanceWorld, dir: string): Promise<void> {
  const key = await makeKey();
  // OpenSSL asks the real clock, so the leaf has to be old by that one.
  const old = await world.authorities.data.signWithClock(
    {
      publicKeySpki: spkiOf(key),
      principal: world.principal("service", "web"),
      dnsNames: [],
      purpose: "client",
      ttlMs: hourMs,
    },
    () => Date.now() - 2 * hourMs,
  );
  const held = await readCredentials(dir);
  const record = world.leaves.at(-1);
  assert.ok(record);
  world.leaves.push({
    ...record,
    serial: old.serial,
    lineage: old.serial,
    certPem: old.certPem,
    publicKey: keyId(spkiOf(key)),
  });
  await writeCredentials(dir, { ...held, keyPem: key, chainPem: old.chainPem });
}
