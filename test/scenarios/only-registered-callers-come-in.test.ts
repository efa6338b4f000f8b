import "reflect-metadata";
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect } from "node:net";
import { Duplex } from "node:stream";
import { type TestContext, test } from "node:test";
import { connect as connectTls } from "node:tls";
import { ExtendedKeyUsage } from "@peculiar/x509";
import type { Credentials } from "../../src/base/credentials.ts";
import { forge } from "../harness/forge.ts";
import { HandClock } from "../harness/hand-clock.ts";
import { fieldValue, statusOf } from "../harness/http-text.ts";
import { type OneService, startOneService } from "../harness/one-service.ts";
import { dial } from "../harness/tls-client.ts";
import { until } from "../harness/until.ts";

const uri = "spiffe://test.internal/service/web";
const hourMs = 3_600_000;

type Peer = readonly [
  claim: string,
  credentials: (one: OneService) => Promise<Credentials | undefined> | undefined,
  code: string,
  /** Whether its identity was proven, so that the record may name it. */
  proven?: "proven",
];

const peers: readonly Peer[] = [
  ["a caller without a certificate", () => undefined, "no_certificate"],
  ["a self-signed certificate", () => forge({ uris: [uri] }), "unknown_issuer"],
  [
    "a self-signed certificate that has expired",
    () => forge({ uris: [uri], from: 1, to: Date.now() - hourMs }),
    "unknown_issuer",
  ],
  [
    "a leaf of the control plane",
    ({ world }) => world.issue("ci", { kind: "admin", plane: "control" }),
    "other_plane",
  ],
  [
    "an expired leaf",
    ({ world }) => world.issue("web", { ttlMs: 600_000, clock: () => Date.now() - hourMs }),
    "expired",
  ],
  [
    "a leaf that is not valid yet",
    ({ world }) => world.issue("web", { clock: () => Date.now() + hourMs }),
    "not_yet_valid",
  ],
  ["a gate's leaf", ({ world }) => world.issue("other", { kind: "gate" }), "bad_identity"],
  [
    "two names in one leaf",
    ({ world }) => forge({ uris: [uri, `${uri}2`], by: world }),
    "bad_identity",
  ],
  [
    "a leaf without a name",
    ({ world }) => forge({ uris: [], dns: ["web"], by: world }),
    "bad_identity",
  ],
  [
    "another trust domain, signed by our own key",
    ({ world }) => forge({ uris: ["spiffe://evil.internal/service/web"], by: world }),
    "bad_identity",
  ],
  [
    "a principal that is none",
    ({ world }) => forge({ uris: ["spiffe://test.internal/service/web/x"], by: world }),
    "bad_identity",
  ],
  [
    "a service's leaf with a DNS name",
    ({ world }) => forge({ uris: [uri], dns: ["orders"], by: world }),
    "wrong_purpose",
  ],
  [
    "a service's leaf that could also serve",
    ({ world }) =>
      forge({
        uris: [uri],
        usages: [ExtendedKeyUsage.clientAuth, ExtendedKeyUsage.serverAuth],
        by: world,
      }),
    "wrong_purpose",
  ],
  [
    "a leaf that may only serve",
    ({ world }) => forge({ uris: [uri], usages: [ExtendedKeyUsage.serverAuth], by: world }),
    "wrong_purpose",
  ],
  [
    "a caller that is not registered",
    ({ world }) => world.issue("ghost"),
    "not_registered",
    "proven",
  ],
];

test("a peer that is not a registered caller gets fixed words, whatever it sends, and nothing is parsed", async (t) => {
  const one = await startOneService(t);
  const request = "GET /a HTTP/1.1\r\nHost: orders\r\n\r\n";
  for (const [claim, make, code, proven] of peers) {
    const credentials = await make(one);
    let words: string | undefined;
    // A good request, something that is none, and nothing at all.
    for (const sends of [request, randomBytes(300).toString("latin1"), ""]) {
      const client = await dial({ port: one.world.port, credentials });
      t.after(() => client.close());
      if (sends) client.send(sends);
      const response = await client.response();
      assert.ok([401, 403].includes(statusOf(response)), claim);
      assert.equal(fieldValue(response, "sallyport-refusal"), code, claim);
      assert.equal(fieldValue(response, "connection"), "close", claim);
      const hit = one.world.hits.find(({ id }) => id === fieldValue(response, "sallyport-hit"));
      assert.equal(hit?.kind, "connection", claim);
      assert.equal(hit?.code, code, claim);
      assert.equal(hit?.method ?? hit?.path, undefined, "nothing of what it sent is in the record");
      assert.equal(hit?.caller, proven && "service/ghost", claim);
      if (credentials && !proven) assert.ok(hit?.claimed !== undefined, claim);
      const said = response.raw.toString("latin1").replaceAll(hit?.id ?? "", "HIT");
      assert.equal(said, words ?? said, "the same words each time");
      words = said;
      client.end();
      await client.ended;
    }
  }
  assert.equal(one.upstream.connections, 0);
  const good = await one.dial();
  good.send(request);
  assert.equal(statusOf(await good.response()), 200, "a registered caller is let in");
});

test("without a view nobody is let in; with the first one they are", async (t) => {
  const one = await startOneService(t, { plane: { noView: true } });
  const client = await one.dial();
  const response = await client.response();
  assert.equal(statusOf(response), 503);
  assert.equal(fieldValue(response, "sallyport-refusal"), "no_view");
  one.world.publish(one.register);
  const again = await one.dial();
  again.send("GET /a HTTP/1.1\r\nHost: orders\r\n\r\n");
  assert.equal(statusOf(await again.response()), 200);
});

test("a revoked caller is turned away, and one whose leaf is newer is not", async (t) => {
  const one = await startOneService(t);
  const old = await one.world.issue("web", { clock: () => Date.now() - 120_000 });
  one.world.revoke({ principal: "service/web", at: Date.now() - 60_000, why: "lost" } as never);
  const client = await one.dial(old);
  const response = await client.response();
  assert.equal(fieldValue(response, "sallyport-refusal"), "revoked");
  assert.equal(one.world.hits.at(-1)?.caller, "service/web");
  const newer = await one.dial(await one.world.issue("web"));
  newer.send("GET /a HTTP/1.1\r\nHost: orders\r\n\r\n");
  assert.equal(statusOf(await newer.response()), 200);
});

/** Plain TCP to the gate; what it was sent back. */
async function plain(
  t: TestContext,
  port: number,
): Promise<{ socket: ReturnType<typeof connect>; got: () => number; closed: Promise<unknown> }> {
  const socket = connect(port, "127.0.0.1");
  t.after(() => socket.destroy());
  let got = 0;
  socket.on("data", (chunk) => {
    got += chunk.length;
  });
  socket.on("error", () => undefined);
  const closed = once(socket, "close");
  await once(socket, "connect");
  return { socket, got: () => got, closed };
}

test("what is not TLS gets no byte, and its first bytes are in the record, escaped", async (t) => {
  const { world } = await startOneService(t);
  const { socket, got, closed } = await plain(t, world.port);
  socket.write("GET /\x01\xff HTTP/1.1\r\n\r\n", "latin1");
  await closed;
  assert.equal(got(), 0);
  const hit = await until("the hit", () => world.hits[0]);
  assert.equal(hit.code, "not_tls");
  assert.match(hit.detail ?? "", /GET \/\\x01\\xff HTTP\/1\.1\\x0d\\x0a/);
});

test("an address that the door is not for is closed before its first byte is read", async (t) => {
  let allowed = false;
  const one = await startOneService(t, { plane: { admits: () => allowed } });
  const { socket, got, closed } = await plain(t, one.world.port);
  socket.write("GET / HTTP/1.1\r\n\r\n");
  await closed;
  assert.equal(got(), 0);
  const hit = await until("the hit", () => one.world.hits[0]);
  assert.equal(hit.code, "address_not_allowed");
  assert.ok(!hit.detail, "nothing that it sent is in the record");
  allowed = true;
  const client = await one.dial();
  client.send("GET /a HTTP/1.1\r\nHost: orders\r\n\r\n");
  assert.equal(statusOf(await client.response()), 200);
});

test("TLS 1.2 is refused without an answer", async (t) => {
  const { world, web } = await startOneService(t);
  await assert.rejects(
    dial({ port: world.port, credentials: web, options: { maxVersion: "TLSv1.2" } }),
  );
  const hit = await until("the hit", () => world.hits[0]);
  assert.equal(hit.code, "handshake_failed");
  assert.equal(world.hits.length, 1, "one hit for one connection");
});

test("a ClientHello in single bytes is a ClientHello", async (t) => {
  const { world, web } = await startOneService(t);
  const { socket: raw } = await plain(t, world.port);
  raw.removeAllListeners("data");
  raw.setNoDelay(true);
  const bytewise = new Duplex({
    read() {},
    write(chunk: Buffer, _encoding, done) {
      for (const byte of chunk) raw.write(Buffer.of(byte));
      done();
    },
    final(done) {
      raw.end();
      done();
    },
  });
  raw.on("data", (chunk) => bytewise.push(chunk));
  raw.on("end", () => bytewise.push(null));
  const socket = connectTls({
    socket: bytewise,
    rejectUnauthorized: false,
    key: web.keyPem,
    cert: web.chainPem,
  });
  t.after(() => socket.destroy());
  await once(socket, "secureConnect");
  socket.write("GET /a HTTP/1.1\r\nHost: orders\r\n\r\n");
  const [chunk] = (await once(socket, "data")) as [Buffer];
  assert.match(chunk.toString(), /^HTTP\/1\.1 200 /);
});

test("a handshake has five seconds from the first moment, however it is drawn out", async (t) => {
  const clock = new HandClock();
  const { world } = await startOneService(t, { plane: { monotonic: clock.read } });
  const before = clock.reads;
  const silent = await plain(t, world.port);
  const slow = await plain(t, world.port);
  slow.socket.write(Buffer.from("160301", "hex"));
  await until("both were accepted", () => clock.reads >= before + 2);
  await clock.wasRead(1);
  clock.now = 4_999;
  slow.socket.write(Buffer.from("02", "hex"));
  await clock.wasRead(2);
  assert.ok(!slow.socket.destroyed && world.hits.length === 0, "not a moment before");
  clock.now = 5_001;
  await Promise.all([silent.closed, slow.closed]);
  await until("their hits", () => world.hits.length === 2);
  assert.deepEqual(
    world.hits.map(({ code }) => code),
    ["handshake_timeout", "handshake_timeout"],
  );
  await clock.wasRead(2);
  assert.equal(world.hits.length, 2, "each is recorded once");
});

test("a peer that hangs up in the middle of its handshake is recorded once", async (t) => {
  const clock = new HandClock();
  const { world } = await startOneService(t, { plane: { monotonic: clock.read } });
  for (const how of ["destroy", "end"] as const) {
    const { socket } = await plain(t, world.port);
    socket.write(Buffer.from("160301", "hex"));
    await until("sent", () => socket.bytesWritten === 3);
    socket[how]();
  }
  await until("both hits", () => world.hits.length === 2);
  clock.now = 60_000;
  await clock.wasRead(2);
  assert.deepEqual(
    world.hits.map(({ code }) => code),
    ["handshake_failed", "handshake_failed"],
  );
});
