import assert from "node:assert/strict";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import {
  controlLeaf,
  spkiOf,
  startIssuanceWorld,
  startTestDoor,
} from "../../../test/harness/issuance-world.ts";
import { verifySnapshot } from "../../base/signature.ts";
import { openAuthority } from "../authority/authority.ts";
import { readCredentials } from "../credentials/credential-directory.ts";
import { makeToken, parseToken } from "../token.ts";
import { enroll, enrollGate, TokenUnreadable } from "./enroll.ts";
import { JoinRefused, JoinUnreachable } from "./join-request.ts";
import { makeCsr, makeKey } from "./make-csr.ts";

const refusedWith = (code: string) => (cause: unknown) =>
  cause instanceof JoinRefused && cause.code === code;
const unreachable = (pattern: RegExp) => (cause: unknown) =>
  cause instanceof JoinUnreachable && pattern.test(cause.message);

test("a token becomes a key, a chain and a bundle that fit together", async (t) => {
  const world = await startIssuanceWorld(t);
  await startTestDoor(world);
  const { token } = await world.issuance.createToken({
    principal: world.principal("service", "web"),
    createdBy: "admin/first",
  });
  const out = join(world.dir, "web");
  const { principal } = await enroll({ token: `${token}\n`, out, clock: Date.now });
  assert.equal(principal, "spiffe://shop.internal/service/web");
  const leaf = new X509Certificate(await readFile(join(out, "chain.pem")));
  assert.ok(leaf.checkPrivateKey(createPrivateKey(await readFile(join(out, "key.pem")))));
  assert.equal(leaf.subjectAltName, "URI:spiffe://shop.internal/service/web");
  assert.deepEqual(leaf.keyUsage, ["1.3.6.1.5.5.7.3.2"], "clientAuth alone");
  assert.equal((await stat(join(out, "key.pem"))).mode & 0o777, 0o600);
  assert.equal((await stat(out)).mode & 0o777, 0o700);
  const held = await readCredentials(out);
  assert.equal(held.identity?.plane, "data");
  assert.equal(held.bundlePem, world.authorities.data.bundlePem());
  assert.deepEqual(world.events, ["issued init", "issued token"]);
});

test("a gate gets a leaf of each plane, and the key that signs snapshots", async (t) => {
  const world = await startIssuanceWorld(t);
  await startTestDoor(world);
  const { token } = await world.issuance.createToken({
    principal: world.principal("gate", "g1"),
    createdBy: "admin/first",
  });
  const gate = await enrollGate({
    token,
    controlOut: join(world.dir, "g1", "control"),
    dataOut: join(world.dir, "g1", "data"),
    clock: Date.now,
  });
  assert.equal(gate.control.identity?.plane, "control");
  assert.match(
    new X509Certificate(gate.data.chainPem).subjectAltName ?? "",
    /DNS:g1\.gate\.shop\.internal/,
  );
  assert.notEqual(gate.control.keyPem, gate.data.keyPem);
  const signed = world.snapshotKey.signSnapshot("{}");
  assert.equal(verifySnapshot(signed, [gate.snapshotKeyPem]), true);
});

test("when the answer is lost, the same call gets the same certificate", async (t) => {
  const world = await startIssuanceWorld(t);
  const door = await startTestDoor(world);
  const { token } = await world.issuance.createToken({
    principal: world.principal("service", "web"),
    createdBy: "admin/first",
  });
  const out = join(world.dir, "web");
  door.loseAnswers = 1;
  await assert.rejects(enroll({ token, out, clock: Date.now }), JoinUnreachable);
  await enroll({ token, out, clock: Date.now });
  assert.equal(world.leaves.filter((leaf) => leaf.via === "token").length, 1);
});

test("a token that comes with a second key is refused, and what the first one got is revoked", async (t) => {
  const world = await startIssuanceWorld(t);
  await startTestDoor(world);
  const { token } = await world.issuance.createToken({
    principal: world.principal("service", "web"),
    createdBy: "admin/first",
  });
  await enroll({ token, out: join(world.dir, "web"), clock: Date.now });
  await assert.rejects(
    enroll({ token, out: join(world.dir, "thief"), clock: Date.now }),
    refusedWith("token_spent"),
  );
  assert.deepEqual(world.events.slice(-1), ["token reuse 1"]);
  await assert.rejects(
    enroll({ token, out: join(world.dir, "web"), clock: Date.now }),
    refusedWith("token_spent"),
    "the first key is gone from the pending file, and a third one fares no better",
  );
});

test("a server that is not the token's is told nothing", async (t) => {
  const world = await startIssuanceWorld(t);
  const stranger = await openAuthority({
    dir: join(world.dir, "stranger"),
    plane: "control",
    trustDomain: "shop.internal",
    clock: Date.now,
  });
  const strangerKey = await makeKey();
  const strangerLeaf = await stranger.sign({
    publicKeySpki: spkiOf(strangerKey),
    principal: world.principal("control", "main"),
    dnsNames: ["localhost"],
    purpose: "server",
    ttlMs: 3_600_000,
  });
  const ours = await controlLeaf(world);
  const adminKey = await makeKey();
  const admin = await world.issuance.issueDirect({
    principal: world.principal("admin", "first"),
    plane: "control",
    publicKeySpki: spkiOf(adminKey),
  });
  const lateKey = await makeKey();
  const late = await world.authorities.control.signWithClock(
    {
      publicKeySpki: spkiOf(lateKey),
      principal: world.principal("control", "main"),
      dnsNames: [],
      purpose: "server",
      ttlMs: 60_000,
    },
    () => Date.now() - 7_200_000,
  );
  const root = world.authorities.control.rootPem();
  const rows: [claim: string, keyPem: string, chainPem: string, says: RegExp][] = [
    [
      "a stranger's control plane",
      strangerKey,
      strangerLeaf.chainPem + stranger.rootPem(),
      /not the one that the token/,
    ],
    [
      "a stranger who shows our root as well",
      strangerKey,
      strangerLeaf.chainPem + root,
      /not the one|not a control plane/,
    ],
    [
      "a stranger's leaf with our whole chain behind it",
      strangerKey,
      strangerLeaf.certPem + ours.chainPem.slice(ours.chainPem.indexOf("-----BEGIN", 20)),
      /not the one|not a control plane/,
    ],
    [
      "an administrator's leaf of our own authority",
      adminKey,
      admin.chain + root,
      /not a control plane/,
    ],
    [
      "our leaf without the root that proves the pin",
      ours.keyPem,
      ours.chainPem.slice(0, ours.chainPem.lastIndexOf("-----BEGIN")),
      /not the one that the token/,
    ],
    [
      "our leaf of an hour ago",
      lateKey,
      late.chainPem + root,
      /not a control plane to trust \(not valid after/,
    ],
  ];
  for (const [claim, keyPem, chainPem, says] of rows) {
    const door = await startTestDoor(world, { keyPem, chainPem });
    const { token } = await world.issuance.createToken({
      principal: world.principal("service", "web"),
      createdBy: "admin/first",
    });
    await assert.rejects(
      enroll({ token, out: join(world.dir, "web"), clock: Date.now }),
      unreachable(says),
      claim,
    );
    assert.deepEqual(door.requests, [], claim);
  }
});

test("roots that the token did not pin are not taken, whoever answers with them", async (t) => {
  const world = await startIssuanceWorld(t);
  await startTestDoor(world);
  const stranger = await openAuthority({
    dir: join(world.dir, "stranger"),
    plane: "control",
    trustDomain: "shop.internal",
    clock: Date.now,
  });
  const { token } = await world.issuance.createToken({
    principal: world.principal("service", "web"),
    createdBy: "admin/first",
  });
  world.authorities.control = {
    ...world.authorities.control,
    bundlePem: () => stranger.bundlePem(),
  };
  await assert.rejects(
    enroll({ token, out: join(world.dir, "web"), clock: Date.now }),
    unreachable(/control roots are not those of the token/),
  );
  await assert.rejects(readCredentials(join(world.dir, "web")), "nothing was written");
});

test("what is no token is refused before anything is dialled", async (t) => {
  const world = await startIssuanceWorld(t);
  const good = { fingerprint: "A".repeat(43), join: "127.0.0.1:7442" };
  const sp1 = (parts: unknown) => `sp1.${Buffer.from(JSON.stringify(parts)).toString("base64url")}`;
  assert.ok(parseToken(makeToken(good).token));
  const rows: [claim: string, token: string][] = [
    ["nothing", ""],
    ["another prefix", makeToken(good).token.replace("sp1.", "sp2.")],
    ["cut short", makeToken(good).token.slice(0, -20)],
    ["no secret", sp1(good)],
    ["a short secret", sp1({ ...good, secret: "AAAA" })],
    ["an address with a path", sp1({ ...good, secret: "A".repeat(43), join: "a:1/x" })],
    ["an address without a port", sp1({ ...good, secret: "A".repeat(43), join: "localhost" })],
    ["port 0", sp1({ ...good, secret: "A".repeat(43), join: "localhost:0" })],
    ["a list", sp1([1])],
    ["null", sp1(null)],
    ["too long", `sp1.${"A".repeat(2_000)}`],
  ];
  for (const [claim, token] of rows)
    await assert.rejects(
      enroll({ token, out: join(world.dir, "x"), clock: Date.now }),
      TokenUnreadable,
      claim,
    );
  assert.throws(() => makeToken({ ...good, join: "no port" }), TypeError);
});

test("a door that is not there, or does not speak TLS, or never answers, is named", async (t) => {
  const world = await startIssuanceWorld(t);
  const silent = createServer((socket) => void socket.resume());
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  t.after(() => silent.close());
  const closing = createServer((socket) => void socket.resume().end("no\n"));
  await new Promise<void>((resolve) => closing.listen(0, "127.0.0.1", resolve));
  t.after(() => closing.close());
  const portOf = (server: typeof silent) => (server.address() as { port: number }).port;
  const { joinRequest } = await import("./join-request.ts");
  const ask = (port: number) =>
    joinRequest({
      join: `127.0.0.1:${port}`,
      trust: { fingerprint: "A".repeat(43) },
      nowMs: world.clock.now,
      method: "POST",
      path: "/join/v1/enrol",
      deadlineMs: 200,
    });
  await assert.rejects(ask(portOf(silent)), unreachable(/did not answer in time/));
  await assert.rejects(ask(portOf(closing)), JoinUnreachable);
  const gone = portOf(closing);
  await new Promise((resolve) => closing.close(resolve));
  await assert.rejects(ask(gone), unreachable(/nobody is listening/));
});

test("a request proves its key and asks for nothing", async () => {
  const csr = await makeCsr(await makeKey());
  assert.match(csr, /^-----BEGIN CERTIFICATE REQUEST-----/);
});
