import { createHash, randomBytes } from "node:crypto";
import { splitHostPort } from "../base/address.ts";

/** What an enrolment token carries: `sp1.` and the base64url of this as JSON. */
export type TokenParts = {
  /** 32 random bytes, base64url. */
  readonly secret: string;
  /** SHA-256 of the control root's SPKI, base64url: pins the server before the secret is sent. */
  readonly fingerprint: string;
  /** `host:port` of the join door. */
  readonly join: string;
};

const prefix = "sp1.";
// A host name has at most 253 characters; the rest is fixed. Nothing longer is even decoded.
const tokenCharactersMax = 1_024;
const thirtyTwoBytes = /^[A-Za-z0-9_-]{43}$/;

/** A new secret from the system's generator, and the token around it. Throws a `TypeError` on a join address that cannot be dialled. */
export function makeToken(parts: Omit<TokenParts, "secret">): { token: string; hash: string } {
  const secret = randomBytes(32).toString("base64url");
  const token = `${prefix}${Buffer.from(JSON.stringify({ secret, ...parts })).toString("base64url")}`;
  if (!parseToken(token)) throw new TypeError(`no token can carry this address: ${parts.join}`);
  return { token, hash: tokenHash(secret) };
}

/** Fails closed: anything but the exact form is `undefined`. Never put its argument into an error. */
export function parseToken(token: string): TokenParts | undefined {
  if (!token.startsWith(prefix) || token.length > tokenCharactersMax) return undefined;
  let parts: Partial<Record<keyof TokenParts, unknown>>;
  try {
    parts = JSON.parse(Buffer.from(token.slice(prefix.length), "base64url").toString("utf8"));
  } catch {
    return undefined;
  }
  if (typeof parts !== "object" || parts === null) return undefined;
  const { secret, fingerprint, join } = parts;
  if (typeof secret !== "string" || !thirtyTwoBytes.test(secret)) return undefined;
  if (typeof fingerprint !== "string" || !thirtyTwoBytes.test(fingerprint)) return undefined;
  if (typeof join !== "string" || !/^[A-Za-z0-9.:[\]-]+$/.test(join)) return undefined;
  const address = splitHostPort(join);
  return address && address.port > 0 ? { secret, fingerprint, join } : undefined;
}

/** SHA-256 of the secret, hex: all that is stored. The secret has 256 bits of chance, so no salt and no stretching is needed. */
export function tokenHash(secret: string): string {
  return createHash("sha256").update(Buffer.from(secret, "base64url")).digest("hex");
}
