import { createPublicKey, type KeyObject, sign, verify } from "node:crypto";
import { keyId } from "../base/signature.ts";
import type { KeyAnnouncement } from "./needs.ts";

/** Control's side: names the next snapshot key under the one in force. Both Ed25519; throws a `TypeError` on others. */
export function announceSuccessor(current: KeyObject, successor: KeyObject): KeyAnnouncement {
  const next = createPublicKey(successor.export({ format: "pem", type: successorType(successor) }));
  if (current.asymmetricKeyType !== "ed25519" || next.asymmetricKeyType !== "ed25519")
    throw new TypeError("snapshot keys are Ed25519");
  const encoded = next.export({ format: "der", type: "spki" }).toString("base64url");
  const by = createPublicKey(current).export({ format: "der", type: "spki" });
  return {
    successor: encoded,
    by: keyId(by),
    signature: sign(null, successorStatement(encoded), current).toString("base64url"),
  };
}

/** The gate's side: the announced key, PEM, if one of the pinned ones vouches for it. Fails closed. */
export function acceptSuccessor(
  announcement: KeyAnnouncement,
  pinnedKeys: readonly string[],
): string | undefined {
  const signature = Buffer.from(announcement.signature, "base64url");
  if (signature.length !== 64) return undefined;
  for (const pem of pinnedKeys) {
    try {
      const key = createPublicKey(pem);
      if (key.asymmetricKeyType !== "ed25519" || keyId(pem) !== announcement.by) continue;
      if (!verify(null, successorStatement(announcement.successor), key, signature)) continue;
      const next = createPublicKey({
        key: Buffer.from(announcement.successor, "base64url"),
        format: "der",
        type: "spki",
      });
      if (next.asymmetricKeyType !== "ed25519") return undefined;
      return next.export({ format: "pem", type: "spki" }).toString();
    } catch {
      // A key that cannot be read vouches for nothing.
    }
  }
  return undefined;
}

// A snapshot begins with `{`: what is signed here can never pass for one, nor the reverse.
function successorStatement(successor: string): Buffer {
  return Buffer.from(`sallyport snapshot key successor 1\n${successor}\n`, "utf8");
}

function successorType(key: KeyObject): "pkcs8" | "spki" {
  return key.type === "private" ? "pkcs8" : "spki";
}
