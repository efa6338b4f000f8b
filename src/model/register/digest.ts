import { createHash } from "node:crypto";
import type { Register } from "../register.ts";

/**
 * SHA-256 of `JSON.stringify(register)`, lower-case hex. `parseRegister` puts keys in one order, and JSON keeps it, so the same files
 * give the same digest, before and after a journey.
 */
export function registerDigest(register: Register): string {
  return createHash("sha256").update(JSON.stringify(register)).digest("hex");
}
