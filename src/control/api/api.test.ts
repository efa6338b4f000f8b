import assert from "node:assert/strict";
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { once } from "node:events";
import { connect as connectTcp } from "node:net";
import { type TestContext, test } from "node:test";
import { connect } from "node:tls";
import {
  type ControlWorld,
  smallRegister,
  startControlWorld,
  trustDomain,
} from "../../../test/harness/control-world.ts";
import type { Credentials } from "../../base/credentials.ts";
import { clientContext } from "../../base/secure-context.ts";
import { makeCsr, makeKey } from "../../identity/enroll/make-csr.ts";
import type { Role } from "../../model/issued.ts";
import type { Principal } from "../../model/principal.ts";
import { indexRevocations, isRevoked } from "../../policy/peer.ts";
import { ApiRefused, ApiUnreachable, type ControlClient } from "../client/client.ts";
import { access, type RouteName } from "./access.ts";

const allRoles: readonly Role[] = ["admin", "deployer", "enroller", "auditor"];
const files = (text: string) => ({ files: [{ name: "sallyport.yaml", text }] });

/** The refusal that a call ends in. */
async function refusedCall(call: Promise<unknown>): Promise<ApiRefused> {
  return await call.then(
    () => assert.fail("the call was not refused"),
    (cause) => {
      assert.ok(cause instanceof ApiRefused, String(cause?.stack ?? cause));
      return cause;
    },
  );
}

function request(client: ControlClient, route: RouteName): Promise<unknown> {
  const [method, path] = route.split(" ") as ["GET", string];
  const at = path.replace("{version}", "1").replace("{id}", "0123456789abcdef");
  return client.call(method, at, method === "GET" ? {} : { body: {} });
}

/** Sends one request with these client options and gives everything that comes back. */
async function rawAnswer(
  port: number,
  credentials: Partial<Credentials>,
  bundlePem: string,
): Promise<string> {
  const context = clientContext({ keyPem: "", chainPem: "", ...credentials, bundlePem });
  const { key, cert, ...rest } = context;
  const socket = connect({
    ...rest,
    ...(credentials.keyPem && { key, cert }),
    host: "127.0.0.1",
    port,
    servername: "localhost",
  });
  socket.on("error", () => {});
  let text = "";
  socket.on("data", (bytes: Buffer) => {
    text += bytes.toString();
  });
  socket.once("secureConnect", () => socket.write("GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"));
  await once(socket, "close");
  return text;
}

test("every route lets in the roles of its row and nobody else", async (t) => {
  const world = await startControlWorld(t);
  for (const role of allRoles) {
    const client = await world.operator(role, `the-${role}`);
    for (const [route, { roles }] of Object.entries(access) as [
      RouteName,
      { roles: readonly Role[] },
    ][]) {
      const outcome = await request(client, route).then(
        () => "answered",
        (cause) => (cause instanceof ApiRefused ? cause.code : String(cause)),
      );
      const isLetIn = roles.includes(role);
      // An empty body is refused as such, which is after the role was asked.
      const expected = isLetIn
        ? ["answered", "bad_request", "not_found", "last_admin"]
        : ["role_missing"];
      assert.ok(expected.includes(outcome), `${role} at ${route}: ${outcome}`);
      const hit = world.hits.at(-1);
      assert.equal(hit?.action, access[route].action, route);
      assert.equal(hit?.decision, outcome === "answered" ? "allowed" : "refused", route);
    }
  }
});

test("every route of the application has a row", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  const document = (await admin.call("GET", "/openapi.json")).body as {
    openapi: string;
    paths: Record<string, Record<string, unknown>>;
  };
  assert.equal(document.openapi, "3.1.0");
  const routes = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  );
  assert.deepEqual(routes.toSorted(), Object.keys(access).toSorted());
});

test("who proves no operator's identity is told so and closed before a request is parsed", async (t) => {
  const world = await startControlWorld(t);
  const { port } = world.door.address;
  const bundle = world.authorities.control.bundlePem();
  const uri = (path: string) => `spiffe://${trustDomain}/${path}`;
  const service = await world.credentials(uri("service/web"), "data");
  const gate = await world.credentials(uri("gate/g1"), "control");
  const expired = await world.credentials(uri("admin/late"), "control", { ttlMs: 300_000 });
  const rows: [string, Partial<Credentials>, string, number][] = [
    ["no certificate", {}, "no_certificate", 0],
    ["a service of the data plane", service, "other_plane", 0],
    ["a gate of the control plane", gate, "bad_identity", 0],
    ["an administrator of yesterday", expired, "expired", 600_000],
  ];
  for (const [who, credentials, code, laterMs] of rows) {
    world.world.nowMs += laterMs;
    // What is valid by the test's clock is what counts: OpenSSL sees the real one.
    const answer = await rawAnswer(port, credentials, bundle);
    assert.match(answer, new RegExp(`^HTTP/1.1 401 [\\s\\S]*"code":"${code}"`), who);
    const hit = world.hits.at(-1);
    assert.equal(hit?.kind, "connection", who);
    assert.equal(hit?.code, code, who);
    assert.equal(hit?.caller, undefined, who);
    assert.ok(answer.includes(String(hit?.id)), who);
  }
});

test("an identity without a role, a removed one and a revoked one are refused", async (t) => {
  const world = await startControlWorld(t);
  await world.operator("admin", "first");
  const nobody = world.client(
    await world.credentials(`spiffe://${trustDomain}/admin/nobody`, "control"),
  );
  assert.equal((await refusedCall(nobody.call("GET", "/v1/status"))).code, "not_an_operator");
  const boss = await world.operator("admin", "boss");
  const bob = await world.operator("admin", "bob");
  await bob.call("GET", "/v1/status");
  world.world.nowMs += 5;
  await boss.call("POST", "/v1/revocations", { body: { principal: "admin/bob" } });
  // The same connection, kept alive.
  assert.equal((await refusedCall(bob.call("GET", "/v1/status"))).code, "revoked");
  assert.equal(world.hits.at(-1)?.caller, "admin/bob");
});

test("a recorded serial is worth nothing under another key", async (t) => {
  const world = await startControlWorld(t);
  const ann = await world.operator("admin", "ann");
  await ann.call("GET", "/v1/status");
  const [recorded] = (await world.store.newestLeaves(0)).filter(({ principal }) =>
    principal.endsWith("/admin/ann"),
  );
  assert.ok(recorded);
  const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
  // What a thief of the issuing key can make: everything as it is on record, but for the key.
  const copy = await world.authorities.control.sign({
    publicKeySpki: pair.publicKey.export({ format: "der", type: "spki" }),
    principal: recorded.principal,
    dnsNames: [],
    purpose: "client",
    ttlMs: 3_600_000,
  });
  await world.store.saveIssued({ ...recorded, serial: copy.serial, lineage: copy.serial });
  const thief = world.client({
    keyPem: pair.privateKey.export({ format: "pem", type: "pkcs8" }).toString(),
    chainPem: copy.chainPem,
    bundlePem: world.authorities.control.bundlePem(),
  });
  assert.equal((await refusedCall(thief.call("GET", "/v1/status"))).code, "not_an_operator");
  await ann.call("GET", "/v1/status");
});

test("the last administrator cannot be revoked", async (t) => {
  const world = await startControlWorld(t);
  const only = await world.operator("admin", "only");
  const refusal = await refusedCall(
    only.call("POST", "/v1/revocations", { body: { principal: "admin/only" } }),
  );
  assert.equal(refusal.code, "last_admin");
});

test("other addresses are cut before a byte of TLS, and recorded", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  world.world.admits = () => false;
  await assert.rejects(admin.call("GET", "/v1/status"), ApiUnreachable);
  assert.equal(world.hits.at(-1)?.code, "address_not_allowed");
});

test("a handshake that never ends is cut, and plaintext is no handshake", async (t) => {
  const world = await startControlWorld(t, { limits: { handshakeMs: 100 } });
  const { port } = world.door.address;
  const silent = connectTcp(port, "127.0.0.1");
  silent.on("error", () => {});
  await once(silent, "close");
  assert.equal(world.hits.at(-1)?.code, "handshake_timeout");
  const plain = connectTcp(port, "127.0.0.1", () => plain.write("GET / HTTP/1.1\r\n\r\n"));
  plain.on("error", () => {});
  plain.resume();
  await once(plain, "close");
  assert.equal(world.hits.at(-1)?.code, "not_tls");
});

test("handshakes in flight are limited by address", async (t) => {
  const world = await startControlWorld(t, { limits: { handshakesPerAddressMax: 2 } });
  const sockets = [];
  for (let i = 0; i < 3; i++) {
    const socket = connectTcp(world.door.address.port, "127.0.0.1");
    socket.on("error", () => {});
    await once(socket, "connect");
    sockets.push(socket);
  }
  await once(sockets[2] ?? assert.fail(), "close");
  assert.equal(world.hits.at(-1)?.code, "too_many_handshakes");
  for (const socket of sockets) socket.destroy();
});

test("apply wants to know which register it replaces", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  const stands = await admin.call("GET", "/v1/register");
  const etag = stands.etag ?? assert.fail("no ETag");
  const changed = files(smallRegister.replace("[GET]", "[GET, POST]"));

  const missing = await refusedCall(admin.call("PUT", "/v1/register", { body: changed }));
  assert.equal(missing.status, 428);

  const applied = await admin.call("PUT", "/v1/register", {
    body: changed,
    headers: { "If-Match": etag },
  });
  const body = applied.body as {
    snapshot: string;
    changes: { path: string }[];
    published: boolean;
  };
  assert.equal(body.published, true);
  assert.equal(body.snapshot, "1.2");
  assert.deepEqual(
    body.changes.map((change) => change.path),
    ["services.orders.allow[web-reads-orders].methods"],
  );
  assert.equal(world.published.at(-1)?.snapshot.author, "admin/ann");

  const late = await refusedCall(
    admin.call("PUT", "/v1/register", {
      body: files(smallRegister),
      headers: { "If-Match": etag },
    }),
  );
  assert.equal(late.status, 412);
  assert.equal(late.code, "changed_meanwhile");

  const forced = await admin.call("PUT", "/v1/register", {
    body: files(smallRegister),
    query: { force: true },
  });
  assert.equal((forced.body as { snapshot: string }).snapshot, "1.3");
  const again = await admin.call("PUT", "/v1/register", {
    body: files(smallRegister),
    query: { force: true },
  });
  assert.equal((again.body as { published: boolean }).published, false);
});

test("a register with errors is refused with all of them and their places", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  const broken = smallRegister
    .replace("owner: commerce", "ownr: commerce")
    .replace("[GET]", "[get it]");
  const refusal = await refusedCall(
    admin.call("PUT", "/v1/register", { body: files(broken), query: { force: true } }),
  );
  assert.equal(refusal.status, 422);
  assert.ok(refusal.problems.length >= 2, JSON.stringify(refusal.problems));
  assert.ok(refusal.problems.every((problem) => problem.file === "sallyport.yaml" && problem.line));
  assert.equal(world.published.length, 1);
});

test("a dry run changes nothing", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  const dry = await admin.call("PUT", "/v1/register", {
    body: files(smallRegister.replace("[GET]", "[PUT]")),
    query: { dryRun: true },
  });
  const body = dry.body as { published: boolean; changes: unknown[] };
  assert.equal(body.published, false);
  assert.equal(body.changes.length, 1);
  assert.equal(world.published.length, 1);
});

test("a deployer changes services of its owners, and nothing else", async (t) => {
  const world = await startControlWorld(t);
  const deployer = await world.operator("deployer", "ci", { owners: ["commerce"] });
  const put = (text: string) =>
    deployer.call("PUT", "/v1/register", { body: files(text), query: { force: true } });
  await put(smallRegister.replace("[GET]", "[GET, POST]"));
  const rows: [string, string][] = [
    ["another's service", smallRegister.replace("storefront", "elsewhere")],
    [
      "taking another's service over",
      smallRegister.replace("owner: storefront", "owner: commerce"),
    ],
    ["giving its own away", smallRegister.replace("owner: commerce", "owner: storefront")],
    [
      "a new service of another",
      smallRegister.replace("  orders:", "  spy: { owner: evil }\n  orders:"),
    ],
    [
      "removing another's service",
      smallRegister.replace("  web: { owner: storefront }\n", "").replace("from: web", 'from: "*"'),
    ],
    ["a plane", `${smallRegister}planes:\n  data: { bind: "127.0.0.1:9443" }\n`],
    ["a network", `${smallRegister}networks:\n  mesh: ["10.20.0.0/16"]\n`],
  ];
  for (const [what, text] of rows) {
    const refusal = await refusedCall(put(text));
    assert.equal(refusal.code, "not_yours", `${what}: ${JSON.stringify(refusal.problems)}`);
    assert.ok(refusal.problems.length > 0, what);
  }
});

test("which unix sockets a gate opens is for an admin to say", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  const deployer = await world.operator("deployer", "ci", { owners: ["commerce"] });
  const put = (client: ControlClient, text: string) =>
    client.call("PUT", "/v1/register", { body: files(text), query: { force: true } });
  const tcp = '"127.0.0.1:9001"';
  const socket = smallRegister.replace(tcp, '"unix:/run/orders.sock"');
  const another = (text: string) => text.replace("orders.sock", "docker.sock");
  const rows: [string, string, string][] = [
    ["another kind of upstream", smallRegister, another(socket)],
    ["one more", smallRegister, smallRegister.replace(tcp, `${tcp}, "unix:/run/docker.sock"`)],
    ["another path", socket, another(socket)],
    ["another port of its own", socket, socket.replace("      http: {", "      web: {")],
    [
      "a new service of its own",
      smallRegister,
      `${smallRegister}  spy: { owner: commerce, upstreams: ["unix:/run/docker.sock"] }\n`,
    ],
  ];
  for (const [what, before, after] of rows) {
    await put(admin, before);
    const refusal = await refusedCall(put(deployer, after));
    assert.equal(refusal.code, "not_yours", `${what}: ${JSON.stringify(refusal.problems)}`);
    assert.deepEqual(
      refusal.problems.map(({ code }) => code),
      ["socket-needs-admin"],
      what,
    );
    await put(admin, after);
  }
  await put(admin, socket);
  await put(deployer, socket.replace("[GET]", "[GET, POST]"));
  await put(deployer, smallRegister);
});

test("a rollback publishes the old register with the revocations of today", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  await admin.call("PUT", "/v1/register", {
    body: files(smallRegister.replace("[GET]", "[PUT]")),
    query: { force: true },
  });
  await admin.call("POST", "/v1/revocations", { body: { principal: "service/web" } });
  const back = await admin.call("POST", "/v1/snapshots/1/rollback");
  assert.equal((back.body as { snapshot: string }).snapshot, "1.4");
  const now = world.published.at(-1)?.snapshot;
  assert.deepEqual(now?.register, world.published[0]?.snapshot.register);
  assert.deepEqual(
    now?.revocations.map((one) => one.principal),
    ["service/web"],
  );
  const missing = await refusedCall(admin.call("POST", "/v1/snapshots/99/rollback"));
  assert.equal(missing.code, "not_found");
  const history = await admin.call("GET", "/v1/snapshots");
  assert.deepEqual(
    (history.body as { snapshots: { reason: string }[] }).snapshots.map((head) => head.reason),
    ["rollback 1", "revoke service/web", "apply", "apply"],
  );
});

test("a revocation goes ahead of its snapshot and names gates that have not confirmed", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  world.world.confirmations = { confirmed: ["g1"], missing: ["g2"] };
  const reply = await admin.call("POST", "/v1/revocations", { body: { principal: "service/web" } });
  const body = reply.body as { confirmed: string[]; missing: string[] };
  assert.deepEqual([body.confirmed, body.missing], [["g1"], ["g2"]]);
  assert.equal(world.revoked[0]?.principal, "service/web");
  assert.equal(world.published.at(-1)?.snapshot.revocations.length, 1);
});

test("a serial takes its line with it; unknown ones are said to be unknown", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  await world.credentials(`spiffe://${trustDomain}/service/web`, "data");
  const [leaf] = (await world.store.newestLeaves(0)).filter((one) => one.plane === "data");
  const reply = await admin.call("POST", "/v1/revocations", { body: { serial: leaf?.serial } });
  assert.deepEqual((reply.body as { revocation: object }).revocation, {
    principal: "service/web",
    serial: leaf?.serial,
    lineage: leaf?.lineage,
    at: world.world.nowMs,
  });
  assert.ok(leaf && (await world.store.isRevoked({ ...leaf, serial: "ff", at: leaf.at + 1 })));
  for (const body of [
    { serial: "abcdef" },
    { principal: "gate/none" },
    { principal: "service/wbe" },
    { principal: "nonsense" },
  ])
    assert.equal(
      (await refusedCall(admin.call("POST", "/v1/revocations", { body }))).code,
      "not_found",
    );
});

test("a serial takes every living leaf of its line with it, by the serials that gates see", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  const principal = `spiffe://${trustDomain}/service/web` as Principal;
  const { token } = await world.issuance.createToken({ principal, createdBy: "admin/ann" });
  const peerAddress = "127.0.0.1";
  const csr = async () => makeCsr(await makeKey());
  const enrolled = await world.issuance.enrol({ token, csr: await csr(), peerAddress });
  const lines = [new X509Certificate(enrolled.leaves.data?.chain ?? "")];
  for (let age = 1; age <= 2; age++) {
    world.world.nowMs += 1_200_000;
    const [leaf] = lines.slice(-1);
    assert.ok(leaf);
    const next = await world.issuance.renew({ leaf, plane: "data", csr: await csr(), peerAddress });
    lines.push(new X509Certificate(next.chain));
  }
  const [first = "", ...others] = lines.map((leaf) => leaf.serialNumber.toLowerCase());
  await admin.call("POST", "/v1/revocations", { body: { serial: first } });
  const list = world.published.at(-1)?.snapshot.revocations ?? [];
  const table = indexRevocations(list);
  for (const serial of [first, ...others])
    assert.equal(
      isRevoked(table, { shortName: "service/web", serial, notBeforeMs: world.world.nowMs }),
      true,
      "what a gate knows of a leaf is its serial",
    );
  assert.deepEqual(
    world.revoked.map((one) => one.serial),
    [first, ...others],
    "each goes ahead of the snapshot",
  );
});

test("a leaf of a time when the clock was ahead is revoked with its principal", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  world.world.nowMs += 1_800_000;
  await world.credentials(`spiffe://${trustDomain}/service/web`, "data");
  world.world.nowMs -= 1_800_000;
  await admin.call("POST", "/v1/revocations", { body: { principal: "service/web" } });
  const [leaf] = (await world.store.newestLeaves(0)).filter((one) => one.plane === "data");
  assert.ok(leaf);
  assert.equal(await world.store.isRevoked(leaf), true);
  const table = indexRevocations(world.published.at(-1)?.snapshot.revocations ?? []);
  assert.equal(isRevoked(table, { ...leaf, shortName: "service/web" }), true);
});

test("tokens that a revoked operator made and nobody has used go with it", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  const mallory = await world.operator("admin", "mallory");
  await mallory.call("POST", "/v1/tokens", { body: { role: "admin", name: "sleeper" } });
  await mallory.call("POST", "/v1/tokens", { body: { service: "web", ttlMs: 86_400_000 } });
  await admin.call("POST", "/v1/tokens", { body: { service: "web" } });
  await admin.call("POST", "/v1/revocations", { body: { principal: "admin/mallory" } });
  const left = (await admin.call("GET", "/v1/tokens")).body as { tokens: { createdBy: string }[] };
  assert.deepEqual(
    left.tokens.map((token) => token.createdBy),
    ["admin/ann"],
  );
});

test("an administrator who was invited and never came does not count as one that is left", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  await admin.call("POST", "/v1/tokens", { body: { role: "admin", name: "bob" } });
  const refused = await refusedCall(
    admin.call("POST", "/v1/revocations", { body: { principal: "admin/ann" } }),
  );
  assert.equal(refused.code, "last_admin");
  await world.operator("admin", "bob");
  await admin.call("POST", "/v1/revocations", { body: { principal: "admin/ann" } });
});

test("revoking makes unspent tokens void", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  await admin.call("POST", "/v1/tokens", { body: { service: "web" } });
  await admin.call("POST", "/v1/tokens", { body: { service: "web" } });
  await admin.call("POST", "/v1/tokens", { body: { gate: "g1" } });
  const spent = (await world.store.tokens(0)).find((one) => one.principal.endsWith("/web"));
  await world.store.spendToken(spent?.hash ?? "", "key", 1);
  const reply = await admin.call("POST", "/v1/revocations", { body: { principal: "service/web" } });
  // One of the two was used before: nothing about it changes now.
  assert.equal((reply.body as { tokens: number }).tokens, 1);
  const left = (await admin.call("GET", "/v1/tokens")).body as { tokens: { principal: string }[] };
  assert.deepEqual(
    left.tokens.map((token) => token.principal),
    ["gate/g1"],
  );
});

test("tokens: for registered services, once shown, never stored; an enroller's for its services only", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  const enroller = await world.operator("enroller", "ci", { services: ["web"] });
  const made = (
    await enroller.call("POST", "/v1/tokens", { body: { service: "web", from: ["10.0.0.0/8"] } })
  ).body as { token: string; record: { id: string; from: string[] } };
  assert.match(made.token, /^sp1\./);
  assert.deepEqual(made.record.from, ["10.0.0.0/8"]);
  const listed = await admin.call("GET", "/v1/tokens");
  assert.ok(!JSON.stringify(listed.body).includes(made.token));
  assert.ok(!JSON.stringify(world.hits).includes(made.token));
  const rows: [object, string][] = [
    [{ service: "orders" }, "not_yours"],
    [{ gate: "g1" }, "not_yours"],
    [{ role: "admin", name: "me" }, "not_yours"],
    [{ service: "web", from: ["not a range"] }, "bad_request"],
    [{ service: "web", ttlMs: 1 }, "bad_request"],
    [{ service: "web", gate: "g1" }, "bad_request"],
  ];
  for (const [body, code] of rows)
    assert.equal(
      (await refusedCall(enroller.call("POST", "/v1/tokens", { body }))).code,
      code,
      JSON.stringify(body),
    );
  assert.equal(
    (await refusedCall(admin.call("POST", "/v1/tokens", { body: { service: "ghost" } }))).code,
    "not_found",
  );
  await admin.call("POST", "/v1/tokens", {
    body: { role: "deployer", name: "cd", owners: ["commerce"] },
  });
  const clash = await refusedCall(
    admin.call("POST", "/v1/tokens", { body: { role: "enroller", name: "cd" } }),
  );
  assert.equal(clash.code, "refused_step");
  await admin.call("DELETE", `/v1/tokens/${made.record.id}`);
  assert.equal(
    (await refusedCall(admin.call("DELETE", `/v1/tokens/${made.record.id}`))).code,
    "not_found",
  );
});

test("what is asked for wrongly is said as a person would say it", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  const token = (more: object) => ["POST", "/v1/tokens", { body: { service: "web", ...more } }];
  const rows: [call: unknown[], path: string, says: RegExp][] = [
    [token({ ttlMs: 99 * 86_400_000 }), "ttlMs", /from 60000 \(1m\) to 86400000 \(24h\)/],
    [token({ ttlMs: 1 }), "ttlMs", /1m.*24h/],
    [token({ ttlMs: "1h" }), "ttlMs", /1m.*24h/],
    [token({ from: ["10.0.0.1/8"] }), "from.0", /as in 10\.20\.0\.0\/16/],
    [["POST", "/v1/revocations", { body: { serial: "zz" } }], "serial", /1 to 40 lower-case hex/],
    [["POST", "/v1/tokens", { body: {} }], "", /service, gate, or role with name/],
    [["POST", "/v1/tokens", { body: { service: "web", gate: "g" } }], "", /service, gate, or role/],
    [["POST", "/v1/revocations", { body: {} }], "", /principal or serial/],
    [["DELETE", "/v1/tokens/zz"], "id", /16 lower-case hex digits/],
    [
      ["POST", "/v1/revocations", { body: { principal: "a" }, query: { waitMs: 99_999 } }],
      "waitMs",
      /from 0 to 30000/,
    ],
  ];
  for (const [call, path, says] of rows) {
    const refusal = await refusedCall(admin.call(...(call as Parameters<ControlClient["call"]>)));
    const [problem] = refusal.problems;
    assert.equal(problem?.path, path);
    assert.match(problem?.message ?? "", says);
  }
});

test("without a hit log nothing is changed or told, but attackers can still be cut off", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  world.world.canRecord = false;
  for (const call of [
    admin.call("PUT", "/v1/register", {
      body: files(smallRegister.replace("[GET]", "[PUT]")),
      query: { force: true },
    }),
    admin.call("POST", "/v1/tokens", { body: { service: "web" } }),
    admin.call("GET", "/v1/register"),
  ])
    assert.equal((await refusedCall(call)).code, "audit_unavailable");
  assert.equal(world.published.length, 1);
  assert.equal((await world.store.tokens(0)).length, 0);
  await admin.call("POST", "/v1/revocations", { body: { principal: "service/web" } });
  await admin.call("POST", "/v1/snapshots/1/rollback");
});

test("hostile requests get a code and never a stack", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  const big = "x".repeat(1024 * 1024);
  const rows: [Parameters<ControlClient["call"]>, number, string][] = [
    [["GET", "/nowhere"], 404, "not_found"],
    [["GET", "/v1/register/"], 404, "not_found"],
    [["POST", "/v1/register", { body: {} }], 404, "not_found"],
    [["PUT", "/v1/register", { body: files(big) }], 413, "too_large"],
    [["PUT", "/v1/register", { body: { files: [], extra: 1 } }], 400, "bad_request"],
    [
      ["PUT", "/v1/register", { body: {}, headers: { "Content-Type": "text/plain" } }],
      415,
      "not_json",
    ],
    [
      ["PUT", "/v1/register", { body: files("a"), headers: { "If-Match": "*" } }],
      422,
      "bad_register",
    ],
    [
      ["PUT", "/v1/register", { headers: { "Transfer-Encoding": "chunked" } }],
      411,
      "length_required",
    ],
    [["GET", "/v1/hits", { query: { limit: 0 } }], 400, "bad_request"],
    [["GET", "/v1/snapshots/abc"], 400, "bad_request"],
    [["GET", "/v1/status", { headers: { "Sec-Fetch-Site": "cross-site" } }], 400, "bad_request"],
    [["GET", "/v1/status", { headers: { Origin: "https://evil.example" } }], 400, "bad_request"],
  ];
  for (const [call, status, code] of rows) {
    const refusal = await refusedCall(admin.call(...call));
    // If-Match is read after the body's shape, and before the register itself: either answer is a no.
    const codes = code === "bad_register" ? [code, "bad_request"] : [code];
    assert.ok(
      codes.includes(refusal.code),
      `${call[0]} ${call[1]}: ${refusal.status} ${refusal.code} ${refusal.message}`,
    );
    if (code !== "bad_register") assert.equal(refusal.status, status);
    assert.ok(refusal.hit, call[1]);
    assert.ok(!/\bat .*\.ts:\d+/.test(JSON.stringify(refusal)), call[1]);
  }
});

test("status says what is wrong and what can be gone around", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  world.world.gates = [
    {
      name: "g1",
      connected: true,
      running: { epoch: 1, version: 1, digest: "00" },
      addresses: ["127.0.0.1:7443"],
      servedNames: [],
      counters: {},
    },
    { name: "g2", connected: false, running: null, addresses: [], servedNames: [], counters: {} },
  ];
  await world.credentials(`spiffe://${trustDomain}/service/web`, "data", { ttlMs: 300_000 });
  world.world.nowMs += 295_000;
  const status = (await admin.call("GET", "/v1/status")).body as {
    snapshot: { name: string };
    gates: { name: string; connected: boolean; behind?: number }[];
    identities: { principal: string; state: string }[];
    notes: string[];
  };
  assert.equal(status.snapshot.name, "1.1");
  assert.deepEqual(
    status.gates.map((gate) => [gate.name, gate.connected]),
    [
      ["g1", true],
      ["g2", false],
    ],
  );
  assert.deepEqual(
    status.identities[0] && [status.identities[0].principal, status.identities[0].state],
    ["service/web", "due"],
  );
  assert.match(
    status.notes.join("\n"),
    /any process of this machine can go around the gate to orders/,
  );
  assert.match(status.notes.join("\n"), /this is a test/);
  const metrics = (await admin.call("GET", "/metrics")).body as string;
  assert.match(metrics, /^sallyport_control_gates_connected 1$/m);
  assert.match(metrics, /^sallyport_control_gates_enrolled 2$/m);
});

test("ca rotate takes its steps in order, and after a swap the door speaks for the new root", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  const rotate = (step: string, force = false) =>
    admin.call("POST", "/v1/authorities/rotate", { body: { step, plane: "control", force } });
  assert.equal((await refusedCall(rotate("activate"))).code, "refused_step");
  await rotate("prepare");
  world.door.swap(await world.credentials(`spiffe://${trustDomain}/control/control`, "control"));
  await rotate("activate", true);
  const fresh = await world.credentials(`spiffe://${trustDomain}/control/control`, "control");
  world.door.swap(fresh);
  const next = world.client(
    await world.credentials(`spiffe://${trustDomain}/admin/ann`, "control"),
  );
  await next.call("GET", "/v1/status");
  // Everything that a swap could have let back in: TLS 1.2, and a resumed session.
  const { keyPem, chainPem, bundlePem } = await world.credentials(
    `spiffe://${trustDomain}/admin/ann`,
    "control",
  );
  const old = connect({
    host: "127.0.0.1",
    port: world.door.address.port,
    key: keyPem,
    cert: chainPem,
    ca: bundlePem,
    maxVersion: "TLSv1.2",
    checkServerIdentity: () => undefined,
  });
  const [refused] = await once(old, "error");
  assert.equal(world.hits.at(-1)?.code, "handshake_failed");
  assert.match(String(refused), /alert|version|protocol/i);
});

test("a client talks to nobody but its control plane", async (t) => {
  const world = await startControlWorld(t);
  await world.operator("admin", "ann");
  // A gate's leaf is of the same plane, and would be taken for the control plane by its root alone.
  world.door.swap(await world.credentials(`spiffe://${trustDomain}/gate/g1`, "control"));
  const client = world.client(
    await world.credentials(`spiffe://${trustDomain}/admin/ann`, "control"),
  );
  await assert.rejects(client.call("GET", "/v1/status"), ApiUnreachable);
  await world.door.close();
  await assert.rejects(client.call("GET", "/v1/status"), (cause) => {
    assert.ok(cause instanceof ApiUnreachable);
    assert.match(cause.message, /no control plane answers/);
    return true;
  });
});

/** One connection of an administrator, on which it asks again and again: the status line, or `undefined` once it is closed. */
async function keptConnection(t: TestContext, world: ControlWorld) {
  await world.operator("admin", "ann");
  const socket = connect({
    ...clientContext(await world.credentials(`spiffe://${trustDomain}/admin/ann`, "control")),
    host: "127.0.0.1",
    port: world.door.address.port,
    checkServerIdentity: () => undefined,
  });
  t.after(() => socket.destroy());
  socket.on("error", () => {});
  await once(socket, "secureConnect");
  const ask = async (): Promise<string> => {
    socket.write("GET /live HTTP/1.1\r\nHost: x\r\n\r\n");
    const [bytes] = await Promise.race([once(socket, "data"), once(socket, "close")]);
    return String(bytes).slice(0, 12);
  };
  return { ask, socket };
}

test("a connection that was judged by a root which is gone has nothing more to say", async (t) => {
  const world = await startControlWorld(t);
  const { ask, socket } = await keptConnection(t, world);
  const ca = world.authorities.control;
  const own = `spiffe://${trustDomain}/control/control`;
  const swap = async () => world.door.swap(await world.credentials(own, "control"));
  for (const step of [
    () => Promise.resolve(),
    () => ca.prepare(),
    () => ca.activate({ force: true }),
  ]) {
    await step();
    await swap();
    assert.equal(await ask(), "HTTP/1.1 200");
  }
  await ca.retire({ force: true });
  await swap();
  assert.notEqual(await ask(), "HTTP/1.1 200");
  assert.equal(world.hits.at(-1)?.code, "unknown_issuer");
  await once(socket, "close");
});

test("a connection outlives neither the leaf that opened it nor the right to use it", async (t) => {
  const world = await startControlWorld(t);
  const first = await keptConnection(t, world);
  assert.equal(await first.ask(), "HTTP/1.1 200");
  // Out of the table alone: a removal that was stored before a crash kept its revocation from following.
  const ann = `spiffe://${trustDomain}/admin/ann` as Principal;
  await world.store.removePrincipal(ann, world.world.nowMs);
  assert.equal(await first.ask(), "HTTP/1.1 403");
  const second = await keptConnection(t, world);
  assert.equal(await second.ask(), "HTTP/1.1 200");
  world.world.nowMs += 3_600_001;
  assert.equal(await second.ask(), "HTTP/1.1 401");
});

test("whoever finds the house full is hung up on, and that is a hit", async (t) => {
  const world = await startControlWorld(t, { limits: { connectionsMax: 1 } });
  const dial = async () => {
    const socket = connectTcp(world.door.address.port, "127.0.0.1");
    t.after(() => socket.destroy());
    socket.on("error", () => {});
    await once(socket, "connect");
    return socket;
  };
  await dial();
  const second = await dial();
  await once(second.resume(), "close");
  assert.equal(world.hits.at(-1)?.code, "too_many_connections");
});

test("a leaf that is on record as somebody else's, or not at all, has no role", async (t) => {
  const world = await startControlWorld(t);
  const admin = await world.operator("admin", "ann");
  await admin.call("GET", "/v1/status");
  const ann = `spiffe://${trustDomain}/admin/ann` as Principal;
  const bob = `spiffe://${trustDomain}/admin/bob` as Principal;
  const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
  // As whoever has the authority's key would, without the store knowing.
  const signed = await world.authorities.control.sign({
    publicKeySpki: pair.publicKey.export({ format: "der", type: "spki" }),
    principal: ann,
    dnsNames: [],
    purpose: "client",
    ttlMs: 60_000,
  });
  const forged = world.client({
    keyPem: pair.privateKey.export({ format: "pem", type: "pkcs8" }).toString(),
    chainPem: signed.chainPem,
    bundlePem: world.authorities.control.bundlePem(),
  });
  const asked = () => refusedCall(forged.call("GET", "/v1/status"));
  assert.equal((await asked()).code, "not_an_operator");
  const { certPem, notAfterMs, notBeforeMs, serial } = signed;
  await world.store.saveIssued({
    plane: "control",
    serial,
    principal: bob,
    lineage: serial,
    publicKey: "another",
    certPem,
    notBeforeMs,
    notAfterMs,
    at: world.world.nowMs,
    via: "token",
  });
  assert.equal((await asked()).code, "not_an_operator");
});

test("a handshake that goes on byte by byte ends at the deadline all the same", async (t) => {
  const world = await startControlWorld(t, { limits: { handshakeMs: 300 } });
  const socket = connectTcp(world.door.address.port, "127.0.0.1");
  t.after(() => socket.destroy());
  socket.on("error", () => {});
  await once(socket, "connect");
  const beganMs = performance.now();
  // The head of a TLS record of 8 KiB, and then one byte of it at a time.
  socket.write(Buffer.from("1603012000", "hex"));
  const drip = setInterval(() => socket.write("x"), 20);
  t.after(() => clearInterval(drip));
  await once(socket.resume(), "close");
  assert.ok(performance.now() - beganMs < 3_000);
  assert.equal(world.hits.at(-1)?.code, "handshake_timeout");
});
