import "reflect-metadata";
import { webcrypto } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";
import type { Credentials } from "../../src/base/credentials.ts";
import { signingKey } from "../../src/identity/authority/certificates.ts";

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };

type Forgery = {
  readonly uris: readonly string[];
  readonly dns?: readonly string[];
  readonly usages?: readonly x509.ExtendedKeyUsage[];
  /** Epoch ms. */
  readonly from?: number;
  readonly to?: number;
  /** A world whose issuing key signs it, as no authority of ours would; without one it signs itself. */
  readonly by?: { readonly dir: string };
};

/** A leaf that our authorities refuse to make. */
export async function forge(of: Forgery): Promise<Credentials> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const issuer = of.by && (await issuerOf(join(of.by.dir, "data")));
  const now = Date.now();
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: "4142434445464748",
    subject: "CN=forged",
    issuer: issuer?.certificate.subject ?? "CN=forged",
    notBefore: new Date(of.from ?? now - 60_000),
    notAfter: new Date(of.to ?? now + 3_600_000),
    signingAlgorithm: algorithm,
    publicKey: keys.publicKey,
    signingKey: issuer?.key ?? keys.privateKey,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.ExtendedKeyUsageExtension([...(of.usages ?? [x509.ExtendedKeyUsage.clientAuth])]),
      new x509.SubjectAlternativeNameExtension([
        ...of.uris.map((value) => ({ type: "url", value }) as const),
        ...(of.dns ?? []).map((value) => ({ type: "dns", value }) as const),
      ]),
    ],
  });
  const pkcs8 = await webcrypto.subtle.exportKey("pkcs8", keys.privateKey);
  return {
    keyPem: x509.PemConverter.encode(pkcs8, "PRIVATE KEY"),
    chainPem: `${certificate.toString("pem")}\n${issuer?.certificate.toString("pem") ?? ""}`,
    bundlePem: "",
  };
}

async function issuerOf(home: string) {
  const id = readdirSync(home).find((name) => !name.includes("."));
  if (id === undefined) throw new Error(`no authority in ${home}`);
  const read = (name: string): string => readFileSync(join(home, id, name), "utf8");
  return {
    certificate: new x509.X509Certificate(read("issuing-1.pem")),
    key: await signingKey(read("issuing-1-key.pem")),
  };
}
