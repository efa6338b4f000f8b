import { createPrivateKey, randomBytes } from "node:crypto";
import {
  link,
  lstat,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
} from "node:fs/promises";
import { join } from "node:path";
import type { Credentials } from "../../base/credentials.ts";
import { certificatesIn } from "../../base/secure-context.ts";
import type { Plane } from "../../model/principal.ts";
import {
  draftEnd,
  makePrivateDirectory,
  syncDirectory,
  writeFileDurably,
} from "../durable-files.ts";
import { leafOf } from "../leaf-facts.ts";

/** Everything that a directory of credentials holds. */
export type StoredCredentials = Credentials & {
  /** Absent for a leaf that never enrolled: control's own. */
  readonly identity?: StoredIdentity;
};

/** `identity.json`: what renewal has to know, and what people like to. */
export type StoredIdentity = {
  /** SPIFFE URI. */
  readonly principal: string;
  readonly serial: string;
  /** ISO 8601. */
  readonly notBefore: string;
  /** ISO 8601. */
  readonly notAfter: string;
  /** `host:port` of the join door. */
  readonly join: string;
  readonly plane: Plane;
  /** Roots that the join door is judged by, PEM. */
  readonly controlBundle: string;
};

/** A directory of credentials that cannot be used: what is wrong, and the way out. Never holds a key. */
export class CredentialsUnusable extends Error {
  readonly hint: string;
  constructor(message: string, hint: string, options?: ErrorOptions) {
    super(message, options);
    this.hint = hint;
  }
}

const files = ["key.pem", "chain.pem", "bundle.pem", "identity.json"] as const;
const current = ".current";
const generations = ".generations";
const pendingKey = ".pending-key.pem";
const keptGenerations = 2;

/**
 * Replaces the whole set at once. The files of one generation lie in a directory of their own, `.current` is a link to it that
 * is replaced by one rename, and `key.pem`, `chain.pem` and the rest lead through it: a key is never seen with another
 * generation's chain, whenever the writer dies. Files 0600 in directories 0700. The previous generation stays until the next
 * write, for readers who are half-way. Throws `CredentialsUnusable` when others may read the directory, or when key and chain
 * do not belong together.
 */
export async function writeCredentials(dir: string, next: StoredCredentials): Promise<void> {
  assertWhole(dir, next);
  await makePrivateDirectory(dir);
  await assertPrivate(dir);
  const home = join(dir, generations);
  await makePrivateDirectory(home);
  const numbers = (await readdir(home)).map(Number).filter(Number.isSafeInteger);
  const name = String(Math.max(0, ...numbers) + 1);
  const place = join(home, name);
  await makePrivateDirectory(place);
  await writeFileDurably(join(place, "key.pem"), next.keyPem);
  await writeFileDurably(join(place, "chain.pem"), next.chainPem);
  await writeFileDurably(join(place, "bundle.pem"), next.bundlePem);
  if (next.identity)
    await writeFileDurably(
      join(place, "identity.json"),
      `${JSON.stringify(next.identity, null, 2)}\n`,
    );
  await syncDirectory(home);
  await replaceLink(dir, current, join(generations, name));
  for (const file of files) {
    const isThere = file in toWrite(next);
    if (isThere) await replaceLink(dir, file, join(current, file));
    else if (await isOurLink(join(dir, file))) await rm(join(dir, file), { force: true });
  }
  await removeOld(dir, name);
}

/**
 * Reads one whole generation. Also takes plain files (a mounted secret) that were not written by us, as long as key and chain
 * belong together. Throws `CredentialsUnusable` when there is nothing, when others may read it, or when it is not a set.
 */
export async function readCredentials(dir: string): Promise<StoredCredentials> {
  await assertPrivate(dir);
  for (let attempt = 1; ; attempt++) {
    try {
      const place = await currentPlace(dir);
      const found = await readSet(place);
      assertWhole(dir, found);
      return found;
    } catch (cause) {
      // A writer may have replaced the set twice under our hands.
      if (attempt < 3 && (isMissing(cause) || cause instanceof CredentialsUnusable)) continue;
      if (isMissing(cause))
        throw new CredentialsUnusable(
          `${dir} holds no credentials`,
          "enrol first: sallyport enroll --token-file FILE --out DIR",
          { cause },
        );
      throw cause;
    }
  }
}

/**
 * The key of a request whose answer may have been lost: the same one is used until its certificate is in place, because the
 * control plane gives a token or a predecessor to one key only. `make` is called when there is none, or when the key is
 * already in use. Throws `CredentialsUnusable` where nothing can be written: the time to find out is before the request.
 */
export function keepPendingKey(
  dir: string,
  make: () => Promise<string>,
  inUsePem?: string,
): Promise<string> {
  return findOrMakeKey(dir, make, inUsePem).catch((cause) => {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (cause instanceof CredentialsUnusable || code === undefined) throw cause;
    throw new CredentialsUnusable(
      `credentials cannot be written to ${dir}: ${message}`,
      "make room there, or name another directory",
      { cause },
    );
  });
}

async function findOrMakeKey(
  dir: string,
  make: () => Promise<string>,
  inUsePem: string | undefined,
): Promise<string> {
  await makePrivateDirectory(dir);
  await assertPrivate(dir);
  const path = join(dir, pendingKey);
  const kept = await readFile(path, "utf8").catch(() => undefined);
  if (kept !== undefined && kept !== inUsePem && isKey(kept)) return kept;
  await rm(path, { force: true });
  const draft = join(dir, `.pending-key.${randomBytes(6).toString("hex")}${draftEnd}`);
  await writeFileDurably(draft, await make());
  // Two processes on one directory end up with one key: the link of the second fails.
  await link(draft, path).catch((cause) => {
    if ((cause as NodeJS.ErrnoException).code !== "EEXIST") throw cause;
  });
  await rm(draft, { force: true });
  await syncDirectory(dir);
  return readFile(path, "utf8");
}

/** Called once the certificate of the pending key is in place. */
export async function dropPendingKey(dir: string): Promise<void> {
  await rm(join(dir, pendingKey), { force: true });
}

function toWrite(next: StoredCredentials): Record<string, true> {
  return {
    "key.pem": true,
    "chain.pem": true,
    "bundle.pem": true,
    ...(next.identity && { "identity.json": true }),
  };
}

async function currentPlace(dir: string): Promise<string> {
  try {
    return join(dir, await readlink(join(dir, current)));
  } catch (cause) {
    if (isMissing(cause)) return dir;
    throw cause;
  }
}

async function readSet(place: string): Promise<StoredCredentials> {
  const read = (name: string) => readFile(join(place, name), "utf8");
  const [keyPem, chainPem, bundlePem] = await Promise.all([
    read("key.pem"),
    read("chain.pem"),
    read("bundle.pem"),
  ]);
  const identity = await read("identity.json").catch(ifMissing(undefined));
  return {
    keyPem,
    chainPem,
    bundlePem,
    ...(identity !== undefined && { identity: JSON.parse(identity) as StoredIdentity }),
  };
}

function assertWhole(dir: string, set: StoredCredentials): void {
  const hint = "enrol again: sallyport enroll --token-file FILE --out DIR";
  try {
    const key = createPrivateKey(set.keyPem);
    if (!leafOf(set.chainPem).leaf.checkPrivateKey(key))
      throw new CredentialsUnusable(`${dir}: the key does not belong to the certificate`, hint);
    if (certificatesIn(set.bundlePem).length === 0)
      throw new CredentialsUnusable(`${dir}: bundle.pem holds no root`, hint);
  } catch (cause) {
    if (cause instanceof CredentialsUnusable) throw cause;
    throw new CredentialsUnusable(`${dir}: key, chain or bundle cannot be read`, hint, { cause });
  }
}

/** Fails closed: a directory that somebody else may enter keeps no key. */
async function assertPrivate(dir: string): Promise<void> {
  if (process.platform === "win32") return; // modes mean nothing there
  const found = await stat(dir).catch(ifMissing(undefined));
  if (!found)
    throw new CredentialsUnusable(
      `${dir} is not there`,
      "enrol first: sallyport enroll --token-file FILE --out DIR",
    );
  if (!found.isDirectory())
    throw new CredentialsUnusable(`${dir} is not a directory`, "name a directory with --out");
  if ((found.mode & 0o077) !== 0)
    throw new CredentialsUnusable(
      `${dir} can be entered by others (mode ${(found.mode & 0o777).toString(8)})`,
      `chmod 700 ${dir}`,
    );
  const uid = process.getuid?.();
  if (uid !== undefined && uid !== 0 && found.uid !== uid)
    throw new CredentialsUnusable(
      `${dir} belongs to another user`,
      "run this as its owner, or choose another directory",
    );
}

/** The link is made beside its place and renamed over it, so that it is never missing. */
async function replaceLink(dir: string, name: string, target: string): Promise<void> {
  if ((await readlink(join(dir, name)).catch(() => undefined)) === target) return;
  const draft = join(dir, `.${name.replace(/^\./, "")}.${process.pid}${draftEnd}`);
  await rm(draft, { force: true, recursive: true });
  await symlink(target, draft);
  await rename(draft, join(dir, name));
  await syncDirectory(dir);
}

async function isOurLink(path: string): Promise<boolean> {
  const target = await readlink(path).catch(() => undefined);
  return target?.startsWith(current) ?? false;
}

async function removeOld(dir: string, newest: string): Promise<void> {
  const home = join(dir, generations);
  for (const name of await readdir(home))
    if (Number(name) <= Number(newest) - keptGenerations)
      await rm(join(home, name), { recursive: true, force: true });
  for (const name of await readdir(dir))
    if (name.endsWith(draftEnd) && !(await lstat(join(dir, name))).isDirectory())
      await rm(join(dir, name), { force: true });
}

function isKey(pem: string): boolean {
  try {
    return createPrivateKey(pem).asymmetricKeyType === "ec";
  } catch {
    return false;
  }
}

function isMissing(cause: unknown): boolean {
  return (cause as NodeJS.ErrnoException).code === "ENOENT";
}

function ifMissing<T>(value: T): (cause: unknown) => T {
  return (cause) => {
    if (isMissing(cause)) return value;
    throw cause;
  };
}
