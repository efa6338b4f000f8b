import { generateKeyPairSync } from "node:crypto";
import { join } from "node:path";
import type { Credentials } from "../../base/credentials.ts";
import { openAuthority } from "../../identity/authority/authority.ts";
import { principalOf } from "../../model/principal.ts";

/** A leaf of our own authority that ran out yesterday: made with the authority's clock set back, as nothing else can make one. */
export async function expiredLeaf(
  stateDir: string,
  trustDomain: string,
  name: string,
): Promise<Credentials> {
  const authority = await openAuthority({
    dir: join(stateDir, "control", "authority", "data"),
    plane: "data",
    trustDomain,
    clock: Date.now,
  });
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const leaf = await authority.signWithClock(
    {
      publicKeySpki: publicKey.export({ type: "spki", format: "der" }),
      principal: principalOf({ trustDomain, kind: "service", name }),
      dnsNames: [],
      purpose: "client",
      ttlMs: 3_600_000,
    },
    () => Date.now() - 86_400_000,
  );
  return {
    keyPem: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
    chainPem: leaf.chainPem,
    bundlePem: authority.bundlePem(),
  };
}
