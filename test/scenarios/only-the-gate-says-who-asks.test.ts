import assert from "node:assert/strict";
import { test } from "node:test";
import { fieldValue, type Message, statusOf } from "../harness/http-text.ts";
import { startOneService } from "../harness/one-service.ts";
import { ok } from "../harness/scripted-upstream.ts";

const get = (fields: string): string => `GET /a HTTP/1.1\r\nHost: orders\r\n${fields}\r\n`;
const caller = "spiffe://test.internal/service/web";

/** Fields that would say who asks, from where, or for what; none of them may cross. */
const forged: readonly string[] = [
  "Sallyport-Caller",
  "sallyport-caller",
  "SALLYPORT-CALLER",
  "Sallyport-Hit",
  "Sallyport-Anything",
  "X-Sallyport-Caller",
  "X-Forwarded-For",
  "X-Forwarded-Host",
  "X-Forwarded-Proto",
  "X-Forwarded-Client-Cert",
  "x-forwarded",
  "Forwarded",
  "X-Real-IP",
  "X-Client-IP",
  "X-Cluster-Client-IP",
  "True-Client-IP",
  "Client-IP",
  "X-Original-URL",
  "X-Rewrite-URL",
  "X-Host",
  "X-HTTP-Method",
  "X-HTTP-Method-Override",
  "X-Method-Override",
  "X-Envoy-Original-Path",
  "X-Client-Cert",
  "X-SSL-Client-CN",
  "SSL-Client-Cert",
  "X-Spiffe-Id",
  "Client-Cert",
  "Client-Cert-Chain",
  "X-Client-Verify",
  "X-Client-DN",
  "X-SSL-Cert",
  "l5d-client-id",
  "CF-Connecting-IP",
  "Proxy",
];

/** By which an authenticating proxy says who the user is. */
const user = [
  "Remote-User",
  "Remote-Groups",
  "X-Remote-User",
  "X-Auth-Request-User",
  "X-Authenticated-User",
  "X-Auth-User",
  "X-WEBAUTH-USER",
  "X-Forwarded-User",
  "X-Forwarded-Email",
  "X-Goog-Authenticated-User-Email",
  "X-Ms-Client-Principal",
  "X-Userinfo",
];

/** Fields of the way from one hop to the next. */
const hopByHop: readonly (readonly [name: string, value: string])[] = [
  ["Keep-Alive", "timeout=99"],
  ["Proxy-Connection", "keep-alive"],
  ["Proxy-Authorization", "Basic x"],
  ["Upgrade", "h2c"],
  ["HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA"],
  ["TE", "gzip"],
  ["Trailer", "X-Sum"],
];

function names(message: Message | undefined): string[] {
  return (message?.fields ?? []).map(([name]) => name);
}

test("every field that could pose as the gate's word is dropped, and the gate's own is set once", async (t) => {
  const { dial, upstream } = await startOneService(t);
  const client = await dial();
  client.send(get("X-Harmless: stays\r\n"));
  await client.response();
  const usual = names(upstream.requests.at(-1)?.message);
  assert.deepEqual(usual, ["host", "x-harmless", "sallyport-caller", "via"]);
  for (const name of [...forged, ...user]) {
    // Once, twice, and among others.
    for (const fields of [`${name}: forged\r\n`, `${name}: forged\r\n${name}: ${caller}x\r\n`]) {
      client.send(get(`X-Harmless: stays\r\n${fields}`));
      assert.equal(statusOf(await client.response()), 200, name);
      const { message } = upstream.requests.at(-1) as (typeof upstream.requests)[number];
      assert.deepEqual(names(message), usual, name);
      assert.equal(fieldValue(message, "sallyport-caller"), caller);
      assert.ok(!message.raw.includes("forged"), name);
    }
  }
});

test("who the user is goes on only to a service that accepts it, never as the caller's name", async (t) => {
  const { dial, upstream } = await startOneService(t, { orders: "    accept: user-headers" });
  const client = await dial();
  client.send(get(user.map((name) => `${name}: ann\r\n`).join("")));
  await client.response();
  const crossed = names(upstream.requests.at(-1)?.message);
  for (const name of user) assert.ok(crossed.includes(name.toLowerCase()), name);
  client.send(get("Connection: X-Auth-User\r\nX-Auth-User: ann\r\nX-Forwarded-For: 1.1.1.1\r\n"));
  await client.response();
  const usual = ["host", "sallyport-caller", "via"];
  assert.deepEqual(names(upstream.requests.at(-1)?.message), usual);
});

test("of what is offered in TE only trailers cross", async (t) => {
  const { dial, upstream } = await startOneService(t);
  const client = await dial();
  for (const [te, crosses] of [
    ["trailers", "trailers"],
    ["trailers, gzip", "trailers"],
    ["gzip;q=0.5 , Trailers", "trailers"],
    ["x-trailers, gzip", undefined],
  ] as const) {
    client.send(get(`TE: ${te}\r\nConnection: TE\r\n`));
    await client.response();
    const { message } = upstream.requests.at(-1) ?? assert.fail("nothing came");
    assert.equal(fieldValue(message, "te"), crosses, te);
  }
});

test("underscores are refused; where a service accepts them, those that read like a known name still are", async (t) => {
  const strict = await startOneService(t);
  const client = await strict.dial();
  client.send(get("X_A: 1\r\n"));
  assert.equal(fieldValue(await client.response(), "sallyport-refusal"), "bad_header");

  const lenient = await startOneService(t, { orders: "    accept: underscore-headers" });
  for (const name of [
    "Sallyport_Caller",
    "sallyport_caller",
    "Content_Length",
    "Transfer_Encoding",
    "X_Forwarded_For",
    "Host_",
  ]) {
    const one = await lenient.dial();
    one.send(get(`${name}: 1\r\n`));
    const response = await one.response();
    const { message } = lenient.upstream.requests.at(-1) ?? {};
    const crossed = message?.raw.toString("latin1").includes(name) === true;
    assert.ok(name === "Host_" ? crossed : !crossed, `${name}: ${response.start}`);
    one.close();
  }
  const two = await lenient.dial();
  for (const name of [
    "X_Real_IP",
    "X_HTTP_METHOD_OVERRIDE",
    "X_SPIFFE_ID",
    "X_SALLYPORT_CALLER",
    "SSL_CLIENT_CERT",
    "x_sallyport-caller",
  ]) {
    two.send(get(`${name}: forged\r\n`));
    assert.equal(statusOf(await two.response()), 200);
    assert.ok(!lenient.upstream.requests.at(-1)?.message.raw.includes("forged"), name);
  }
  two.send(get("X_Mine: 1\r\n"));
  await two.response();
  assert.ok(names(lenient.upstream.requests.at(-1)?.message).includes("x_mine"));
});

test("one service's exception is not another's", async (t) => {
  const { dial } = await startOneService(t, {
    orders: "    accept: underscore-headers",
    services: `  billing:
    owner: shop
    upstreams: ["127.0.0.1:9"]
    allow: [{ id: web-billing, from: web }]`,
  });
  const client = await dial();
  client.send("GET /a HTTP/1.1\r\nHost: billing\r\nX_A: 1\r\n\r\n");
  assert.equal(fieldValue(await client.response(), "sallyport-refusal"), "bad_header");
});

test("what belongs to one hop ends here, also what Connection names", async (t) => {
  const { dial, upstream } = await startOneService(t);
  const client = await dial();
  for (const [name, value] of hopByHop) {
    client.send(get(`${name}: ${value}\r\n`));
    assert.equal(statusOf(await client.response()), 200, name);
    assert.ok(!names(upstream.requests.at(-1)?.message).includes(name.toLowerCase()), name);
  }
  client.send(get("Connection: X-Mine, x-other\r\nX-Mine: 1\r\nX-OTHER: 2\r\nX-Third: 3\r\n"));
  await client.response();
  assert.deepEqual(names(upstream.requests.at(-1)?.message), [
    "host",
    "x-third",
    "sallyport-caller",
    "via",
  ]);
});

for (const name of [
  "Sallyport-Caller",
  "Host",
  "Content-Length",
  "Authorization",
  "X-Forwarded-For",
  "Via",
])
  test(`Connection may not name ${name}`, async (t) => {
    const { dial, upstream } = await startOneService(t);
    const client = await dial();
    client.send(get(`Connection: close, ${name}\r\n`));
    assert.equal(fieldValue(await client.response(), "sallyport-refusal"), "bad_header");
    assert.equal(upstream.bytes, 0);
  });

test("an upgrade is refused, whatever it is for", async (t) => {
  const { dial, upstream } = await startOneService(t);
  const client = await dial();
  client.send(get("Connection: Upgrade\r\nUpgrade: websocket\r\n"));
  assert.equal(fieldValue(await client.response(), "sallyport-refusal"), "upgrade_not_supported");
  assert.equal(upstream.bytes, 0);
});

test("a request that has been through this gate is not sent round again", async (t) => {
  const { dial, upstream } = await startOneService(t);
  const client = await dial();
  client.send(get("Via: 1.1 elsewhere\r\n"));
  await client.response();
  const via = fieldValue(upstream.requests.at(-1)?.message as Message, "via") ?? "";
  assert.equal(via, "1.1 elsewhere, 1.1 test.gate.test.internal");
  client.send(get(`Via: ${via}\r\n`));
  const response = await client.response();
  assert.equal(statusOf(response), 508);
  assert.equal(upstream.requests.length, 1);
});

test("a service cannot speak for the gate either", async (t) => {
  const { dial, world } = await startOneService(t, {
    answer: () =>
      ok(
        "ok",
        "Sallyport-Hit: forged\r\nsallyport-refusal: denied\r\nKeep-Alive: timeout=4\r\nConnection: x-mine\r\nX-Mine: 1\r\nProxy-Authenticate: Basic\r\nX-Stays: 1\r\n",
      ),
  });
  const client = await dial();
  client.send(get(""));
  const response = await client.response();
  assert.deepEqual(names(response), ["x-stays", "content-length", "sallyport-hit"]);
  assert.equal(fieldValue(response, "sallyport-hit"), world.hits[0]?.id);
});

test("a doubled credential is refused, not chosen from", async (t) => {
  const { dial, upstream } = await startOneService(t);
  const client = await dial();
  client.send(get("Authorization: a\r\nauthorization: b\r\n"));
  assert.equal(fieldValue(await client.response(), "sallyport-refusal"), "bad_header");
  assert.equal(upstream.bytes, 0);
});
