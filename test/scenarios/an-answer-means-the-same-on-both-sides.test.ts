import assert from "node:assert/strict";
import { test } from "node:test";
import { fieldValue, statusOf } from "../harness/http-text.ts";
import { startOneService } from "../harness/one-service.ts";
import { ok } from "../harness/scripted-upstream.ts";
import { until } from "../harness/until.ts";

const get = (path: string, fields = ""): string =>
  `GET ${path} HTTP/1.1\r\nHost: orders\r\n${fields}\r\n`;

test("chunks go both ways, with their trailers, less those that say who asks", async (t) => {
  const { upstream, dial } = await startOneService(t, {
    answer: () =>
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n4;a=b\r\ndefg\r\n0\r\nX-Sum: 7\r\n\r\n",
  });
  const client = await dial();
  client.send(
    'POST /a HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x="y"\r\nc\r\n0\r\nX-Sum: 3\r\nX-Spiffe-Id: spiffe://forged\r\nTrue-Client-Ip: 1.1.1.1\r\n\r\n',
  );
  const response = await client.response();
  assert.equal(response.body.toString(), "abcdefg");
  assert.deepEqual(response.trailers, [["x-sum", "7"]]);
  const asked = upstream.requests[0]?.message;
  assert.equal(asked?.body.toString(), "abc");
  assert.deepEqual(asked?.trailers, [["x-sum", "3"]]);
  client.send(get("/next"));
  assert.equal(statusOf(await client.response()), 200, "and the connection goes on");
});

test("a trailer that names itself an identity of ours is refused", async (t) => {
  const { upstream, dial } = await startOneService(t);
  const client = await dial();
  client.send(
    "POST /a HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nSallyport-Caller: spiffe://forged\r\n\r\n",
  );
  const response = await client.response();
  assert.equal(fieldValue(response, "sallyport-refusal"), "bad_header");
  await client.ended;
  assert.equal(upstream.requests.length, 0, "no whole request reached the service");
});

test("Expect: 100-continue is asked of the service, and its 100 comes before the body goes", async (t) => {
  let bodyBefore = -1;
  const { dial, upstream } = await startOneService(t, {
    onHead(_head, socket) {
      socket.write("HTTP/1.1 100 Continue\r\n\r\n");
      return false;
    },
    answer: ({ message }) => ok(message.body.toString()),
  });
  const client = await dial();
  client.send(
    "POST /a HTTP/1.1\r\nHost: orders\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
  );
  assert.equal(statusOf(await client.response()), 100);
  bodyBefore = upstream.requests.length;
  client.send("body");
  assert.equal((await client.response()).body.toString(), "body");
  assert.equal(bodyBefore, 0);
});

test("another expectation is refused", async (t) => {
  const { dial } = await startOneService(t);
  const client = await dial();
  client.send(get("/a", "Expect: a-miracle\r\n"));
  assert.equal(statusOf(await client.response()), 417);
});

test("103 and other interim answers pass before the answer, under one hit", async (t) => {
  const { dial, world } = await startOneService(t, {
    async answer({ socket }) {
      socket.write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nSallyport-Hit: forged\r\n\r\n");
      await until("the hint is recorded", () => world.hits.length > 0);
      return ok();
    },
  });
  const client = await dial();
  client.send(get("/a"));
  const early = await client.response();
  assert.equal(statusOf(early), 103);
  assert.equal(fieldValue(early, "link"), "</a.css>");
  assert.equal(fieldValue(early, "sallyport-hit"), undefined);
  const response = await client.response();
  assert.equal(statusOf(response), 200);
  const [first, second] = world.hits;
  assert.equal(first?.id, fieldValue(response, "sallyport-hit"));
  assert.deepEqual([second?.kind, second?.of, second?.status], ["close", first?.id, 200]);
});

test("HEAD, 204 and 304 have no body, whatever length they speak of", async (t) => {
  const answers = [
    "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    'HTTP/1.1 304 Not Modified\r\nContent-Length: 55\r\nETag: "a"\r\n\r\n',
    ok("after"),
  ];
  const { dial, upstream } = await startOneService(t, { answer: () => answers.shift() });
  const client = await dial();
  client.send(get("/a").replace("GET", "HEAD") + get("/b") + get("/c") + get("/d"));
  const head = await client.response({ bodiless: true });
  assert.equal(fieldValue(head, "content-length"), "1000");
  assert.equal(fieldValue(await client.response(), "content-length"), undefined);
  assert.equal(fieldValue(await client.response(), "content-length"), "55");
  assert.equal((await client.response()).body.toString(), "after");
  assert.equal(upstream.connections, 1);
});

test("a refused HEAD has no body either", async (t) => {
  const { dial } = await startOneService(t, { allow: "[]" });
  const client = await dial();
  client.send(get("/a").replace("GET", "HEAD") + get("/b"));
  assert.equal(statusOf(await client.response({ bodiless: true })), 403);
  assert.match((await client.response()).body.toString(), /not_authorized/);
});

test("an answer before the end of the question arrives, whoever reads it; both connections end", async (t) => {
  const { dial, upstream, world } = await startOneService(t, {
    onHead(head, socket) {
      if (!head.startsWith("POST")) return false;
      socket.write("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig");
      return true;
    },
  });
  const client = await dial();
  client.send("POST /a HTTP/1.1\r\nHost: orders\r\nContent-Length: 100000000\r\n\r\n");
  // It goes on sending, as most do, and looks for an answer only afterwards: a reset would have taken that away.
  client.socket.pause();
  client.send(Buffer.alloc(300_000));
  await until("the answer is on its way", () => world.hits.length > 0);
  for (let turn = 0; turn < 20; turn++) {
    client.send(Buffer.alloc(10_000));
    await new Promise(setImmediate);
  }
  client.socket.resume();
  const response = await client.response();
  assert.equal(statusOf(response), 413);
  assert.equal(response.body.toString(), "big");
  assert.equal(fieldValue(response, "connection"), "close");
  await client.ended;
  assert.ok(client.isCleanEnd, "closed in order, not reset");
  await until("the service's connection does not rest", () => upstream.open.size === 0, 2_000);
  const next = await dial();
  next.send(get("/b"));
  assert.equal(statusOf(await next.response()), 200);
  assert.equal(upstream.connections, 2);
});

test("HTTP/1.0 is answered, and closed unless it asks to stay", async (t) => {
  const { dial } = await startOneService(t);
  const client = await dial();
  client.send("GET /a HTTP/1.0\r\nHost: orders\r\nConnection: keep-alive\r\n\r\n");
  const stays = await client.response();
  assert.equal(fieldValue(stays, "connection"), "keep-alive");
  client.send("GET /a HTTP/1.0\r\nHost: orders\r\n\r\n");
  const ends = await client.response();
  assert.equal(fieldValue(ends, "connection"), "close");
  await client.ended;
  assert.ok(client.isCleanEnd);
});

test("HTTP/1.0 without Host is refused", async (t) => {
  const { dial, upstream } = await startOneService(t);
  const client = await dial();
  client.send("GET /a HTTP/1.0\r\n\r\n");
  assert.equal(fieldValue(await client.response(), "sallyport-refusal"), "bad_host");
  assert.equal(upstream.bytes, 0);
});

test("a chunked answer to HTTP/1.0 ends with the connection, without interim answers", async (t) => {
  const { dial } = await startOneService(t, {
    answer: () =>
      "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
  });
  const client = await dial();
  client.send("GET /a HTTP/1.0\r\nHost: orders\r\nConnection: keep-alive\r\n\r\n");
  await client.ended;
  const response = await client.response();
  assert.equal(statusOf(response), 200);
  assert.equal(fieldValue(response, "transfer-encoding"), undefined);
  assert.equal(fieldValue(response, "connection"), "close");
  assert.equal(response.body.toString(), "abc");
});

test("an answer that runs until the service closes is chunked for HTTP/1.1, and whole", async (t) => {
  const { dial } = await startOneService(t, {
    answer({ socket }) {
      socket.end("HTTP/1.0 200 OK\r\n\r\nuntil the end");
      return undefined;
    },
  });
  const client = await dial();
  for (let turn = 0; turn < 2; turn++) {
    client.send(get("/a"));
    const response = await client.response();
    assert.equal(fieldValue(response, "transfer-encoding"), "chunked");
    assert.equal(response.body.toString(), "until the end");
  }
});

test("Connection: close of the caller is honoured and does not cross", async (t) => {
  const { dial, upstream } = await startOneService(t);
  const client = await dial();
  client.send(get("/a", "Connection: close\r\n"));
  assert.equal(fieldValue(await client.response(), "connection"), "close");
  await client.ended;
  assert.equal(fieldValue(upstream.requests[0]?.message as never, "connection"), undefined);
});
