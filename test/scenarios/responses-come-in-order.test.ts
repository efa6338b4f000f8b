import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { fieldValue, statusOf } from "../harness/http-text.ts";
import { startPlane } from "../harness/plane-world.ts";
import { ok, scriptedUpstream } from "../harness/scripted-upstream.ts";
import { dial } from "../harness/tls-client.ts";
import { until } from "../harness/until.ts";

async function start(t: TestContext, answer: Parameters<typeof scriptedUpstream>[0]) {
  const upstream = await scriptedUpstream(answer);
  t.after(() => upstream.close());
  const world = await startPlane({
    register: `
version: 1
trustDomain: test.internal
services:
  web: { owner: shop }
  orders:
    owner: shop
    upstreams: ["${upstream.address}"]
    allow: [{ id: web-orders, from: web, paths: ["/orders/**"] }]
`,
  });
  t.after(() => world.close());
  const client = await dial({ port: world.port, credentials: await world.issue("web") });
  t.after(() => client.close());
  return { upstream, world, client };
}

test("twenty pipelined requests are answered in their order, whichever answer is ready first", async (t) => {
  const { client, upstream } = await start(t, async ({ message }) => {
    const which = Number(/\d+/.exec(message.start)?.[0]);
    // The later it was asked, the sooner it could be answered.
    for (let turn = which; turn < 20; turn++) await new Promise(setImmediate);
    return ok(`answer ${which}`);
  });
  let text = "";
  for (let which = 0; which < 20; which++)
    text += `GET /orders/${which} HTTP/1.1\r\nHost: orders\r\n\r\n`;
  client.send(text);
  for (let which = 0; which < 20; which++) {
    const response = await client.response();
    assert.equal(response.body.toString(), `answer ${which}`);
  }
  assert.equal(upstream.connections, 1, "one connection served them all");
});

test("a refusal in the middle keeps its place, and the rest is served", async (t) => {
  const { client, upstream } = await start(t, ({ message }) => ok(message.start));
  client.send(
    ["/orders/a", "/secret", "/orders/b", "/orders/../secret", "/orders/c"]
      .map((path) => `GET ${path} HTTP/1.1\r\nHost: orders\r\n\r\n`)
      .join(""),
  );
  const statuses: number[] = [];
  for (let which = 0; which < 5; which++) statuses.push(statusOf(await client.response()));
  assert.deepEqual(statuses, [200, 403, 200, 403, 200]);
  assert.deepEqual(
    upstream.requests.map(({ message }) => message.start),
    ["GET /orders/a HTTP/1.1", "GET /orders/b HTTP/1.1", "GET /orders/c HTTP/1.1"],
  );
});

test("requests one after another share the connection on both sides", async (t) => {
  const { client, upstream } = await start(t, () => ok());
  for (let which = 0; which < 10; which++) {
    client.send(`GET /orders/${which} HTTP/1.1\r\nHost: orders\r\n\r\n`);
    assert.equal(statusOf(await client.response()), 200);
  }
  assert.equal(upstream.connections, 1);
});

test("a caller that asks and never reads does not make the gate hoard answers", async (t) => {
  const body = "x".repeat(100_000);
  const { client, upstream } = await start(t, () => ok(body));
  client.socket.pause();
  // 30 MB would be answered; what the sockets of both ends hold is a small part of it.
  client.send("GET /orders/1 HTTP/1.1\r\nHost: orders\r\n\r\n".repeat(300));
  let last = -1;
  let same = 0;
  await until("the gate stops asking the service", () => {
    const now = upstream.requests.length;
    same = now > 0 && now === last ? same + 1 : 0;
    last = now;
    return same > 100;
  });
  assert.ok(last < 200, `${last} answers were fetched for a caller that took none`);
  client.socket.resume();
  for (let which = 0; which < 300; which++)
    assert.equal((await client.response()).body.length, body.length);
});

test("a half-closing caller gets the answers to all it asked, allowed or refused", async (t) => {
  for (const [path, status] of [
    ["/orders/1", 200],
    ["/secret", 403],
  ] as const) {
    const { client } = await start(t, () => ok());
    client.send(
      `GET /orders/0 HTTP/1.1\r\nHost: orders\r\n\r\nGET ${path} HTTP/1.1\r\nHost: orders\r\n\r\n`,
    );
    client.end();
    assert.equal(statusOf(await client.response()), 200);
    const second = await client.response();
    assert.equal(statusOf(second), status);
    await client.ended;
    assert.ok(client.isCleanEnd);
  }
});

test("a half-close right behind a single refused request still brings the refusal", async (t) => {
  const { client } = await start(t, () => ok());
  client.socket.end("GET /secret HTTP/1.1\r\nHost: orders\r\n\r\n");
  const response = await client.response();
  assert.equal(fieldValue(response, "sallyport-refusal"), "not_authorized");
});
