import { createHash, createPublicKey, verify } from "node:crypto";

/** The shape of `model/snapshot`'s `SignedSnapshot`: the exact text that was signed. */
type Signed = {
  readonly payload: string;
  /** Ed25519 over the payload's UTF-8 bytes, base64url. */
  readonly signature: string;
  /** SHA-256 of the public key's SPKI, base64url. */
  readonly key: string;
};

/**
 * Whether a snapshot was signed by one of the pinned keys (PEM, SPKI). Fails closed: no pinned key, a key that is not Ed25519,
 * a signature of another length or spelling, anything that cannot be read: false.
 */
export function verifySnapshot(signed: Signed, pinnedKeys: readonly string[]): boolean {
  const signature = Buffer.from(signed.signature, "base64url");
  // One spelling only, so that a signature cannot be changed without being broken.
  if (signature.length !== 64 || signature.toString("base64url") !== signed.signature) return false;
  for (const pem of pinnedKeys) {
    try {
      const key = createPublicKey(pem);
      if (key.asymmetricKeyType !== "ed25519" || keyId(pem) !== signed.key) continue;
      if (verify(null, Buffer.from(signed.payload, "utf8"), key, signature)) return true;
    } catch {
      // A pinned key that cannot be read vouches for nothing.
    }
  }
  return false;
}

/** SHA-256 of a public key's SPKI, base64url: how keys are named and pinned. Takes PEM or DER. Throws on what is no key. */
export function keyId(publicKey: string | Uint8Array): string {
  const key =
    typeof publicKey === "string"
      ? createPublicKey(publicKey)
      : createPublicKey({ key: Buffer.from(publicKey), format: "der", type: "spki" });
  return createHash("sha256")
    .update(key.export({ format: "der", type: "spki" }))
    .digest("base64url");
}
