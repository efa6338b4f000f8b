import "reflect-metadata";
import assert from "node:assert/strict";
import { webcrypto, X509Certificate } from "node:crypto";
import { test } from "node:test";
import * as x509 from "@peculiar/x509";
import { indexRevocations, isRevoked, judgePeer, type PeerQuestion, type Trust } from "./peer.ts";

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const now = Date.UTC(2026, 10, 22, 12);
const hour = 3_600_000;
const { clientAuth, serverAuth } = x509.ExtendedKeyUsage;
x509.cryptoProvider.set(webcrypto as never);

type Signer = {
  readonly name: string;
  readonly keys: webcrypto.CryptoKeyPair;
  readonly cert: X509Certificate;
};
type Recipe = {
  readonly name?: string;
  readonly uris?: readonly string[];
  readonly more?: x509.JsonGeneralNames;
  readonly usage?: readonly string[] | undefined;
  readonly ca?: boolean;
  readonly keyUsage?: number;
  readonly from?: number;
  readonly to?: number;
  readonly twice?: boolean;
  readonly serial?: string;
};

const newKeys = () =>
  webcrypto.subtle.generateKey(algorithm, true, [
    "sign",
    "verify",
  ]) as Promise<webcrypto.CryptoKeyPair>;

/** Signs whatever it is told to: with `by` left out, by itself. */
async function make(recipe: Recipe, by?: Omit<Signer, "cert">): Promise<Signer> {
  const keys = await newKeys();
  const name = recipe.name ?? "";
  const names: x509.JsonGeneralNames = [
    ...(recipe.uris ?? []).map((value) => ({ type: "url" as const, value })),
    ...(recipe.more ?? []),
  ];
  const san = names.length > 0 ? [new x509.SubjectAlternativeNameExtension(names)] : [];
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: recipe.serial ?? "0a1b2c",
    subject: name,
    issuer: by?.name ?? name,
    publicKey: keys.publicKey,
    signingKey: (by?.keys ?? keys).privateKey,
    signingAlgorithm: algorithm,
    notBefore: new Date(recipe.from ?? now - hour),
    notAfter: new Date(recipe.to ?? now + hour),
    extensions: [
      new x509.BasicConstraintsExtension(recipe.ca ?? false, undefined, true),
      ...(recipe.usage ? [new x509.ExtendedKeyUsageExtension([...recipe.usage])] : []),
      ...(recipe.keyUsage ? [new x509.KeyUsagesExtension(recipe.keyUsage, true)] : []),
      ...san,
      ...(recipe.twice
        ? [new x509.SubjectAlternativeNameExtension([{ type: "url", value: admin }])]
        : []),
    ],
  });
  return { name, keys, cert: new X509Certificate(Buffer.from(certificate.rawData)) };
}

const web = "spiffe://shop.internal/service/web";
const admin = "spiffe://shop.internal/admin/first";
const gate = "spiffe://shop.internal/gate/g1";

async function makeAuthority(plane: string) {
  const root = await make({ name: `CN=${plane} root`, ca: true });
  const issuing = await make({ name: `CN=${plane} issuing`, ca: true }, root);
  return { root, issuing };
}
const data = await makeAuthority("data");
const control = await makeAuthority("control");
const stranger = await makeAuthority("data"); // our names, other keys
const trust: Trust = {
  trustDomain: "shop.internal",
  bundles: { data: [data.root.cert], control: [control.root.cert] },
};

const caller: Recipe = { uris: [web], usage: [clientAuth] };
const server: Recipe = { uris: [gate], usage: [serverAuth, clientAuth] };

async function judge(
  recipe: Recipe,
  by: Omit<Signer, "cert"> | undefined = data.issuing,
  change: Partial<PeerQuestion> = {},
) {
  const { cert } = await make(recipe, by);
  return judgePeer({
    leaf: cert,
    chain: [data.issuing.cert],
    opensslSays: undefined,
    nowMs: now,
    trust,
    expect: { plane: "data", kinds: ["service"], purpose: "client" },
    ...change,
  });
}

test("a leaf of ours is let in", async () => {
  const verdict = await judge(caller);
  assert.deepEqual(verdict, {
    ok: true,
    principal: { trustDomain: "shop.internal", kind: "service", name: "web" },
    uri: web,
    serial: "0a1b2c",
    notBeforeMs: now - hour,
    notAfterMs: now + hour,
    root: data.root.cert,
  });
});

const asServer = { plane: "data", kinds: ["gate"], purpose: "server" } as const;
test("a gate's leaf is a server's, with its DNS name", async () => {
  const more = [{ type: "dns" as const, value: "orders" }];
  assert.equal((await judge({ ...server, more }, data.issuing, { expect: asServer })).ok, true);
});

test("two generations of one authority are both trusted", async () => {
  const next = await makeAuthority("data");
  const bundles = { data: [next.root.cert, data.root.cert] };
  for (const authority of [next, data]) {
    const change = { trust: { ...trust, bundles }, chain: [authority.issuing.cert] };
    assert.equal((await judge(caller, authority.issuing, change)).ok, true);
  }
});

test("a chain may come with its root, and out of order", async () => {
  const chain = [stranger.issuing.cert, data.root.cert, data.issuing.cert];
  assert.equal((await judge(caller, data.issuing, { chain })).ok, true);
});

test("an issuing certificate in the bundle will do, where the chain is not shown", async () => {
  const bundles = { data: [data.root.cert, data.issuing.cert] };
  assert.equal(
    (await judge(caller, data.issuing, { chain: [], trust: { ...trust, bundles } })).ok,
    true,
  );
});

test("an issuing certificate in the bundle is no root", async () => {
  for (const bundle of [[data.issuing.cert], [data.root.cert, stranger.issuing.cert]]) {
    const by = bundle.length === 1 ? data.issuing : stranger.issuing;
    const change = { chain: [], trust: { ...trust, bundles: { data: bundle } } };
    const verdict = await judge(caller, by, change);
    assert.equal(verdict.ok ? "ok" : verdict.code, "unknown_issuer");
  }
});

const expired = { from: now - 2 * hour, to: now - hour };
const noCa = await make({ name: "CN=no ca" }, data.root);
const noSign = await make(
  { name: "CN=no sign", ca: true, keyUsage: x509.KeyUsageFlags.digitalSignature },
  data.root,
);
const oldIssuing = await make({ name: "CN=old", ca: true, ...expired }, data.root);
const newIssuing = await make({ name: "CN=new", ca: true, from: now + 1000 }, data.root);
const second = await make({ name: "CN=second", ca: true }, data.issuing);
const asControl = { plane: "control", kinds: ["admin"], purpose: "client" } as const;

type Row = readonly [
  claim: string,
  code: string,
  recipe: Recipe,
  by?: Omit<Signer, "cert"> | null,
  change?: Partial<PeerQuestion>,
];
const rows: readonly Row[] = [
  ["no certificate", "no_certificate", caller, data.issuing, { leaf: undefined }],
  // Who made it.
  ["self-signed with our names", "unknown_issuer", { ...caller, name: "CN=data issuing" }, null],
  ["a stranger's with our names", "unknown_issuer", caller, stranger.issuing],
  [
    "and its own chain",
    "unknown_issuer",
    caller,
    stranger.issuing,
    { chain: [stranger.issuing.cert, stranger.root.cert] },
  ],
  ["expired and a stranger's", "unknown_issuer", { ...caller, ...expired }, stranger.issuing],
  [
    "the same, with OpenSSL's word for it",
    "unknown_issuer",
    { ...caller, ...expired },
    stranger.issuing,
    { opensslSays: "CERT_HAS_EXPIRED", chain: [stranger.issuing.cert] },
  ],
  [
    "expired and self-signed",
    "unknown_issuer",
    { ...caller, ...expired, name: "CN=data issuing" },
    null,
  ],
  ["without its issuing certificate", "unknown_issuer", caller, data.issuing, { chain: [] }],
  ["signed by a root itself", "unknown_issuer", caller, data.root, { chain: [data.root.cert] }],
  [
    "signed by a certificate that is no authority's",
    "unknown_issuer",
    caller,
    noCa,
    { chain: [noCa.cert] },
  ],
  ["signed by one that must not sign", "unknown_issuer", caller, noSign, { chain: [noSign.cert] }],
  [
    "behind two issuing certificates",
    "unknown_issuer",
    caller,
    second,
    { chain: [second.cert, data.issuing.cert] },
  ],
  [
    "a fifth in the chain is not looked at",
    "unknown_issuer",
    caller,
    data.issuing,
    { chain: [...Array(4).fill(noCa.cert), data.issuing.cert] },
  ],
  [
    "no roots, no trust",
    "unknown_issuer",
    caller,
    data.issuing,
    { trust: { ...trust, bundles: {} } },
  ],
  [
    "the name of our root, another key",
    "unknown_issuer",
    caller,
    data.issuing,
    { trust: { ...trust, bundles: { data: [stranger.root.cert] } } },
  ],
  [
    "control's on the data plane",
    "other_plane",
    { uris: [admin], usage: [clientAuth] },
    control.issuing,
    { chain: [control.issuing.cert] },
  ],
  [
    "control's posing as a service",
    "other_plane",
    caller,
    control.issuing,
    { chain: [control.issuing.cert] },
  ],
  ["data's on the control plane", "other_plane", caller, data.issuing, { expect: asControl }],
  [
    "other plane and expired",
    "other_plane",
    { ...caller, ...expired },
    control.issuing,
    { chain: [control.issuing.cert] },
  ],
  // When.
  ["expired", "expired", { ...caller, ...expired }],
  [
    "expired a millisecond ago",
    "expired",
    { ...caller, to: now - 1000 },
    data.issuing,
    { nowMs: now - 999 },
  ],
  ["not yet valid", "not_yet_valid", { ...caller, from: now + 1000 }],
  ["no clock", "expired", caller, data.issuing, { nowMs: Number.NaN }],
  [
    "of an expired issuing certificate",
    "expired",
    caller,
    oldIssuing,
    { chain: [oldIssuing.cert] },
  ],
  [
    "of one that is not valid yet",
    "not_yet_valid",
    caller,
    newIssuing,
    { chain: [newIssuing.cert] },
  ],
  // What for.
  ["a server's leaf only", "wrong_purpose", { ...caller, usage: [serverAuth] }],
  ["no extended key usage", "wrong_purpose", { ...caller, usage: undefined }],
  ["any usage is not client's usage", "wrong_purpose", { ...caller, usage: ["2.5.29.37.0"] }],
  ["a service that could serve", "wrong_purpose", { ...caller, usage: [clientAuth, serverAuth] }],
  [
    "a service with a DNS name",
    "wrong_purpose",
    { ...caller, more: [{ type: "dns", value: "orders" }] },
  ],
  [
    "a service's leaf as a server",
    "wrong_purpose",
    caller,
    data.issuing,
    { expect: { ...asServer, kinds: ["service", "gate"] } },
  ],
  ["an authority's certificate", "wrong_purpose", { ...caller, ca: true }],
  ["expired, and for another use", "wrong_purpose", { ...caller, ...expired, usage: [serverAuth] }],
  // Who.
  ["no name", "bad_identity", { ...caller, uris: [] }],
  ["a name in the subject only", "bad_identity", { ...caller, uris: [], name: "CN=web" }],
  ["two principals", "bad_identity", { ...caller, uris: [web, admin] }],
  ["one principal twice", "bad_identity", { ...caller, uris: [web, web] }],
  // OpenSSL finds no issuer for what it holds to be malformed.
  ["two extensions of names", "unknown_issuer", { ...caller, twice: true }],
  [
    "another trust domain",
    "bad_identity",
    { ...caller, uris: ["spiffe://shop.example/service/web"] },
  ],
  [
    "a trust domain below ours",
    "bad_identity",
    { ...caller, uris: ["spiffe://x.shop.internal/service/web"] },
  ],
  ["a kind of the other plane", "bad_identity", { ...caller, uris: [admin] }],
  ["a kind that is not let in here", "bad_identity", { ...caller, uris: [gate] }],
  ["an unknown kind", "bad_identity", { ...caller, uris: ["spiffe://shop.internal/user/web"] }],
  ["a longer path", "bad_identity", { ...caller, uris: [`${web}/x`] }],
  ["upper case", "bad_identity", { ...caller, uris: ["spiffe://shop.internal/service/Web"] }],
  [
    "https instead of spiffe",
    "bad_identity",
    { ...caller, uris: ["https://shop.internal/service/web"] },
  ],
  ["a NUL byte", "bad_identity", { ...caller, uris: [`${web}\0.evil`] }],
  [
    "a comma that begins another name",
    "bad_identity",
    { ...caller, uris: [`spiffe://evil/x, URI:${web}`] },
  ],
  [
    "the same in a DNS name",
    "bad_identity",
    { ...caller, uris: [], more: [{ type: "dns", value: `x, URI:${web}` }] },
  ],
  ["a quote", "bad_identity", { ...caller, uris: [`"${web}"`] }],
  [
    "an address beside the name",
    "bad_identity",
    { ...caller, more: [{ type: "ip", value: "10.0.0.1" }] },
  ],
  ["mail beside the name", "bad_identity", { ...caller, more: [{ type: "email", value: "a@b" }] }],
  [
    "an e-mail that looks like a name",
    "bad_identity",
    { ...caller, uris: [], more: [{ type: "email", value: web }] },
  ],
  // OpenSSL.
  [
    "something only OpenSSL sees",
    "handshake_failed",
    caller,
    data.issuing,
    { opensslSays: "PERMITTED_VIOLATION" },
  ],
  ["an error without a name", "handshake_failed", caller, data.issuing, { opensslSays: "" }],
];
for (const [claim, code, recipe, by = data.issuing, change] of rows)
  test(`refused: ${claim}`, async () => {
    const { cert } = await make(recipe, by ?? undefined);
    const verdict = judgePeer({
      leaf: cert,
      chain: [data.issuing.cert],
      opensslSays: undefined,
      nowMs: now,
      trust,
      expect: { plane: "data", kinds: ["service"], purpose: "client" },
      ...change,
    });
    assert.equal(verdict.ok ? "ok" : verdict.code, code);
    assert.ok(!verdict.ok && /^[\x20-\x7e]+$/.test(verdict.detail));
    assert.ok(verdict.claimed === undefined || /^[\x20-\x7e]{1,256}$/.test(verdict.claimed));
  });

test("who lapsed is told when the date of the leaf is all that is wrong, and only then", async () => {
  const lapsed = await judge({ ...caller, ...expired }, data.issuing, {
    opensslSays: "CERT_HAS_EXPIRED",
  });
  assert.ok(!lapsed.ok && lapsed.lapsed?.uri === web);
  const forged = await judge({ ...caller, ...expired }, stranger.issuing);
  assert.ok(!forged.ok && forged.lapsed === undefined);
  const behind = await judge(caller, oldIssuing, { chain: [oldIssuing.cert] });
  assert.ok(!behind.ok && behind.code === "expired" && behind.lapsed === undefined);
});

test("a changed byte in the signed part is refused", async () => {
  const { cert } = await make(caller, data.issuing);
  const raw = Buffer.from(cert.raw);
  const at = raw.indexOf("/web");
  raw[at + 1] = "x".charCodeAt(0);
  const verdict = judgePeer({
    leaf: new X509Certificate(raw),
    chain: [data.issuing.cert],
    opensslSays: undefined,
    nowMs: now,
    trust,
    expect: { plane: "data", kinds: ["service"], purpose: "client" },
  });
  assert.equal(verdict.ok ? "ok" : verdict.code, "unknown_issuer");
});

test("revocations: by serial, by line, by principal before the moment", () => {
  const at = Date.UTC(2026, 0, 1);
  const revocations = indexRevocations([
    { principal: "service/web", at: at - 1 },
    { principal: "service/web", at },
    { principal: "service/billing", serial: "0a", at },
    { principal: "service/billing", serial: "0b", lineage: "0c", at },
  ]);
  const web = { shortName: "service/web", serial: "01" };
  const billing = { shortName: "service/billing", notBeforeMs: at };
  const backdate = 60_000;
  const rows: readonly (readonly [string, Parameters<typeof isRevoked>[1], boolean])[] = [
    ["issued before", { ...web, notBeforeMs: at - backdate - 1000 }, true],
    ["issued at the moment", { ...web, notBeforeMs: at - backdate }, true],
    ["issued a second after", { ...web, notBeforeMs: at - backdate + 1000 }, false],
    ["unknown time", { ...web, notBeforeMs: Number.NaN }, true],
    ["another principal", { ...web, shortName: "service/web2", notBeforeMs: 0 }, false],
    ["its serial", { ...billing, serial: "0a" }, true],
    ["another serial", { ...billing, serial: "0d" }, false],
    ["its line", { ...billing, serial: "0d", lineage: "0c" }, true],
    ["the line's first leaf", { ...billing, serial: "0c" }, true],
    ["another line", { ...billing, serial: "0d", lineage: "0e" }, false],
  ];
  for (const [claim, leaf, out] of rows) assert.equal(isRevoked(revocations, leaf), out, claim);
  assert.equal(isRevoked(indexRevocations([]), { ...web, notBeforeMs: 0 }), false);
});

test("a kind has its plane, whomever the door would let in", async () => {
  const verdict = await judge({ ...caller, uris: [admin] }, data.issuing, {
    expect: { plane: "data", kinds: ["service", "admin"], purpose: "client" },
  });
  assert.ok(!verdict.ok);
  assert.equal(verdict.code, "bad_identity");
});
