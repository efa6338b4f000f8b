import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { silentLog } from "../../base/log.ts";
import { certificatesIn } from "../../base/secure-context.ts";
import type { Roots } from "../../feed/needs.ts";
import { type Authority, openAuthority } from "../../identity/authority/authority.ts";
import type { StoredCredentials } from "../../identity/credentials/credential-directory.ts";
import { type Plane, principalOf } from "../../model/principal.ts";
import { openGateRoots } from "./gate-roots.ts";

const trustDomain = "shop.internal";

async function startWorld(t: TestContext) {
  const dir = await mkdtemp(join(tmpdir(), "sallyport-roots-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const open = (plane: Plane) =>
    openAuthority({ dir: join(dir, plane), plane, trustDomain, clock: Date.now });
  const authorities = { control: await open("control"), data: await open("data") };
  /** What a renewal gives now. */
  const renewed = async (plane: Plane): Promise<StoredCredentials> => {
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const principal = principalOf({ trustDomain, kind: "gate", name: "east" });
    const leaf = await authorities[plane].sign({
      publicKeySpki: publicKey.export({ format: "der", type: "spki" }),
      principal,
      dnsNames: [],
      purpose: "client",
      ttlMs: 60_000,
    });
    return {
      keyPem: privateKey.export({ format: "pem", type: "pkcs8" }).toString(),
      chainPem: leaf.chainPem,
      bundlePem: authorities[plane].bundlePem(),
      identity: {
        principal,
        serial: leaf.serial,
        notBefore: "",
        notAfter: "",
        join: "127.0.0.1:1",
        plane,
        controlBundle: authorities.control.bundlePem(),
      },
    };
  };
  const sets = async () => ({ control: await renewed("control"), data: await renewed("data") });
  const file = join(dir, "roots.json");
  return { authorities, sets, renewed, file, open: () => openGateRoots({ file, log: silentLog }) };
}

function rootsOf(authorities: Readonly<Record<Plane, Authority>>): Roots {
  const of = (plane: Plane) => {
    const { active, next, previous } = authorities[plane].rotation();
    const trusted = [active, next, previous].flatMap((root) => (root ? [root.fingerprint] : []));
    return { active: active.fingerprint, trusted };
  };
  return { control: of("control"), data: of("data") };
}

const count = (pem: string) => certificatesIn(pem).length;

test("what is retired is gone from every bundle, links and all, whatever a renewal brings", async (t) => {
  const { authorities, sets, open } = await startWorld(t);
  const roots = open();
  const before = await sets();
  assert.deepEqual(roots.narrowed(before.data), before.data);
  assert.equal(roots.held(before), undefined, "control has not said anything");
  for (const plane of ["control", "data"] as const) await authorities[plane].prepare();
  const between = await sets();
  assert.equal(count(between.data.bundlePem), 4);
  roots.take(rootsOf(authorities));
  assert.equal(roots.lacks("data", before.data), true, "it does not know the next root");
  assert.equal(roots.lacks("data", between.data), false);
  for (const plane of ["control", "data"] as const)
    await authorities[plane].activate({ force: true });
  roots.take(rootsOf(authorities));
  assert.equal(roots.lacks("data", between.data), true, "its leaf is the old root's");
  const after = await sets();
  assert.equal(roots.lacks("control", after.control), false);
  for (const plane of ["control", "data"] as const)
    await authorities[plane].retire({ force: true });
  assert.equal(roots.take(rootsOf(authorities)).isNews, true);
  assert.equal(roots.take(rootsOf(authorities)).isNews, false);
  for (const set of Object.values(after)) {
    const { bundlePem, identity } = roots.narrowed(set);
    for (const pem of [bundlePem, identity?.controlBundle ?? ""]) assert.equal(count(pem), 2);
    for (const pem of certificatesIn(bundlePem))
      assert.ok(authorities[set.identity?.plane ?? "data"].bundlePem().includes(pem));
  }
  const { active } = rootsOf(authorities).data;
  assert.deepEqual(roots.held(after)?.data, { trusted: [active], leaf: active });
});

test("who missed everything trusts nobody, and knows it after a restart as well", async (t) => {
  const { authorities, sets, file, open } = await startWorld(t);
  const old = await sets();
  for (const plane of ["control", "data"] as const) {
    await authorities[plane].prepare();
    await authorities[plane].activate({ force: true });
    await authorities[plane].retire({ force: true });
  }
  await open().take(rootsOf(authorities)).kept;
  const roots = open();
  assert.equal(roots.narrowed(old.data).bundlePem, "");
  assert.equal(roots.narrowed(old.control).identity?.controlBundle, "");
  const none = { trusted: [], leaf: null };
  assert.deepEqual(roots.held(old), { control: none, data: none });
  assert.equal(roots.lacks("data", old.data), true);

  await roots.forget();
  assert.equal(open().held(old), undefined, "a new enrolment begins anew");
  for (const text of ["", "{", '{"type":"renew"}', '{"type":"roots"}']) {
    await writeFile(file, text);
    assert.equal(open().held(old), undefined, text);
  }
});
