import "reflect-metadata";
import { webcrypto } from "node:crypto";
import { PemConverter, Pkcs10CertificateRequestGenerator } from "@peculiar/x509";

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;

/** A new P-256 key, PKCS#8 PEM. It never leaves the machine. */
export async function makeKey(): Promise<string> {
  const { privateKey } = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const der = await webcrypto.subtle.exportKey("pkcs8", privateKey);
  return `${PemConverter.encode(der, "PRIVATE KEY")}\n`;
}

/** A request (PKCS#10, PEM) that proves possession of the key and asks for nothing: the control plane knows whose it is. */
export async function makeCsr(keyPem: string): Promise<string> {
  const [der] = PemConverter.decode(keyPem);
  if (!der) throw new TypeError("no private key");
  const privateKey = await webcrypto.subtle.importKey("pkcs8", der, algorithm, true, ["sign"]);
  const { d: _, key_ops: __, ...jwk } = await webcrypto.subtle.exportKey("jwk", privateKey);
  const publicKey = await webcrypto.subtle.importKey("jwk", jwk, algorithm, true, ["verify"]);
  const request = await Pkcs10CertificateRequestGenerator.create({
    keys: { privateKey, publicKey },
    signingAlgorithm: algorithm,
  });
  return `${request.toString("pem")}\n`;
}
