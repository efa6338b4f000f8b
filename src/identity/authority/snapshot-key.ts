import { createPrivateKey, createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { keyId } from "../../base/signature.ts";
import type { SignedSnapshot } from "../../model/snapshot.ts";
import { makePrivateDirectory, writeFileDurably } from "../durable-files.ts";

/** The key that signs snapshots and nothing else. `verifySnapshot` in `base/signature.ts` is its other half. */
export type SnapshotKey = {
  /** SHA-256 of the public key's SPKI, base64url. */
  readonly id: string;
  /** SPKI, PEM: what a gate pins when it enrols. */
  readonly publicKeyPem: string;
  signSnapshot(payload: string): SignedSnapshot;
};

/** Loads the key, or makes it on first use (0600, replaced atomically). Ed25519. Throws when the file holds another kind of key. */
export async function openSnapshotKey(path: string): Promise<SnapshotKey> {
  const keyPem = (await readExisting(path)) ?? (await makeKey(path));
  const key = createPrivateKey(keyPem);
  if (key.asymmetricKeyType !== "ed25519") throw new Error(`${path} holds no Ed25519 key`);
  const publicKeyPem = createPublicKey(key).export({ format: "pem", type: "spki" }).toString();
  const id = keyId(publicKeyPem);
  return {
    id,
    publicKeyPem,
    signSnapshot: (payload) => ({
      payload,
      signature: sign(null, Buffer.from(payload, "utf8"), key).toString("base64url"),
      key: id,
    }),
  };
}

async function makeKey(path: string): Promise<string> {
  const { privateKey } = generateKeyPairSync("ed25519");
  const pem = privateKey.export({ format: "pem", type: "pkcs8" }).toString();
  await makePrivateDirectory(dirname(path));
  await writeFileDurably(path, pem);
  return pem;
}

async function readExisting(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw cause;
  }
}
