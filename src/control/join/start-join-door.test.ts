import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { request } from "node:https";
import { connect as connectPlain } from "node:net";
import { type TestContext, test } from "node:test";
import { connect, type TLSSocket } from "node:tls";
import { startFeedWorld, until } from "../../../test/harness/feed-world.ts";
import type { Credentials } from "../../base/credentials.ts";
import { clientContext } from "../../base/secure-context.ts";
import type { Issuance } from "./needs.ts";

const issuance: Issuance = {
  async enrol({ token, ...rest }) {
    if (token !== "right")
      throw Object.assign(new Error("the token is not known here"), {
        code: "token_unknown",
        status: 403,
      });
    return {
      leaves: { data: { chain: JSON.stringify(rest), bundle: "b" } },
      principal: "spiffe://shop.internal/service/web",
      controlBundle: "c",
    };
  },
  async renew({ leaf, plane, csr }) {
    if (csr === "fault") throw new Error("SELECT * FROM secrets");
    return { chain: `${plane} ${leaf.subjectAltName}`, bundle: "b", controlBundle: "c" };
  },
};

test("who may make which call: a table of refusals, each a hit before its answer leaves", async (t) => {
  const world = await startFeedWorld(t);
  const strangers = await startFeedWorld(t);
  const opened = await world.startDoor({
    issuance,
    with: {
      standing: async (caller) => {
        if (caller.principal.name === "gone") return "not_registered";
        return caller.principal.name === "out" ? "revoked" : undefined;
      },
      discover: (service) => ({ gates: [], services: [`for ${service}`] }),
    },
  });
  const yesterday = (): number => Date.now() - 86_400_000;
  const web = await world.leaf("data", "service", "web");
  const who: Record<string, Credentials | undefined> = {
    nobody: undefined,
    web,
    "web, expired": await world.leaf("data", "service", "web", { ttlMs: 60_000, clock: yesterday }),
    "web of strangers": await strangers.leaf("data", "service", "web"),
    "web of strangers, expired": await strangers.leaf("data", "service", "web", {
      ttlMs: 60_000,
      clock: yesterday,
    }),
    gone: await world.leaf("data", "service", "gone"),
    out: await world.leaf("data", "service", "out"),
    "gate, control": await world.leaf("control", "gate", "front"),
    "gate, control, out": await world.leaf("control", "gate", "out"),
    "gate, data": await world.leaf("data", "gate", "front"),
    admin: await world.leaf("control", "admin", "first"),
    control: world.own,
  };
  const enrol = { token: "right", csr: "c" };
  const rows: [who: string, call: string, body: unknown, status: number, code?: string][] = [
    ["nobody", "POST /join/v1/enrol", enrol, 200],
    ["nobody", "POST /join/v1/enrol", { token: "wrong", csr: "c" }, 403, "token_unknown"],
    ["nobody", "POST /join/v1/enrol", { token: "right" }, 400, "bad_request"],
    ["nobody", "POST /join/v1/enrol", { ...enrol, role: "admin" }, 400, "bad_request"],
    ["nobody", "POST /join/v1/enrol", [], 400, "bad_request"],
    ["nobody", "POST /join/v1/renew", { csr: "c" }, 401, "no_certificate"],
    ["web", "POST /join/v1/renew", { csr: "c" }, 200],
    ["gate, control", "POST /join/v1/renew", { csr: "c" }, 200],
    ["gate, data", "POST /join/v1/renew", { csr: "c", names: ["orders"] }, 200],
    ["admin", "POST /join/v1/renew", { csr: "c" }, 200],
    ["web", "POST /join/v1/renew", { csr: "c", principal: "admin/first" }, 400, "bad_request"],
    ["web", "POST /join/v1/renew", { csr: "fault" }, 500, "fault"],
    ["web, expired", "POST /join/v1/renew", { csr: "c" }, 200],
    ["web of strangers", "POST /join/v1/renew", { csr: "c" }, 401, "unknown_issuer"],
    ["web of strangers, expired", "POST /join/v1/renew", { csr: "c" }, 401, "unknown_issuer"],
    ["nobody", "GET /join/v1/discover", undefined, 401, "no_certificate"],
    ["web", "GET /join/v1/discover", undefined, 200],
    ["web, expired", "GET /join/v1/discover", undefined, 401, "expired"],
    ["web of strangers", "GET /join/v1/discover", undefined, 401, "unknown_issuer"],
    ["gone", "GET /join/v1/discover", undefined, 403, "not_registered"],
    ["out", "GET /join/v1/discover", undefined, 403, "revoked"],
    ["gate, data", "GET /join/v1/discover", undefined, 401, "bad_identity"],
    ["gate, control", "GET /join/v1/discover", undefined, 401, "other_plane"],
    ["admin", "GET /join/v1/discover", undefined, 401, "other_plane"],
    ["nobody", "UPGRADE /join/v1/feed", undefined, 401, "no_certificate"],
    ["web", "UPGRADE /join/v1/feed", undefined, 401, "other_plane"],
    ["gate, data", "UPGRADE /join/v1/feed", undefined, 401, "other_plane"],
    ["admin", "UPGRADE /join/v1/feed", undefined, 401, "bad_identity"],
    ["control", "UPGRADE /join/v1/feed", undefined, 401, "wrong_purpose"],
    ["gate, control, out", "UPGRADE /join/v1/feed", undefined, 403, "revoked"],
    ["gate, control", "UPGRADE /join/v1/feed", undefined, 101],
    ["gate, control", "GET /join/v1/feed", undefined, 426, "upgrade_required"],
    ["gate, control", "UPGRADE /join/v1/discover", undefined, 400, "upgrade_not_supported"],
    ["gate, control", "UPGRADE /join/v1/feed?x=1", undefined, 400, "upgrade_not_supported"],
    ["admin", "GET /", undefined, 404, "not_found"],
    ["admin", "GET /v1/register", undefined, 404, "not_found"],
    ["admin", "PUT /api/v1/register", enrol, 404, "not_found"],
    ["admin", "GET /join/v1/../../v1/register", undefined, 404, "not_found"],
    ["admin", "GET /join/v1/constructor", undefined, 404, "not_found"],
    ["web", "GET /join/v1/discover?as=admin", undefined, 404, "not_found"],
    ["web", "GET /join/v1/discover/", undefined, 404, "not_found"],
    ["web", "POST /join/v1/discover", {}, 405, "method_not_allowed"],
    ["nobody", "GET /join/v1/enrol", undefined, 405, "method_not_allowed"],
    ["nobody", "OPTIONS /join/v1/enrol", undefined, 405, "method_not_allowed"],
  ];
  for (const [name, call, body, status, code] of rows) {
    const claim = `${name}: ${call}`;
    const before = opened.hits.length;
    const answer = await ask(opened.port, { as: who[name], call, body, root: world.rootPem });
    assert.equal(answer.status, status, claim);
    assert.equal(answer.body?.code, code, claim);
    const hit = opened.hits[before];
    assert.equal(answer.hit, hit?.id, `${claim}: the answer names its hit`);
    assert.equal(hit?.status, status, claim);
    assert.equal(hit?.code, code, claim);
    assert.equal(hit?.plane, "join");
    assert.ok(!hit?.path?.includes("?"), "query strings are never recorded");
    if (hit?.decision === "refused" && status === 401)
      assert.equal(hit.caller, undefined, "claimed, never caller");
  }
  const said = JSON.stringify(opened.hits);
  assert.ok(!said.includes("right") && !said.includes("SELECT"), "no secret, no fault in the hits");
});

test("issuing is told whose key was proven, and from where", async (t) => {
  const world = await startFeedWorld(t);
  const { port } = await world.startDoor({ issuance });
  const as = await world.leaf("control", "gate", "front");
  const renewed = await ask(port, {
    as,
    call: "POST /join/v1/renew",
    body: { csr: "c" },
    root: world.rootPem,
  });
  assert.equal(renewed.body.chain, "control URI:spiffe://shop.internal/gate/front");
  const enrolled = await ask(port, {
    call: "POST /join/v1/enrol",
    body: { token: "right", csr: "c" },
    root: world.rootPem,
  });
  assert.match(enrolled.body.leaves.data.chain, /"peerAddress":"127.0.0.1"/);
});

test("what cannot be recorded is not answered", async (t) => {
  const world = await startFeedWorld(t);
  const feeds: number[] = [];
  const { port } = await world.startDoor({
    issuance,
    with: { record: () => undefined, onFeed: () => feeds.push(1) },
  });
  const root = world.rootPem;
  const enrolled = await ask(port, {
    call: "POST /join/v1/enrol",
    body: { token: "right", csr: "c" },
    root,
  });
  assert.deepEqual(
    [enrolled.status, enrolled.body.code, enrolled.body.leaves],
    [503, "audit_unavailable", undefined],
  );
  const as = await world.leaf("control", "gate", "front");
  assert.equal((await ask(port, { as, call: "UPGRADE /join/v1/feed", root })).status, 503);
  assert.equal(feeds.length, 0);
});

test("wrong tokens run out, right ones do not count", async (t) => {
  const world = await startFeedWorld(t);
  const { port } = await world.startDoor({ issuance });
  const attempt = (token: string) =>
    ask(port, { call: "POST /join/v1/enrol", body: { token, csr: "c" }, root: world.rootPem });
  for (let i = 0; i < 12; i += 1) assert.equal((await attempt("right")).status, 200);
  const statuses: number[] = [];
  for (let i = 0; i < 12; i += 1) statuses.push((await attempt("wrong")).status);
  assert.deepEqual(statuses, [...Array(10).fill(403), 429, 429]);
  const refused = await attempt("right");
  assert.equal(refused.body.code, "rate_limited");
  assert.ok(Number(refused.headers["retry-after"]) >= 1);
});

test("bodies and heads have limits, and a slow one is not waited for", async (t) => {
  const world = await startFeedWorld(t);
  const opened = await world.startDoor({ issuance, with: { limits: { requestMs: 300 } } });
  const root = world.rootPem;
  const large = await ask(opened.port, {
    call: "POST /join/v1/enrol",
    body: { token: "x".repeat(70_000), csr: "c" },
    root,
  });
  assert.deepEqual([large.status, large.body.code], [413, "body_too_large"]);
  const rows: [claim: string, bytes: string, status: RegExp][] = [
    [
      "a chunked body that grows",
      `POST /join/v1/enrol HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n11000\r\n${"x".repeat(0x11000)}\r\n`,
      /^HTTP\/1.1 413 /,
    ],
    [
      "another type",
      "POST /join/v1/enrol HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
      /^HTTP\/1.1 415 /,
    ],
    [
      "a body that is not JSON",
      "POST /join/v1/enrol HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{,",
      /^HTTP\/1.1 400 /,
    ],
    [
      "two lengths",
      "POST /join/v1/enrol HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
      /^HTTP\/1.1 400 /,
    ],
    ["no HTTP", "hello\r\n\r\n", /^HTTP\/1.1 400 /],
    [
      "a large head",
      `GET / HTTP/1.1\r\nHost: x\r\nX: ${"x".repeat(20_000)}\r\n\r\n`,
      /^HTTP\/1.1 431 /,
    ],
    ["a proxy request", "CONNECT 127.0.0.1:7440 HTTP/1.1\r\nHost: x\r\n\r\n", /^HTTP\/1.1 405 /],
    [
      "a head that does not end",
      "GET /join/v1/discover HTTP/1.1\r\nHost: x\r\n",
      /^HTTP\/1.1 408 /,
    ],
    [
      "a body that does not come",
      "POST /join/v1/enrol HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n",
      /^HTTP\/1.1 408 /,
    ],
  ];
  for (const [claim, bytes, status] of rows) {
    const before = opened.hits.length;
    const socket = await dial(t, opened.port, world.rootPem);
    const chunks: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.write(bytes);
    await until(() => socket.closed, `${claim}: closed`);
    assert.match(Buffer.concat(chunks).toString(), status, claim);
    await until(() => opened.hits.length > before, `${claim}: recorded`);
    assert.notEqual(opened.hits[before]?.decision, "allowed", claim);
  }
});

test("what never becomes a request is a hit and is closed", async (t) => {
  const world = await startFeedWorld(t);
  const opened = await world.startDoor({ with: { limits: { handshakeMs: 300 } } });
  const last = () => opened.hits.at(-1);
  const plain = connectPlain(opened.port, "127.0.0.1");
  plain.on("error", () => {}).resume();
  plain.write("GET /join/v1/discover HTTP/1.1\r\nHost: x\r\n\r\n");
  await until(() => plain.closed && last()?.code === "not_tls", "plaintext");

  const silent = connectPlain(opened.port, "127.0.0.1");
  silent.on("error", () => {}).resume();
  await until(() => silent.closed && last()?.code === "handshake_timeout", "silence", 2_000);

  const dripping = connectPlain(opened.port, "127.0.0.1");
  dripping.on("error", () => {}).resume();
  const hello = Buffer.from("16030100f8010000f40303", "hex");
  const drip = setInterval(() => dripping.write(hello.subarray(0, 1)), 100);
  const began = Date.now();
  await until(() => dripping.closed, "one byte now and then", 3_000);
  clearInterval(drip);
  assert.ok(Date.now() - began < 1_500, "the deadline does not start anew");

  const old = connect({
    ...clientContext(world.own),
    port: opened.port,
    minVersion: "TLSv1.2",
    maxVersion: "TLSv1.2",
    checkServerIdentity: () => undefined,
  });
  await once(old, "error");
  await until(() => last()?.code === "handshake_failed", "TLS 1.2");
  assert.match(last()?.detail ?? "", /PROTOCOL|VERSION/i);
  assert.ok(opened.hits.every((hit) => hit.kind === "connection" && hit.decision === "refused"));
});

test("an address that is not let in gets no byte of TLS; too many of one source are closed", async (t) => {
  const world = await startFeedWorld(t);
  const shut = await world.startDoor({
    with: { binds: [{ host: "127.0.0.1", port: 0, admits: () => false }] },
  });
  const refused = connectPlain(shut.port, "127.0.0.1");
  const bytes: number[] = [];
  refused.on("error", () => {}).on("data", (chunk: Buffer) => bytes.push(...chunk));
  await until(() => refused.closed, "closed");
  assert.equal(bytes.length, 0);
  assert.equal(shut.hits[0]?.code, "address_not_allowed");

  const small = await world.startDoor({
    with: { limits: { connectionsPerSource: 3, handshakesPerSource: 2 } },
  });
  const idle = [0, 1, 2].map(() => connectPlain(small.port, "127.0.0.1"));
  for (const socket of idle) socket.on("error", () => {}).resume();
  await until(() => small.hits.some((hit) => hit.code === "too_many_handshakes"), "handshakes");
  for (const socket of idle) socket.destroy();
  await until(
    () => small.hits.filter((hit) => hit.code === "handshake_failed").length === 2,
    "gone",
  );
  for (let i = 0; i < 3; i += 1) await dial(t, small.port, world.rootPem);
  const fourth = connectPlain(small.port, "127.0.0.1");
  fourth.on("error", () => {}).resume();
  await until(() => small.hits.some((hit) => hit.code === "too_many_connections"), "connections");
});

test("the chain ends in the root, and a swap shows the new leaf while TLS 1.2 stays out", async (t) => {
  const world = await startFeedWorld(t);
  let credentials = world.own;
  const { door, port } = await world.startDoor({ with: { credentials: () => credentials } });
  const serialShown = async (): Promise<string | undefined> => {
    const socket = await dial(t, port, world.rootPem);
    const leaf = socket.getPeerX509Certificate();
    const root = leaf?.issuerCertificate?.issuerCertificate;
    assert.equal(root?.fingerprint256, new X509Certificate(world.rootPem).fingerprint256);
    assert.equal(socket.isSessionReused(), false);
    return leaf?.serialNumber;
  };
  const first = await serialShown();
  credentials = await world.leaf("control", "control", "main");
  assert.equal(await serialShown(), first);
  door.swap();
  assert.notEqual(await serialShown(), first);
  const old = connect({
    port,
    ca: world.rootPem,
    maxVersion: "TLSv1.2",
    checkServerIdentity: () => undefined,
  });
  await once(old, "error");
});

test("a door that cannot be bound is an error, and leaves nothing open", async (t) => {
  const world = await startFeedWorld(t);
  const { port } = await world.startDoor();
  await assert.rejects(world.startDoor({ port }), /EADDRINUSE/);
});

async function dial(t: TestContext, port: number, root: string): Promise<TLSSocket> {
  const socket = connect({
    host: "127.0.0.1",
    port,
    ca: root,
    checkServerIdentity: () => undefined,
  });
  socket.on("error", () => {});
  t.after(() => socket.destroy());
  await once(socket, "secureConnect");
  return socket;
}

type Answered = {
  status: number;
  // biome-ignore lint/suspicious/noExplicitAny: an answer is looked into member by member
  body: any;
  headers: NodeJS.Dict<string | string[]>;
  hit: unknown;
};

function ask(
  port: number,
  options: { as?: Credentials | undefined; call: string; body?: unknown; root: string },
): Promise<Answered> {
  const [verb = "", path = ""] = options.call.split(" ");
  const isUpgrade = verb === "UPGRADE";
  const text = options.body === undefined ? undefined : JSON.stringify(options.body);
  return new Promise((resolve, reject) => {
    const asking = request({
      host: "127.0.0.1",
      port,
      path,
      method: isUpgrade ? "GET" : verb,
      ...(options.as && { key: options.as.keyPem, cert: options.as.chainPem }),
      ca: options.root,
      checkServerIdentity: () => undefined,
      agent: false,
      headers: {
        ...(text !== undefined && {
          "content-type": "application/json",
          "content-length": Buffer.byteLength(text),
        }),
        ...(isUpgrade && { connection: "Upgrade", upgrade: "sallyport-feed/1" }),
      },
    });
    asking.on("error", reject);
    asking.on("upgrade", (answer, socket) => {
      socket.destroy();
      resolve({
        status: answer.statusCode ?? 0,
        body: {},
        headers: answer.headers,
        hit: answer.headers["sallyport-hit"],
      });
    });
    asking.on("response", async (answer) => {
      let said = "";
      for await (const chunk of answer.setEncoding("utf8")) said += chunk;
      resolve({
        status: answer.statusCode ?? 0,
        body: JSON.parse(said),
        headers: answer.headers,
        hit: answer.headers["sallyport-hit"],
      });
    });
    asking.end(text);
  });
}

test("a door that is not bound to the address that was judged stays closed", async (t) => {
  const world = await startFeedWorld(t);
  for (const host of ["localhost", "0.0.0.0%", ""])
    await assert.rejects(
      world.startDoor({ issuance, with: { binds: [{ host, port: 0, admits: () => true }] } }),
      host,
    );
});

test("a handshake that goes on byte by byte ends at the deadline all the same", async (t) => {
  const world = await startFeedWorld(t);
  const handshakeMs = 300;
  const { door, hits, port } = await world.startDoor({
    issuance,
    with: { limits: { handshakeMs } },
  });
  assert.ok(door);
  const socket = connectPlain(port, "127.0.0.1");
  t.after(() => socket.destroy());
  socket.on("error", () => {});
  await once(socket, "connect");
  const beganMs = performance.now();
  // The head of a TLS record of 8 KiB, and then one byte of it at a time.
  socket.write(Buffer.from("1603012000", "hex"));
  const drip = setInterval(() => socket.write("x"), 20);
  t.after(() => clearInterval(drip));
  await once(socket.resume(), "close");
  assert.ok(performance.now() - beganMs < 10 * handshakeMs);
  await until(() => hits.length > 0, "it is a hit");
  assert.equal(hits[0]?.code, "handshake_timeout");
});
