import assert from "node:assert/strict";
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import {
  type IssuanceWorld,
  spkiOf,
  startIssuanceWorld,
} from "../../../test/harness/issuance-world.ts";
import type { Plane, Principal } from "../../model/principal.ts";
import { openAuthority } from "../authority/authority.ts";
import { makeCsr, makeKey } from "../enroll/make-csr.ts";
import { type IssueRefusalCode, IssueRefused } from "./refused.ts";

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const peerAddress = "10.20.0.7";

async function refusedWith(code: IssueRefusalCode, work: Promise<unknown>, claim: string = code) {
  await assert.rejects(
    work,
    (cause) => {
      assert.ok(cause instanceof IssueRefused, `${claim}: ${cause}`);
      assert.equal(cause.code, code, claim);
      assert.ok(cause.status >= 400 && cause.status < 500, claim);
      return true;
    },
    claim,
  );
}

const newCsr = async () => makeCsr(await makeKey());

/** Web, enrolled. */
async function enrolled(t: TestContext, service = "web") {
  const world = await startIssuanceWorld(t);
  const { token } = await world.issuance.createToken({
    principal: world.principal("service", service),
    createdBy: "admin/first",
  });
  const answer = await world.issuance.enrol({ token, csr: await newCsr(), peerAddress });
  return { world, leaf: leafIn(answer.leaves.data?.chain) };
}

function leafIn(chain: string | undefined): X509Certificate {
  return new X509Certificate(chain ?? "");
}

async function renewal(world: IssuanceWorld, leaf: X509Certificate, csr?: string) {
  return world.issuance.renew({ leaf, plane: "data", csr: csr ?? (await newCsr()), peerAddress });
}

test("a renewal is the same name, another key, another serial, the same line", async (t) => {
  const { world, leaf } = await enrolled(t);
  world.clock.now += 40 * minuteMs;
  const next = leafIn((await renewal(world, leaf)).chain);
  assert.equal(next.subjectAltName, leaf.subjectAltName);
  assert.notEqual(next.serialNumber, leaf.serialNumber);
  const [first, second] = world.leaves;
  assert.equal(second?.lineage, first?.serial);
  assert.equal(second?.predecessor, first?.serial);
  assert.equal(second?.via, "renewal");
  assert.equal(Date.parse(next.validFrom), Math.floor(world.clock.now / 1_000) * 1_000 - minuteMs);
});

test("whatever a request asks for, it gets its own name alone", async (t) => {
  const world = await startIssuanceWorld(t);
  const {
    Pkcs10CertificateRequestGenerator,
    SubjectAlternativeNameExtension,
    BasicConstraintsExtension,
  } = await import("@peculiar/x509");
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const csr = await Pkcs10CertificateRequestGenerator.create({
    name: "CN=admin/first",
    keys,
    signingAlgorithm: algorithm,
    extensions: [
      new SubjectAlternativeNameExtension([
        { type: "url", value: "spiffe://shop.internal/admin/first" },
        { type: "dns", value: "orders" },
      ]),
      new BasicConstraintsExtension(true, 2, true),
    ],
  });
  const { token } = await world.issuance.createToken({
    principal: world.principal("service", "web"),
    createdBy: "admin/first",
  });
  const answer = await world.issuance.enrol({ token, csr: csr.toString("pem"), peerAddress });
  const leaf = leafIn(answer.leaves.data?.chain);
  assert.equal(leaf.subjectAltName, "URI:spiffe://shop.internal/service/web");
  assert.equal(leaf.subject, "CN=service/web");
  assert.equal(leaf.ca, false);
});

test("requests that prove nothing, or that two parsers could read differently, are refused and cost no token", async (t) => {
  const world = await startIssuanceWorld(t);
  const good = await newCsr();
  const pemOf = (der: Buffer) =>
    `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString("base64")}\n-----END CERTIFICATE REQUEST-----\n`;
  const derOf = (pem: string) => Buffer.from(pem.replace(/-----[^-]+-----|\s/g, ""), "base64");
  const flipped = (at: number) => {
    const der = derOf(good);
    der[at < 0 ? der.length + at : at] = (der.at(at) ?? 0) ^ 1;
    return pemOf(der);
  };
  const algorithm = { name: "ECDSA", namedCurve: "P-384", hash: "SHA-384" };
  const { Pkcs10CertificateRequestGenerator } = await import("@peculiar/x509");
  const make = async (of: object, keyOf: object) =>
    (
      await Pkcs10CertificateRequestGenerator.create({
        keys: (await crypto.subtle.generateKey(keyOf as never, true, ["sign", "verify"])) as never,
        signingAlgorithm: of as never,
      })
    ).toString("pem");
  const rsa = {
    name: "RSASSA-PKCS1-v1_5",
    hash: "SHA-256",
    modulusLength: 2048,
    publicExponent: new Uint8Array([1, 0, 1]),
  };
  const rows: [claim: string, csr: string][] = [
    ["nothing", ""],
    ["text", "hello"],
    ["two requests", good + (await newCsr())],
    ["a certificate", world.authorities.data.bundlePem()],
    ["text before it", `x\n${good}`],
    ["an empty body", pemOf(Buffer.alloc(0))],
    ["half of it", pemOf(derOf(good).subarray(0, 60))],
    ["a changed signature", flipped(-3)],
    ["a changed key", flipped(60)],
    ["P-384", await make(algorithm, algorithm)],
    ["RSA", await make(rsa, rsa)],
    ["Ed25519", await make({ name: "Ed25519" }, { name: "Ed25519" })],
    ["9 KiB", pemOf(Buffer.alloc(7_000))],
  ];
  const { token } = await world.issuance.createToken({
    principal: world.principal("service", "web"),
    createdBy: "admin/first",
  });
  for (const [claim, csr] of rows)
    await refusedWith("csr_invalid", world.issuance.enrol({ token, csr, peerAddress }), claim);
  await refusedWith("csr_invalid", world.issuance.enrol({ token, peerAddress }), "no request");
  await refusedWith(
    "csr_invalid",
    world.issuance.enrol({ token, controlCsr: good, dataCsr: good, peerAddress }),
    "a gate's two requests with a service's token",
  );
  assert.equal(world.leaves.length, 0);
  assert.ok(await world.issuance.enrol({ token, csr: good, peerAddress }));
});

test("a token opens one door, once, for a while, from where it may", async (t) => {
  const world = await startIssuanceWorld(t);
  const { createToken, enrol } = world.issuance;
  const principal = world.principal("service", "web");
  const createdBy = "admin/first";
  await refusedWith(
    "not_registered",
    createToken({ principal: world.principal("service", "blog"), createdBy }),
  );
  await assert.rejects(
    createToken({ principal: world.principal("control", "main"), createdBy, role: "admin" }),
    TypeError,
  );
  await assert.rejects(createToken({ principal, createdBy, role: "admin" }), TypeError);
  await assert.rejects(
    createToken({ principal: world.principal("admin", "second"), createdBy }),
    TypeError,
  );
  await assert.rejects(createToken({ principal, createdBy, ttlMs: 1 }), RangeError);
  await assert.rejects(createToken({ principal, createdBy, from: ["10.0.0.1/8"] }), TypeError);
  await assert.rejects(
    createToken({ principal: "spiffe://other.internal/service/web" as Principal, createdBy }),
    TypeError,
  );

  const csr = await newCsr();
  const make = async (more: object = {}) =>
    (await createToken({ principal, createdBy, ...more })).token;
  await refusedWith("token_malformed", enrol({ token: "sp1.x", csr, peerAddress }));
  const other = await startIssuanceWorld(t);
  const elsewhere = await other.issuance.createToken({ principal, createdBy });
  await refusedWith("token_unknown", enrol({ token: elsewhere.token, csr, peerAddress }));

  const fromMesh = await make({ from: ["10.20.0.0/16"] });
  for (const address of ["10.21.0.1", "::1", "", "10.20.0.1.evil"])
    await refusedWith("wrong_network", enrol({ token: fromMesh, csr, peerAddress: address }));
  assert.ok(await enrol({ token: fromMesh, csr, peerAddress: "::ffff:10.20.3.4" }));

  const late = await make();
  world.clock.now += 10 * minuteMs;
  await refusedWith("token_expired", enrol({ token: late, csr, peerAddress }));

  const before = await make();
  world.clock.now += 1_000;
  world.revoked.set("service/web", world.clock.now);
  await refusedWith("revoked", enrol({ token: before, csr, peerAddress }));
  world.revoked.delete("service/web");

  const gone = await make();
  world.registered.delete("service/web");
  await refusedWith("not_registered", enrol({ token: gone, csr, peerAddress }));
  world.registered.add("service/web");
  world.revoked.set("service/web", world.clock.now);
  await refusedWith("revoked", enrol({ token: gone, csr, peerAddress }));
  world.clock.now += 2_000;
  const afterwards = await make();
  assert.ok(await enrol({ token: afterwards, csr: await newCsr(), peerAddress }));

  for (const record of world.tokens.values())
    assert.ok(!JSON.stringify(record).includes("sp1."), "only hashes are kept");
});

test("of two keys that come with one token at once, one wins and then loses what it got", async (t) => {
  const world = await startIssuanceWorld(t);
  const { token } = await world.issuance.createToken({
    principal: world.principal("service", "web"),
    createdBy: "admin/first",
  });
  const [a, b] = await Promise.allSettled([
    world.issuance.enrol({ token, csr: await newCsr(), peerAddress }),
    world.issuance.enrol({ token, csr: await newCsr(), peerAddress }),
  ]);
  assert.deepEqual([a?.status, b?.status].sort(), ["fulfilled", "rejected"]);
  assert.deepEqual(world.events, ["issued token", "token reuse 1"]);
  const [leaf] = world.leaves;
  assert.ok(leaf && world.revoked.has(leaf.lineage));
  await refusedWith("revoked", renewal(world, leafIn(leaf.certPem)));
});

test("renewal is refused to whoever is not, or no longer, who they say", async (t) => {
  const { world, leaf } = await enrolled(t);
  const csr = await newCsr();
  const stranger = await openAuthority({
    dir: join(world.dir, "stranger"),
    plane: "data",
    trustDomain: "shop.internal",
    clock: () => world.clock.now,
  });
  const key = await makeKey();
  const forge = async (backMs: number) =>
    leafIn(
      (
        await stranger.signWithClock(
          {
            publicKeySpki: spkiOf(key),
            principal: world.principal("service", "web"),
            dnsNames: [],
            purpose: "client",
            ttlMs: hourMs,
          },
          () => world.clock.now - backMs,
        )
      ).certPem,
    );
  const inStore = async (
    plane: Plane,
    kind: "gate" | "service" | "control",
    purpose: "client" | "server",
    name = "web",
  ) =>
    leafIn(
      (
        await world.authorities[plane].sign({
          publicKeySpki: spkiOf(key),
          principal: world.principal(kind, name),
          dnsNames: [],
          purpose,
          ttlMs: hourMs,
        })
      ).certPem,
    );
  const rows: [claim: string, IssueRefusalCode, X509Certificate, Plane][] = [
    ["forged under a stranger's authority", "unknown_issuer", await forge(0), "data"],
    ["forged, and expired", "unknown_issuer", await forge(2 * hourMs), "data"],
    ["ours, shown as of the other plane", "unknown_issuer", leaf, "control"],
    [
      "our own root",
      "unknown_issuer",
      new X509Certificate(world.authorities.data.rootPem()),
      "data",
    ],
    [
      "our own issuing certificate",
      "unknown_issuer",
      world.authorities.data.issuers()[0]?.issuing as X509Certificate,
      "data",
    ],
    [
      "signed by us, but never recorded",
      "unknown_leaf",
      await inStore("data", "service", "client"),
      "data",
    ],
    [
      "a leaf that is for serving",
      "wrong_purpose",
      await inStore("data", "gate", "server", "g1"),
      "data",
    ],
    [
      "control's own leaf",
      "wrong_purpose",
      await inStore("control", "control", "server", "main"),
      "control",
    ],
  ];
  // Whoever stole an issuing key can sign a serial and a name that are on record, for a key that is not.
  const copy = await inStore("data", "service", "client");
  const [recorded] = world.leaves;
  assert.ok(recorded);
  world.leaves.push({ ...recorded, serial: copy.serialNumber.toLowerCase() });
  rows.push(["a recorded serial under another key", "unknown_leaf", copy, "data"]);
  world.grace.set("service/web", 24 * hourMs);
  for (const [claim, code, shown, plane] of rows)
    await refusedWith(code, world.issuance.renew({ leaf: shown, plane, csr, peerAddress }), claim);

  await refusedWith(
    "names_not_allowed",
    world.issuance.renew({ leaf, plane: "data", csr, names: ["orders"], peerAddress }),
    "a service serves no names",
  );
  world.registered.delete("service/web");
  await refusedWith("not_registered", renewal(world, leaf));
  world.registered.add("service/web");
  world.revoked.set("service/web", world.clock.now);
  await refusedWith("revoked", renewal(world, leaf), "the principal");
  world.revoked.clear();
  world.revoked.set(leaf.serialNumber.toLowerCase(), world.clock.now);
  await refusedWith("revoked", renewal(world, leaf), "the line");
  world.revoked.clear();
  world.clock.now -= hourMs;
  await refusedWith("not_yet_valid", renewal(world, leaf), "before its time");
  world.clock.now += hourMs;
  assert.ok(await renewal(world, leaf));
});

test("an expired leaf is renewed only within the service's grace, and the record says so", async (t) => {
  const { world, leaf } = await enrolled(t);
  world.clock.now += hourMs + minuteMs;
  await refusedWith("expired", renewal(world, leaf), "grace is off by default");
  world.grace.set("service/web", hourMs);
  world.clock.now += hourMs;
  await refusedWith("expired", renewal(world, leaf), "the grace is over");
  world.clock.now -= hourMs;
  world.revoked.set("service/web", world.clock.now);
  await refusedWith("revoked", renewal(world, leaf), "grace excuses the date alone");
  world.revoked.clear();
  world.registered.delete("service/web");
  await refusedWith("not_registered", renewal(world, leaf), "grace excuses the date alone");
  world.registered.add("service/web");
  assert.ok(await renewal(world, leaf));
  assert.equal(world.leaves.at(-1)?.via, "grace");
});

test("a new key each time, and one successor to each leaf", async (t) => {
  const { world, leaf } = await enrolled(t);
  const world2 = await startIssuanceWorld(t);
  const { token } = await world2.issuance.createToken({
    principal: world2.principal("service", "web"),
    createdBy: "admin/first",
  });
  const same = await newCsr();
  const own = await world2.issuance.enrol({ token, csr: same, peerAddress });
  await refusedWith("key_reused", renewal(world2, leafIn(own.leaves.data?.chain), same));

  const csr = await newCsr();
  const first = await renewal(world, leaf, csr);
  const again = await renewal(world, leaf, csr);
  assert.equal(again.chain, first.chain, "a lost answer is fetched again");
  await refusedWith("fork", renewal(world, leaf), "another key");
  assert.equal(world.events.filter((event) => event === "fork").length, 1);
  const [a, b] = await Promise.allSettled([
    renewal(world, leafIn(first.chain)),
    renewal(world, leafIn(first.chain)),
  ]);
  assert.deepEqual([a?.status, b?.status].sort(), ["fulfilled", "rejected"], "also at once");
  await refusedWith("fork", renewal(world, leaf, csr), "its successor has gone on");
  const lines = new Set(world.leaves.map((one) => one.lineage));
  assert.equal(lines.size, 1);
});

test("an answer that was lost until it expired is replaced, for the same key alone", async (t) => {
  const { world, leaf } = await enrolled(t);
  world.grace.set("service/web", 24 * hourMs);
  const csr = await newCsr();
  await renewal(world, leaf, csr);
  world.clock.now += 3 * hourMs;
  await refusedWith("fork", renewal(world, leaf));
  const late = leafIn((await renewal(world, leaf, csr)).chain);
  assert.ok(Date.parse(late.validTo) > world.clock.now);
});

test("a gate is given the names that the register gives it, to serve with and nothing else", async (t) => {
  const world = await startIssuanceWorld(t);
  const { token } = await world.issuance.createToken({
    principal: world.principal("gate", "g1"),
    createdBy: "admin/first",
  });
  const one = await newCsr();
  await refusedWith(
    "key_reused",
    world.issuance.enrol({ token, controlCsr: one, dataCsr: one, peerAddress }),
  );
  const gate = await world.issuance.enrol({
    token,
    controlCsr: one,
    dataCsr: await newCsr(),
    peerAddress,
  });
  assert.equal(gate.snapshotKey, world.snapshotKey.publicKeyPem);
  const leaf = leafIn(gate.leaves.data?.chain);
  const answer = await world.issuance.renew({
    leaf,
    plane: "data",
    csr: await newCsr(),
    names: ["orders", "orders", "bank.example", "metrics.orders", "__proto__"],
    peerAddress,
  });
  assert.deepEqual(Object.keys(answer.names ?? {}), ["orders", "metrics.orders"]);
  const orders = leafIn(answer.names?.orders?.chain);
  assert.equal(orders.subjectAltName, "URI:spiffe://shop.internal/gate/g1, DNS:orders");
  assert.deepEqual(orders.keyUsage, ["1.3.6.1.5.5.7.3.1"]);
  assert.deepEqual(
    orders.publicKey.export({ format: "der", type: "spki" }),
    leafIn(answer.chain).publicKey.export({ format: "der", type: "spki" }),
  );
  await refusedWith(
    "wrong_purpose",
    world.issuance.renew({ leaf: orders, plane: "data", csr: await newCsr(), peerAddress }),
  );
  await refusedWith(
    "names_not_allowed",
    world.issuance.renew({
      leaf: leafIn(gate.leaves.control?.chain),
      plane: "control",
      csr: await newCsr(),
      names: ["orders"],
      peerAddress,
    }),
    "the feed's leaf serves nothing",
  );
  await refusedWith(
    "names_not_allowed",
    world.issuance.renew({
      leaf: leafIn(answer.chain),
      plane: "data",
      csr: await newCsr(),
      names: Array.from({ length: 65 }, (_, i) => `n${i}`),
      peerAddress,
    }),
  );
  const shown = leafIn(answer.chain);
  const before = world.leaves.length;
  const more = await world.issuance.renew({
    leaf: shown,
    plane: "data",
    names: ["orders", "bank.example"],
    peerAddress,
  });
  assert.deepEqual(Object.keys(more.names ?? {}), ["orders"]);
  assert.equal(world.leaves.length, before + 1, "without a request, names alone");
  assert.equal(more.chain, answer.chain);
  assert.ok(shown.publicKey.equals(leafIn(more.names?.orders?.chain).publicKey));
  await refusedWith(
    "csr_invalid",
    world.issuance.renew({ leaf: shown, plane: "data", peerAddress }),
    "neither a request nor names",
  );
  world.revoked.set("gate/g1", world.clock.now);
  await refusedWith(
    "revoked",
    world.issuance.renew({ leaf: shown, plane: "data", names: ["orders"], peerAddress }),
    "names are for those who may renew",
  );
});

test("lifetimes stay between 5 minutes and 24 hours", async (t) => {
  const world = await startIssuanceWorld(t);
  for (const [asked, got] of [
    [1_000, 5 * minuteMs],
    [12 * hourMs, 12 * hourMs],
    [99 * hourMs, 24 * hourMs],
  ] as const) {
    world.leafMs = asked;
    const { record } = await world.issuance.issueDirect({
      principal: world.principal("admin", "first"),
      plane: "control",
      publicKeySpki: spkiOf(await makeKey()),
    });
    assert.ok(Math.abs(record.notAfterMs - world.clock.now - got) <= 1_000);
  }
});

test("control's own leaf shows the root, so that a token's fingerprint can be checked", async (t) => {
  const world = await startIssuanceWorld(t);
  const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const { chain } = await world.issuance.issueDirect({
    principal: world.principal("control", "main"),
    plane: "control",
    publicKeySpki: publicKey.export({ format: "der", type: "spki" }),
  });
  assert.equal(chain.match(/BEGIN CERTIFICATE/g)?.length, 3);
  assert.ok(chain.endsWith(world.authorities.control.rootPem()));
});

test("after a rotation, leaves of the old root renew into the new one; after retirement they are strangers", async (t) => {
  const { world, leaf } = await enrolled(t);
  const { data } = world.authorities;
  await data.prepare();
  await data.activate({ force: true });
  const next = leafIn((await renewal(world, leaf)).chain);
  assert.match(next.issuer, new RegExp(data.rotation().active.id));
  await data.retire({ force: true });
  await refusedWith("unknown_issuer", renewal(world, leaf));
  assert.ok(await renewal(world, next));
});

test("one line cannot be renewed for ever: each leaf costs a signature and a place in the store", async (t) => {
  const { world, leaf } = await enrolled(t);
  let current = leaf;
  let renewed = 0;
  const refusal = await (async () => {
    for (; renewed < 100; renewed++) current = leafIn((await renewal(world, current)).chain);
    return undefined;
  })().catch((cause: IssueRefused) => cause);
  assert.equal(refusal?.code, "rate_limited");
  assert.equal(refusal?.status, 429);
  assert.equal(renewed, 20);
  world.clock.now += 5_000;
  current = leafIn((await renewal(world, current)).chain);
  await refusedWith("rate_limited", renewal(world, current));
  world.clock.now += 100_000;
  for (let i = 0; i < 20; i++) current = leafIn((await renewal(world, current)).chain);
});

test("a leaf that was being signed when its line was revoked is handed to nobody", async (t) => {
  const { world, leaf } = await enrolled(t);
  world.clock.now += 40 * minuteMs;
  const [first] = world.leaves;
  assert.ok(first);
  // Told of each leaf once it is on record and before it is handed out: the revocation comes exactly then.
  world.events.push = (...events) => {
    world.revoked.set(first.lineage, world.clock.now);
    return events.length;
  };
  await refusedWith("revoked", renewal(world, leaf));
});
