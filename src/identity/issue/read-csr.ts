import "reflect-metadata";
import { createPublicKey } from "node:crypto";
import { Pkcs10CertificateRequest } from "@peculiar/x509";
import { keyId } from "../../base/signature.ts";
import { IssueRefused } from "./refused.ts";

/** All that is believed of a certificate request: the key, whose possession its signature proves. */
export type ProvenKey = {
  /** DER. */
  readonly spki: Uint8Array;
  /** SHA-256 of the SPKI, base64url. */
  readonly id: string;
};

const csrCharactersMax = 8_192;
const oneCsr =
  /^\s*-----BEGIN (NEW )?CERTIFICATE REQUEST-----\s[A-Za-z0-9+/=\s]+-----END (NEW )?CERTIFICATE REQUEST-----\s*$/;

/**
 * Checks the signature of a PEM PKCS#10 request (RFC 2986) and takes the key; subject, names and extensions are not even
 * looked at. P-256 alone. Fails closed: throws `csr_invalid` on anything else.
 */
export async function readCsr(pem: string): Promise<ProvenKey> {
  if (pem.length > csrCharactersMax || !oneCsr.test(pem))
    throw refused("send one PEM certificate request of at most 8 KiB");
  let request: Pkcs10CertificateRequest;
  let spki: Uint8Array;
  try {
    request = new Pkcs10CertificateRequest(pem);
    spki = new Uint8Array(request.publicKey.rawData);
    // Also checks that the point lies on the curve.
    const key = createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" });
    if (key.asymmetricKeyType !== "ec" || key.asymmetricKeyDetails?.namedCurve !== "prime256v1")
      throw refused("the key must be ECDSA P-256: openssl ecparam -name prime256v1 -genkey");
    // One key has one spelling here: an SPKI with explicit parameters or extra bytes would have another fingerprint.
    const canonical = key.export({ format: "der", type: "spki" });
    if (!canonical.equals(spki)) throw refused("the public key is not in its canonical form");
  } catch (cause) {
    throw cause instanceof IssueRefused ? cause : refused("it cannot be read");
  }
  const isProven = await request.verify().catch(() => false);
  if (!isProven) throw refused("its signature does not prove possession of the key");
  return { spki, id: keyId(spki) };
}

function refused(why: string): IssueRefused {
  return new IssueRefused("csr_invalid", {
    message: `the certificate request cannot be used: ${why}`,
  });
}
