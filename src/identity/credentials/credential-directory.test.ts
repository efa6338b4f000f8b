import assert from "node:assert/strict";
import { fork } from "node:child_process";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { existsSync } from "node:fs";
import {
  chmod,
  mkdir,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { spkiOf, startIssuanceWorld } from "../../../test/harness/issuance-world.ts";
import { makeKey } from "../enroll/make-csr.ts";
import {
  CredentialsUnusable,
  dropPendingKey,
  keepPendingKey,
  readCredentials,
  type StoredCredentials,
  writeCredentials,
} from "./credential-directory.ts";

async function startWorld(t: TestContext) {
  const world = await startIssuanceWorld(t);
  const make = async (name = "web"): Promise<StoredCredentials> => {
    const keyPem = await makeKey();
    const { chain, bundle } = await world.issuance.issueDirect({
      principal: world.principal("service", name),
      plane: "data",
      publicKeySpki: spkiOf(keyPem),
    });
    return { keyPem, chainPem: chain, bundlePem: bundle };
  };
  return { world, make, dir: join(world.dir, "credentials") };
}

/** As curl or nginx would: by the plain names, one file at a time. */
async function readPlain(dir: string): Promise<boolean> {
  const key = createPrivateKey(await readFile(join(dir, "key.pem")));
  return new X509Certificate(await readFile(join(dir, "chain.pem"))).checkPrivateKey(key);
}

test("what was written is what is read, by us and by their plain names", async (t) => {
  const { make, dir } = await startWorld(t);
  const identity = {
    principal: "spiffe://shop.internal/service/web",
    serial: "40",
    notBefore: "2026-01-01T00:00:00.000Z",
    notAfter: "2026-01-01T01:00:00.000Z",
    join: "127.0.0.1:7442",
    plane: "data",
    controlBundle: "x",
  } as const;
  for (let round = 0; round < 4; round++) {
    const one = await make();
    await writeCredentials(dir, round === 2 ? one : { ...one, identity });
    const held = await readCredentials(dir);
    assert.equal(held.keyPem, one.keyPem);
    assert.equal(held.chainPem, one.chainPem);
    assert.equal(held.identity?.join, round === 2 ? undefined : identity.join);
    assert.ok(await readPlain(dir));
    assert.ok((await readdir(join(dir, ".generations"))).length <= 2, "old keys do not pile up");
  }
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    if (entry.isSymbolicLink()) continue;
    const { mode } = await stat(join(entry.parentPath, entry.name));
    assert.equal(mode & 0o777, entry.isDirectory() ? 0o700 : 0o600, entry.name);
  }
});

test("a set that does not fit together is neither written nor read", async (t) => {
  const { make, dir } = await startWorld(t);
  const [one, two] = [await make(), await make()];
  const rows: [claim: string, set: StoredCredentials][] = [
    ["another's key", { ...one, keyPem: two.keyPem }],
    ["no key", { ...one, keyPem: "" }],
    ["no chain", { ...one, chainPem: "" }],
    ["a bundle without roots", { ...one, bundlePem: "" }],
  ];
  await writeCredentials(dir, one);
  for (const [claim, set] of rows)
    await assert.rejects(writeCredentials(dir, set), CredentialsUnusable, claim);
  assert.equal((await readCredentials(dir)).keyPem, one.keyPem, "the old set stands");
  await rm(join(dir, "key.pem"));
  const place = join(dir, await readlink(join(dir, ".current")));
  await writeFile(join(place, "key.pem"), two.keyPem);
  await assert.rejects(readCredentials(dir), /does not belong/);
});

test("a directory that others may enter keeps no key", async (t) => {
  const { make, dir } = await startWorld(t);
  const one = await make();
  for (const mode of [0o755, 0o710, 0o701, 0o770]) {
    await rm(dir, { recursive: true, force: true });
    await mkdir(dir);
    await chmod(dir, mode);
    const refused = (cause: unknown) =>
      cause instanceof CredentialsUnusable && cause.hint === `chmod 700 ${dir}`;
    await assert.rejects(writeCredentials(dir, one), refused);
    await assert.rejects(keepPendingKey(dir, makeKey), refused);
    assert.deepEqual(await readdir(dir), []);
    await chmod(dir, 0o700);
    await writeCredentials(dir, one);
    await chmod(dir, mode);
    await assert.rejects(readCredentials(dir), refused);
  }
  await assert.rejects(readCredentials(join(dir, "nothing")), /is not there/);
});

test("plain files that somebody else put there are read, and replaced by the first renewal", async (t) => {
  const { make, dir } = await startWorld(t);
  const [one, two] = [await make(), await make()];
  await mkdir(dir, { mode: 0o700 });
  await assert.rejects(readCredentials(dir), /holds no credentials/);
  await writeFile(join(dir, "key.pem"), one.keyPem);
  await writeFile(join(dir, "chain.pem"), one.chainPem);
  await writeFile(join(dir, "bundle.pem"), one.bundlePem);
  assert.equal((await readCredentials(dir)).keyPem, one.keyPem);
  await writeCredentials(dir, two);
  assert.equal((await readCredentials(dir)).keyPem, two.keyPem);
  assert.ok(await readPlain(dir));
});

test("a writer that is killed at any moment leaves one whole set", {
  timeout: 60_000,
}, async (t) => {
  const { make, dir, world } = await startWorld(t);
  const sets = [await make(), await make()];
  const setsFile = join(world.dir, "sets.json");
  const writer = join(world.dir, "writer.mts");
  const source = new URL("./credential-directory.ts", import.meta.url).href;
  await writeFile(setsFile, JSON.stringify(sets));
  await writeFile(
    writer,
    `import { readFileSync } from "node:fs";
import { writeCredentials } from ${JSON.stringify(source)};
const sets = JSON.parse(readFileSync(${JSON.stringify(setsFile)}, "utf8"));
process.send("ready");
for (let i = 0; ; i++) await writeCredentials(${JSON.stringify(dir)}, sets[i % 2]);`,
  );
  await writeCredentials(dir, sets[0] as StoredCredentials);
  for (let round = 0; round < 8; round++) {
    const child = fork(writer, { stdio: "ignore" });
    const gone = new Promise((resolve) => child.once("exit", resolve));
    await new Promise((resolve) => child.once("message", resolve));
    // Read all the while: a reader must not see a mixed set either.
    for (let reads = 0; reads <= round * 3; reads++) {
      const held = await readCredentials(dir);
      assert.ok(sets.some((set) => set.keyPem === held.keyPem && set.chainPem === held.chainPem));
    }
    child.kill("SIGKILL");
    await gone;
    const held = await readCredentials(dir);
    assert.ok(sets.some((set) => set.keyPem === held.keyPem && set.chainPem === held.chainPem));
    assert.ok(await readPlain(dir), "and by their plain names");
  }
  await writeCredentials(dir, sets[1] as StoredCredentials);
  assert.equal((await readCredentials(dir)).keyPem, sets[1]?.keyPem, "writing goes on afterwards");
  const left = (await readdir(dir)).filter((name) => name.endsWith(".draft"));
  assert.deepEqual(left, []);
});

test("a pending key is kept until it is dropped or in use, and two processes agree on one", async (t) => {
  const { dir } = await startWorld(t);
  const key = await keepPendingKey(dir, makeKey);
  assert.equal(await keepPendingKey(dir, makeKey), key);
  assert.notEqual(await keepPendingKey(dir, makeKey, key), key, "it is in use already");
  await dropPendingKey(dir);
  await dropPendingKey(dir);
  const [a, b] = await Promise.all([keepPendingKey(dir, makeKey), keepPendingKey(dir, makeKey)]);
  assert.equal(a, b);
  await writeFile(join(dir, ".pending-key.pem"), "half a k");
  assert.match(await keepPendingKey(dir, makeKey), /BEGIN PRIVATE KEY/);
  assert.equal((await stat(join(dir, ".pending-key.pem"))).mode & 0o777, 0o600);
});

test("a place where nothing can be made is told, with a way out, and in a moment", async (t) => {
  const { make, world } = await startWorld(t);
  await writeFile(join(world.dir, "file"), "");
  await symlink(join(world.dir, "nowhere"), join(world.dir, "dangling"));
  const rows: [claim: string, dir: string, says: RegExp][] = [
    ["below a file", join(world.dir, "file", "x"), /cannot be written to .*ENOTDIR/],
    ["below a link to nothing", join(world.dir, "dangling", "x"), /cannot be written to .*ENOTDIR/],
    ["a link to nothing", join(world.dir, "dangling"), /cannot be written to .*ENOTDIR/],
  ];
  // Where nothing is ever made, and ENOENT is said below what is there.
  if (existsSync("/proc/self"))
    rows.push(
      ["below /proc", "/proc/self/x", /cannot be written to .*ENOENT/],
      ["far below /proc", "/proc/self/x/y/z", /cannot be written to .*ENOENT/],
    );
  for (const [claim, dir, says] of rows) {
    const isTold = (cause: unknown) =>
      cause instanceof CredentialsUnusable && says.test(cause.message) && cause.hint !== "";
    await assert.rejects(keepPendingKey(dir, makeKey), isTold, claim);
    await assert.rejects(writeCredentials(dir, await make()), claim);
  }
});

test("directories that lead there are made too, and all are their owner's", async (t) => {
  const { make, world } = await startWorld(t);
  const dir = join(world.dir, "a", "b", "c");
  await writeCredentials(dir, await make());
  await writeCredentials(dir, await make());
  for (const path of [dir, join(world.dir, "a", "b"), join(world.dir, "a")])
    assert.equal((await stat(path)).mode & 0o777, 0o700);
});
