import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";
import { type TestContext, test } from "node:test";
import type { IssuedRecord, TokenRecord } from "../../model/issued.ts";
import type { Principal } from "../../model/principal.ts";
import type { Register } from "../../model/register.ts";
import type { Snapshot } from "../../model/snapshot.ts";
import { migrations } from "./migrations.ts";
import { openStore } from "./sqlite.ts";
import { Conflict, type ControlStore, type StoredSnapshot, StoreUnusable } from "./store.ts";

const web = "spiffe://shop.internal/service/web" as Principal;
const g1 = "spiffe://shop.internal/gate/g1" as Principal;

function place(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "sallyport-store-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return join(dir, "control", "store.sqlite");
}

async function opened(t: TestContext, file = place(t)): Promise<ControlStore> {
  const store = await openStore(file);
  t.after(() => store.close());
  return store;
}

function entry(version: number, more: Partial<Snapshot> = {}): StoredSnapshot & { reason: string } {
  const register = {
    trustDomain: "shop.internal",
    services: { web: { name: "web", graceMs: 5 } },
  } as unknown as Register;
  const snapshot: Snapshot = {
    epoch: 1,
    version,
    author: "admin/first",
    at: version,
    digest: `d${version}`,
    register,
    revocations: [],
    ...more,
  };
  return {
    snapshot,
    signed: { payload: JSON.stringify(snapshot), signature: "s", key: "k" },
    reason: "apply",
  };
}

const token: TokenRecord = {
  hash: "ab".repeat(32),
  principal: web,
  createdBy: "admin/first",
  createdMs: 1,
  expiresMs: 1_000,
  from: ["10.0.0.0/8"],
};

function leaf(serial: string, more: Partial<IssuedRecord> = {}): IssuedRecord {
  return {
    plane: "data",
    serial,
    principal: web,
    lineage: serial,
    publicKey: "pk",
    certPem: "pem",
    notBeforeMs: 0,
    notAfterMs: 100,
    at: 10,
    via: "token",
    ...more,
  };
}

test("what was written is there after reopening, in a file for its owner alone", async (t) => {
  const file = place(t);
  const store = await openStore(file);
  await store.appendSnapshot(entry(1), undefined, []);
  await store.saveToken(token);
  await store.saveIssued(leaf("01", { token: token.hash }));
  await store.saveSetting("a", "b");
  await store.close();
  await store.close();
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.equal(statSync(dirname(file)).mode & 0o777, 0o700);
  const again = await opened(t, file);
  assert.equal((await again.latestSnapshot())?.snapshot.version, 1);
  assert.deepEqual(await again.findToken(token.hash), token);
  assert.deepEqual(await again.issuedByToken(token.hash), [leaf("01", { token: token.hash })]);
  assert.equal(await again.setting("a"), "b");
  assert.equal(await again.isRegistered(web), true);
});

test("a second process, and a second opening, are refused with a way out", async (t) => {
  const file = place(t);
  await opened(t, file);
  await assert.rejects(openStore(file), (cause) => {
    assert.ok(cause instanceof StoreUnusable);
    assert.match(cause.message, /in use by another process/);
    assert.match(cause.hint, /--state/);
    return true;
  });
  const child = spawn(process.execPath, ["--input-type=module", "-e", openerOf(file)], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let text = "";
  child.stderr.on("data", (bytes: Buffer) => {
    text += bytes.toString();
  });
  const [code] = await once(child, "close");
  assert.notEqual(code, 0);
  assert.match(text, /in use by another process/);
});

test("a store that is damaged, newer, or no store is refused and left alone", async (t) => {
  const noStore = place(t);
  mkdirSync(dirname(noStore), { recursive: true });
  writeFileSync(noStore, "x".repeat(8_192));
  await assert.rejects(openStore(noStore), /is damaged/);

  const newer = place(t);
  await (await openStore(newer)).close();
  const database = new DatabaseSync(newer);
  database.exec("PRAGMA user_version = 99");
  database.close();
  await assert.rejects(openStore(newer), /newer sallyport/);

  const cut = place(t);
  const store = await openStore(cut);
  for (let version = 1; version <= 30; version++) {
    const one = entry(version, { author: "x".repeat(4_000) });
    const before = version === 1 ? undefined : { epoch: 1, version: version - 1 };
    await store.appendSnapshot(one, before, []);
  }
  await store.close();
  truncateSync(cut, statSync(cut).size - 8_192);
  await assert.rejects(openStore(cut), /is damaged/);
});

test("every earlier schema is brought up to date with what is in it", async (t) => {
  for (let version = 1; version < migrations.length; version++) {
    const file = place(t);
    mkdirSync(dirname(file), { recursive: true });
    const old = new DatabaseSync(file);
    for (const sql of migrations.slice(0, version)) old.exec(sql);
    old.exec(`PRAGMA user_version = ${version}`);
    old.exec("INSERT INTO settings VALUES ('kept', 'yes')");
    old.close();
    const store = await opened(t, file);
    assert.equal(await store.setting("kept"), "yes");
    await store.saveAnchors([{ source: "gate/g1", chain: "c", sequence: 1, head: "h", at: 1 }]);
    assert.equal((await store.anchors()).length, 1);
  }
});

test("of two writers only one appends", async (t) => {
  const store = await opened(t);
  await store.appendSnapshot(entry(1), undefined, []);
  await assert.rejects(store.appendSnapshot(entry(1), undefined, []), Conflict);
  await store.appendSnapshot(entry(2), { epoch: 1, version: 1 }, []);
  const revocation = { principal: "service/web", at: 1 };
  await assert.rejects(
    store.appendSnapshot(entry(3), { epoch: 1, version: 1 }, [revocation]),
    Conflict,
  );
  // Nothing of what was refused is left behind.
  assert.deepEqual(await store.revocations(), []);
  assert.equal((await store.latestSnapshot())?.snapshot.version, 2);
  assert.deepEqual(
    (await store.snapshotHeads(10)).map(({ version }) => version),
    [2, 1],
  );
});

test("a token belongs to the first key that came", async (t) => {
  const store = await opened(t);
  await store.saveToken(token);
  assert.equal((await store.spendToken(token.hash, "first", 5)).spentBy, "first");
  const second = await store.spendToken(token.hash, "second", 6);
  assert.deepEqual([second.spentBy, second.spentMs], ["first", 5]);
  await assert.rejects(store.spendToken("00".repeat(32), "first", 5));
  await assert.rejects(store.saveToken(token));
  assert.equal(await store.deleteToken("ab"), 0); // too short to mean one
  assert.equal(await store.deleteToken("abababab' OR 1=1 --"), 0);
  assert.equal(await store.deleteToken("abababab"), 1);
});

test("revocation: by principal up to its moment, by serial, by lineage; strangers always", async (t) => {
  const store = await opened(t);
  await store.appendSnapshot(entry(1), undefined, [
    { principal: "service/web", at: 10 },
    { principal: "gate/g1", serial: "aa", lineage: "a0", at: 20 },
  ]);
  const rows: [string, Parameters<ControlStore["isRevoked"]>[0], boolean][] = [
    ["issued before", { principal: web, serial: "1", lineage: "1", at: 9 }, true],
    ["issued in the same millisecond", { principal: web, serial: "1", lineage: "1", at: 10 }, true],
    ["issued after", { principal: web, serial: "1", lineage: "1", at: 11 }, false],
    ["the serial", { principal: g1, serial: "aa", lineage: "a0", at: 1 }, true],
    ["its line, also later", { principal: g1, serial: "bb", lineage: "a0", at: 99 }, true],
    ["another line of the same gate", { principal: g1, serial: "cc", lineage: "c0", at: 1 }, false],
    [
      "another's serial of that number",
      { principal: web, serial: "aa", lineage: "x", at: 99 },
      false,
    ],
    [
      "no principal at all",
      { principal: "web" as Principal, serial: "1", lineage: "1", at: 99 },
      true,
    ],
  ];
  for (const [claim, asked, expected] of rows)
    assert.equal(await store.isRevoked(asked), expected, claim);
});

test("who may hold an identity: services of the register, gates and operators on record", async (t) => {
  const store = await opened(t);
  assert.equal(await store.isRegistered(web), false, "no register yet");
  await store.appendSnapshot(entry(1), undefined, []);
  const record = { principal: g1, owners: [], services: [], createdBy: "x", createdMs: 1 };
  await store.savePrincipal(record);
  const rows: [string, boolean][] = [
    ["spiffe://shop.internal/service/web", true],
    ["spiffe://shop.internal/service/constructor", false],
    ["spiffe://shop.internal/service/other", false],
    ["spiffe://elsewhere.internal/service/web", false],
    ["spiffe://shop.internal/gate/g1", true],
    ["spiffe://shop.internal/gate/g2", false],
    ["spiffe://shop.internal/admin/g1", false],
    ["nonsense", false],
  ];
  for (const [principal, expected] of rows)
    assert.equal(await store.isRegistered(principal as Principal), expected, principal);
  await store.removePrincipal(g1, 5);
  assert.equal(await store.isRegistered(g1), false);
  assert.equal(await store.graceMs(web), 5);
  assert.equal(await store.graceMs(g1), 0);
  assert.equal(await store.graceMs("spiffe://shop.internal/service/toString" as Principal), 0);
});

test("leaves: successors in order, and the longest of each", async (t) => {
  const store = await opened(t);
  await store.saveIssued(leaf("01"));
  await store.saveIssued(leaf("03", { predecessor: "01", lineage: "01", at: 30, notAfterMs: 300 }));
  await store.saveIssued(leaf("02", { predecessor: "01", lineage: "01", at: 20, notAfterMs: 200 }));
  await store.saveIssued(leaf("01", { plane: "control", principal: g1 }));
  await assert.rejects(store.saveIssued(leaf("01")));
  assert.equal((await store.successorOf("data", "01"))?.serial, "02");
  assert.equal(await store.successorOf("control", "01"), undefined);
  assert.deepEqual(
    (await store.newestLeaves(0)).map(({ principal, serial }) => [principal, serial]),
    [
      [g1, "01"],
      [web, "03"],
    ],
  );
  assert.deepEqual((await store.newestLeaves(250)).length, 1);
});

test("an anchor never moves back, and a contradiction is told", async (t) => {
  const store = await opened(t);
  const anchor = { source: "gate/g1", chain: "c", sequence: 5, head: "five", at: 1 };
  assert.deepEqual(await store.saveAnchors([anchor]), []);
  const same = { ...anchor, at: 2 };
  assert.deepEqual(await store.saveAnchors([same]), []);
  const rewritten = { ...anchor, head: "other" };
  const cut = { ...anchor, sequence: 4, head: "four" };
  assert.deepEqual(await store.saveAnchors([rewritten, cut]), [rewritten, cut]);
  assert.equal((await store.anchors("gate/g1"))[0]?.head, "five");
  assert.deepEqual(await store.anchors("gate/g2"), []);
});

test("pruning keeps what somebody may still need", async (t) => {
  const store = await opened(t);
  const dayMs = 86_400_000;
  await store.saveToken({ ...token, expiresMs: dayMs });
  await store.saveIssued(leaf("01", { token: token.hash, notAfterMs: 2 * dayMs }));
  await store.prune(5 * dayMs);
  assert.equal((await store.issuedByToken(token.hash)).length, 1);
  await store.prune(10 * dayMs);
  assert.equal(await store.findToken(token.hash), undefined);
  const kept = await store.findIssued("data", "01");
  assert.ok(kept && kept.token === undefined);
  await store.prune(200 * dayMs);
  assert.equal(await store.findIssued("data", "01"), undefined);
});

test("a kill at any moment leaves a store with everything that was acknowledged", async (t) => {
  const file = place(t);
  let acknowledged = 0;
  for (let round = 0; round < 4; round++) {
    const child = spawn(process.execPath, ["--input-type=module", "-e", writerOf(file)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let count = 0;
    for await (const line of createInterface({ input: child.stdout })) {
      acknowledged = Number(line);
      // In the middle of whatever it is doing by then.
      if (++count === 20 + round * 7) child.kill("SIGKILL");
    }
    const store = await openStore(file);
    const newest = await store.latestSnapshot();
    assert.ok(newest && newest.snapshot.version >= acknowledged, `${acknowledged} was lost`);
    assert.ok(newest.snapshot.version <= acknowledged + 200);
    // A snapshot and its revocation are one: neither is there without the other.
    assert.equal((await store.revocations()).length, newest.snapshot.version);
    await store.close();
  }
});

function openerOf(file: string): string {
  return `import { openStore } from ${JSON.stringify(import.meta.resolve("./sqlite.ts"))};
    await openStore(${JSON.stringify(file)});`;
}

function writerOf(file: string): string {
  return `import { openStore } from ${JSON.stringify(import.meta.resolve("./sqlite.ts"))};
    const store = await openStore(${JSON.stringify(file)});
    let before = (await store.latestSnapshot())?.snapshot;
    for (;;) {
      const version = (before?.version ?? 0) + 1;
      const snapshot = { epoch: 1, version, author: "a".repeat(2000), at: version, digest: "d", register: {}, revocations: [] };
      const signed = { payload: JSON.stringify(snapshot), signature: "s", key: "k" };
      await store.appendSnapshot({ snapshot, signed, reason: "apply" }, before, [{ principal: "service/web", at: version }]);
      before = snapshot;
      process.stdout.write(version + "\\n");
    }`;
}
