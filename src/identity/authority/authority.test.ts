import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { spkiOf } from "../../../test/harness/issuance-world.ts";
import { certificatesIn } from "../../base/secure-context.ts";
import type { Plane, Principal } from "../../model/principal.ts";
import { makeKey } from "../enroll/make-csr.ts";
import { type Authority, openAuthority, RotationRefused, type SignRequest } from "./authority.ts";
import { makeLeaf, signingKey } from "./certificates.ts";
import { openSnapshotKey } from "./snapshot-key.ts";

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

async function startWorld(t: TestContext) {
  const dir = await mkdtemp(join(tmpdir(), "sallyport-authority-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const clock = { now: Date.now() };
  const open = (plane: Plane = "data", at = join(dir, plane)) =>
    openAuthority({ dir: at, plane, trustDomain: "shop.internal", clock: () => clock.now });
  return { dir, clock, open };
}

async function request(more: Partial<SignRequest> = {}): Promise<SignRequest> {
  return {
    publicKeySpki: spkiOf(await makeKey()),
    principal: "spiffe://shop.internal/service/web" as Principal,
    dnsNames: [],
    purpose: "client",
    ttlMs: hourMs,
    ...more,
  };
}

/** What `openssl verify` says, with every check it has. */
async function opensslVerify(dir: string, leafPem: string, chainPem: string, ca: Authority) {
  const files = [join(dir, "leaf.pem"), join(dir, "chain.pem"), join(dir, "ca.pem")] as const;
  await writeFile(files[0], leafPem);
  await writeFile(files[1], chainPem);
  await writeFile(files[2], ca.bundlePem());
  const args = ["verify", "-x509_strict", "-CAfile", files[2], "-untrusted", files[1], files[0]];
  const { stdout, stderr } = spawnSync("openssl", args, { encoding: "utf8" });
  return stdout + stderr;
}

test("what it signs is what OpenSSL accepts, on both planes, and across a restart", async (t) => {
  const { dir, open } = await startWorld(t);
  const data = await open("data");
  const leaf = await data.sign(await request());
  assert.match(await opensslVerify(dir, leaf.certPem, leaf.chainPem, data), /leaf\.pem: OK/);
  const again = await open("data");
  assert.equal(again.fingerprint(), data.fingerprint());
  const second = await again.sign(await request());
  assert.match(await opensslVerify(dir, second.certPem, second.chainPem, data), /OK/);
  const control = await open("control");
  const server = await control.sign(
    await request({
      principal: "spiffe://shop.internal/control/main" as Principal,
      dnsNames: ["control.shop.internal", "localhost"],
      purpose: "server",
    }),
  );
  assert.match(await opensslVerify(dir, server.certPem, server.chainPem, control), /OK/);
  assert.match(await opensslVerify(dir, leaf.certPem, leaf.chainPem, control), /unable to get/);
  assert.notEqual(control.fingerprint(), data.fingerprint());
});

test("an issuing key that got into wrong hands can name nobody outside its trust domain", async (t) => {
  const { dir, open } = await startWorld(t);
  for (const plane of ["data", "control"] as const) {
    const ca = await open(plane);
    const [id = ""] = (await readdir(join(dir, plane))).filter((name) =>
      /^[0-9a-f]{8}$/.test(name),
    );
    const read = (name: string) => readFile(join(dir, plane, id, name), "utf8");
    const issuing = {
      certPem: await read("issuing-1.pem"),
      key: await signingKey(await read("issuing-1-key.pem")),
    };
    const { publicKeySpki } = await request();
    const notBeforeMs = Date.now() - 60_000;
    const forge = (principal: string, dnsNames: string[]) =>
      makeLeaf(
        {
          publicKeySpki,
          principal: principal as Principal,
          dnsNames,
          purpose: "both",
          notBeforeMs,
          notAfterMs: notBeforeMs + hourMs,
        },
        issuing,
      );
    const rows: [claim: string, ok: boolean, principal: string, dnsNames: string[]][] = [
      ["its own domain", true, "spiffe://shop.internal/gate/g1", []],
      ["another domain", false, "spiffe://bank.internal/gate/g1", []],
      ["a domain below", false, "spiffe://x.shop.internal/gate/g1", []],
      ["a domain that ends the same", false, "spiffe://evilshop.internal/gate/g1", []],
      ["a DNS name of a service", plane === "data", "spiffe://shop.internal/gate/g1", ["orders"]],
      [
        "a DNS name of the control plane",
        true,
        "spiffe://shop.internal/gate/g1",
        ["control.shop.internal"],
      ],
    ];
    for (const [claim, ok, principal, dnsNames] of rows) {
      const { certPem } = await forge(principal, dnsNames);
      const said = await opensslVerify(dir, certPem, issuing.certPem, ca);
      assert.match(said, ok ? /OK/ : /permitted subtree violation/, `${plane}: ${claim}`);
    }
  }
});

test("it signs nothing outside its plane, its domain and its measure", async (t) => {
  const { open } = await startWorld(t);
  const data = await open("data");
  const control = await open("control");
  const rows: [claim: string, Authority, Partial<SignRequest>][] = [
    ["a service on the control plane", control, {}],
    [
      "an administrator on the data plane",
      data,
      { principal: "spiffe://shop.internal/admin/first" as Principal },
    ],
    [
      "another trust domain",
      data,
      { principal: "spiffe://bank.internal/service/web" as Principal },
    ],
    ["no principal", data, { principal: "spiffe://shop.internal/service/Web" as Principal }],
    ["a service with a DNS name", data, { dnsNames: ["orders"] }],
    ["a service that serves", data, { purpose: "both" }],
    ["25 hours", data, { ttlMs: 25 * hourMs }],
    ["no time", data, { ttlMs: 0 }],
    ["no number", data, { ttlMs: Number.NaN }],
    [
      "a gate with a name that is none",
      data,
      {
        principal: "spiffe://shop.internal/gate/g1" as Principal,
        dnsNames: ["*"],
        purpose: "both",
      },
    ],
  ];
  for (const [claim, ca, more] of rows)
    await assert.rejects(ca.sign(await request(more)), TypeError, claim);
});

test("serials are random, positive and 128 bits; leaves begin a minute ago, and may begin earlier under another clock", async (t) => {
  const { open, clock } = await startWorld(t);
  const ca = await open();
  const leaves = await Promise.all(Array.from({ length: 8 }, async () => ca.sign(await request())));
  assert.equal(new Set(leaves.map((leaf) => leaf.serial)).size, 8);
  for (const { serial, certPem } of leaves) {
    assert.match(serial, /^[4-7][0-9a-f]{31}$/);
    assert.equal(new X509Certificate(certPem).serialNumber.toLowerCase(), serial);
  }
  assert.equal(leaves[0]?.notBeforeMs, Math.floor((clock.now - 60_000) / 1_000) * 1_000);
  const old = await ca.signWithClock(await request(), () => clock.now - dayMs);
  assert.ok(old.notAfterMs < clock.now);
});

test("rotation goes prepare, activate, retire, with both roots trusted in between", async (t) => {
  const { open, clock } = await startWorld(t);
  const ca = await open();
  const before = await ca.sign(await request());
  const first = ca.fingerprint();
  const rootsNow = () =>
    certificatesIn(ca.bundlePem())
      .map((pem) => new X509Certificate(pem))
      .filter((one) => one.subject === one.issuer).length;
  const refused = (code: string) => (cause: unknown) =>
    cause instanceof RotationRefused && cause.code === code;

  await assert.rejects(ca.activate(), refused("wrong_step"));
  await assert.rejects(ca.retire({ force: true }), refused("wrong_step"));
  const prepared = await ca.prepare();
  assert.equal(prepared.step, "prepared");
  assert.equal(prepared.readyAtMs, clock.now + hourMs, "each leaf of an hour has had its renewal");
  assert.equal(rootsNow(), 2);
  assert.equal(ca.fingerprint(), first, "the old one still signs");
  await assert.rejects(ca.prepare(), refused("wrong_step"));
  await assert.rejects(ca.activate(), refused("too_early"));

  clock.now += hourMs;
  const activated = await ca.activate();
  assert.equal(activated.previous?.fingerprint, first);
  assert.notEqual(ca.fingerprint(), first);
  assert.equal(rootsNow(), 2);
  const after = await ca.sign(await request());
  assert.equal(new X509Certificate(after.certPem).issuer.includes(activated.active.id), true);
  await assert.rejects(ca.retire(), refused("too_early"));
  clock.now += hourMs;
  assert.equal((await ca.retire()).step, "steady");
  assert.equal(rootsNow(), 1);
  const root = new X509Certificate(ca.bundlePem());
  assert.equal(
    new X509Certificate(before.chainPem.slice(before.certPem.length)).checkIssued(root),
    false,
  );
  assert.equal(ca.issuers().length, 1);
});

test("a crash between the steps leaves the state of before or of after", async (t) => {
  const { dir, open } = await startWorld(t);
  const at = join(dir, "data");
  const states: [name: string, files: string][] = [];
  const keep = async (name: string) => {
    await cp(at, join(dir, name), { recursive: true });
    states.push([name, name]);
  };
  const ca = await open("data");
  await keep("steady");
  await ca.prepare();
  await keep("prepared");
  await ca.activate({ force: true });
  await keep("activated");
  await ca.retire({ force: true });
  for (const [, name] of states) {
    // What the next step had begun when the power went: a new root that no state names yet, and half a state file.
    await mkdir(join(dir, name, "deadbeef"), { mode: 0o700 });
    await writeFile(join(dir, name, "deadbeef", "root.pem"), "-----BEGIN CERT");
    await writeFile(join(dir, name, ".state.json.0a0b.draft"), '{"version":1,"pl');
    const reopened = await open("data", join(dir, name));
    assert.equal(reopened.rotation().step, name);
    const left = await readdir(join(dir, name));
    assert.equal(left.length, 1 + (name === "steady" ? 1 : 2), `${name}: ${left}`);
    assert.ok(await reopened.sign(await request()));
    if (name === "prepared") await reopened.activate({ force: true });
    if (name !== "steady") await reopened.retire({ force: true });
    assert.equal(reopened.rotation().step, "steady");
  }
});

test("the retired root's keys are gone, and everything that stays is nobody else's to read", async (t) => {
  const { dir, open } = await startWorld(t);
  const ca = await open("data");
  const old = ca.rotation().active.id;
  await ca.prepare();
  await ca.activate({ force: true });
  await ca.retire({ force: true });
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    const { mode } = await stat(join(entry.parentPath, entry.name));
    assert.equal(mode & 0o777, entry.isDirectory() ? 0o700 : 0o600, entry.name);
    assert.notEqual(entry.name, old);
  }
});

test("the issuing certificate is replaced under the same root before it ends, while the root's key is there", async (t) => {
  const { dir, open, clock } = await startWorld(t);
  const ca = await open("data");
  const first = await ca.sign(await request());
  clock.now += 340 * dayMs;
  const second = await ca.sign(await request());
  assert.match(new X509Certificate(second.certPem).issuer, /-2$/);
  assert.equal(ca.issuers().length, 2, "leaves of the first are still known");
  assert.ok(
    new X509Certificate(first.certPem).checkIssued(ca.issuers()[0]?.issuing as X509Certificate),
  );
  assert.equal((await open("data")).issuers().length, 2);

  await rm(join(dir, "data", ca.rotation().active.id, "root-key.pem"));
  clock.now += 345 * dayMs;
  assert.ok(await ca.sign(await request()), "offline: as long as it lasts");
  clock.now += 20 * dayMs;
  await assert.rejects(ca.sign(await request()), /about to expire .* bring it back, or rotate/);
  await ca.prepare();
  await ca.activate({ force: true });
  assert.ok(await ca.sign(await request()));
});

test("an authority of another plane, domain or version is not opened", async (t) => {
  const { dir, open } = await startWorld(t);
  await open("data");
  await assert.rejects(open("control", join(dir, "data")), /holds the data authority/);
  const elsewhere = { dir: join(dir, "data"), plane: "data", clock: Date.now } as const;
  await assert.rejects(
    openAuthority({ ...elsewhere, trustDomain: "bank.internal" }),
    /cannot be changed later/,
  );
  await assert.rejects(openAuthority({ ...elsewhere, trustDomain: "Shop_1" }), TypeError);
  await writeFile(join(dir, "data", "state.json"), '{"version":2}');
  await assert.rejects(open("data"), /newer sallyport/);
});

test("the snapshot key is made once, and nothing else passes for it", async (t) => {
  const { dir } = await startWorld(t);
  const path = join(dir, "keys", "snapshot-key.pem");
  const key = await openSnapshotKey(path);
  assert.equal((await openSnapshotKey(path)).id, key.id);
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  assert.equal(key.signSnapshot("{}").key, key.id);
  await writeFile(path, await makeKey());
  await assert.rejects(openSnapshotKey(path), /no Ed25519 key/);
});
