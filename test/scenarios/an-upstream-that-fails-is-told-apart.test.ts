import assert from "node:assert/strict";
import { createServer } from "node:net";
import { type TestContext, test } from "node:test";
import { fieldValue, statusOf } from "../harness/http-text.ts";
import { startOneService } from "../harness/one-service.ts";
import { ok } from "../harness/scripted-upstream.ts";
import { until } from "../harness/until.ts";

const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: orders\r\n\r\n`;

/** A port of loopback that nobody listens on. */
async function deadPort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((done) => server.once("listening", done));
  const { port } = server.address() as { port: number };
  await new Promise((done) => server.close(done));
  return port;
}

test("a connection that the service closed while it rested is not used, and nothing is sent twice", async (t) => {
  const { dial, upstream } = await startOneService(t);
  const client = await dial();
  for (let turn = 1; turn <= 5; turn++) {
    client.send(get(`/${turn}`));
    assert.equal(statusOf(await client.response()), 200);
    for (const socket of upstream.open) socket.end();
    await until("the gate lets go of it", () => upstream.open.size === 0);
  }
  assert.deepEqual(
    upstream.requests.map(({ message, connection }) => `${message.start} on ${connection}`),
    [1, 2, 3, 4, 5].map((turn) => `GET /${turn} HTTP/1.1 on ${turn}`),
  );
});

test("a request whose connection dies unanswered is not sent again", async (t) => {
  const { dial, upstream, world } = await startOneService(t, {
    answer({ socket }) {
      socket.destroy();
      return undefined;
    },
  });
  const client = await dial();
  client.send(get("/once"));
  const response = await client.response();
  assert.equal(statusOf(response), 502);
  assert.equal(fieldValue(response, "sallyport-refusal"), "upstream_broken");
  assert.equal(upstream.requests.length, 1);
  assert.equal(world.hits.at(-1)?.rule, "web-orders");
});

for (const [claim, cut] of [
  ["a length that was promised", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"],
  ["chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"],
] as const)
  test(`a service that dies in the middle of ${claim} is seen to be cut short`, async (t) => {
    const { dial, world, upstream } = await startOneService(t, { answer: () => cut });
    const client = await dial();
    client.send(get("/a"));
    await until("the half", () => client.rest.includes("half"));
    for (const socket of upstream.open) socket.destroy();
    await client.ended;
    assert.ok(!client.rest.includes("\r\n0\r\n\r\n"), "no end of the chunks is made up");
    const closed = await until("the line of its end", () => world.hits[1]);
    const [opened] = world.hits;
    assert.equal(opened?.decision, "allowed");
    assert.deepEqual(
      [closed?.kind, closed?.of, closed?.code, closed?.bytesOut],
      ["close", opened?.id, "upstream_broken", 4],
    );
  });

const broken: readonly (readonly [claim: string, bytes: string])[] = [
  ["not HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n"],
  ["a doubled length", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"],
  [
    "a length and chunks",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
  ],
  ["a length with a sign", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok"],
  ["a folded field", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n"],
  ["a bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"],
  ["a NUL in a field", "HTTP/1.1 200 OK\r\nA: \0\r\nContent-Length: 0\r\n\r\n"],
  ["an unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"],
  ["101", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"],
  ["HTTP/2.0", "HTTP/2.0 200 OK\r\n\r\n"],
  ["a body with 204", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok"],
  ["a hundred interim answers", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100)],
  ["a head without end", `HTTP/1.1 200 OK\r\nA: ${"a".repeat(100_000)}`],
];
test("an answer that can be read two ways is nobody's answer", async (t) => {
  let now = "";
  const { dial, world } = await startOneService(t, { answer: () => now });
  for (const [claim, bytes] of broken) {
    now = bytes;
    const client = await dial();
    client.send(get("/a"));
    let response = await client.response();
    while (statusOf(response) === 103) response = await client.response();
    assert.equal(statusOf(response), 502, claim);
    assert.equal(fieldValue(response, "sallyport-refusal"), "upstream_broken", claim);
    assert.equal(world.hits.at(-1)?.code, "upstream_broken", claim);
    client.close();
  }
});

test("bytes behind an answer are never the next caller's answer", async (t) => {
  const { dial, upstream } = await startOneService(t, {
    answer: ({ message }) =>
      message.start.includes("/split") ? ok("first") + ok("poison") : ok("mine"),
  });
  const client = await dial();
  for (let turn = 0; turn < 3; turn++) {
    client.send(get("/split"));
    assert.equal((await client.response()).body.toString(), "first");
    client.send(get("/clean"));
    assert.equal((await client.response()).body.toString(), "mine");
  }
  assert.ok(upstream.connections >= 3, "each poisoned connection was dropped");
});

test("an answer to no question ends the connection it came on", async (t) => {
  const { dial, upstream } = await startOneService(t);
  const client = await dial();
  client.send(get("/a"));
  await client.response();
  for (const socket of upstream.open) socket.write(ok("unasked"));
  await until("it is gone", () => upstream.open.size === 0);
  client.send(get("/b"));
  assert.equal((await client.response()).body.toString(), "ok");
  assert.equal(client.rest.length, 0);
});

async function timed(t: TestContext, answer: string | undefined) {
  const one = await startOneService(t, {
    answer: () => answer,
    orders: "    timeouts: { responseHead: 2s, idle: 2s }",
    plane: { monotonic: () => performance.now() * 4 },
  });
  return { ...one, client: await one.dial() };
}

test("a service that never answers is given up with 504", async (t) => {
  const { client, world, upstream } = await timed(t, undefined);
  client.send(get("/a"));
  const response = await client.response();
  assert.equal(statusOf(response), 504);
  assert.equal(fieldValue(response, "sallyport-refusal"), "upstream_timeout");
  assert.equal(world.hits.at(-1)?.code, "upstream_timeout");
  await until("its connection is not used again", () => upstream.open.size === 0);
  client.send(get("/b"));
  assert.equal(statusOf(await client.response()), 504, "the caller's connection goes on");
});

test("a service that stops in the middle is given up; what it said ends cut short", async (t) => {
  const { client, world } = await timed(t, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
  client.send(get("/a"));
  await client.ended;
  assert.ok(client.rest.includes("half"));
  const closed = await until("the line of its end", () => world.hits[1]);
  assert.deepEqual([closed.kind, closed.code], ["close", "upstream_timeout"]);
});

test("a caller that stops in the middle of its question is told 408", async (t) => {
  const { client } = await timed(t, undefined);
  client.send("POST /a HTTP/1.1\r\nHost: orders\r\nContent-Length: 9\r\n\r\nhalf");
  const response = await client.response();
  assert.equal(fieldValue(response, "sallyport-refusal"), "idle_timeout");
  await client.ended;
});

test("a service that is down is a 503, each time, and served when it is back", async (t) => {
  const port = await deadPort();
  const { dial, world } = await startOneService(t, { upstreams: [`127.0.0.1:${port}`] });
  const client = await dial();
  for (let turn = 0; turn < 3; turn++) {
    client.send(get("/a"));
    const response = await client.response();
    assert.equal(statusOf(response), 503);
    assert.equal(fieldValue(response, "sallyport-refusal"), "upstream_down");
  }
  const hit = world.hits.at(-1);
  assert.deepEqual(
    [hit?.decision, hit?.code, hit?.service],
    ["refused", "upstream_down", "orders"],
  );
});

test("of two upstreams a dead one is passed over: every request is answered, each once", async (t) => {
  const dead = await deadPort();
  const seen: string[] = [];
  const alive = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.on("data", (chunk) => {
      seen.push(String(chunk).split("\r\n")[0] ?? "");
      socket.write(ok());
    });
    t.after(() => socket.destroy());
  }).listen(0, "127.0.0.1");
  await new Promise((done) => alive.once("listening", done));
  t.after(() => alive.close());
  const { port } = alive.address() as { port: number };
  const { dial } = await startOneService(t, {
    upstreams: [`127.0.0.1:${dead}`, `127.0.0.1:${port}`],
  });
  const clients = await Promise.all(Array.from({ length: 10 }, () => dial()));
  for (const [which, client] of clients.entries()) client.send(get(`/${which}`));
  for (const client of clients) assert.equal(statusOf(await client.response()), 200);
  assert.deepEqual(
    seen.toSorted(),
    Array.from({ length: 10 }, (_, which) => `GET /${which} HTTP/1.1`),
  );
});

test("a service behind the gate's own door is refused, not looped", async (t) => {
  const { dial, world, register } = await startOneService(t);
  world.publish(register.replace(/upstreams: .*/, `upstreams: ["127.0.0.1:${world.port}"]`));
  const client = await dial();
  client.send(get("/a"));
  const response = await client.response();
  assert.equal(fieldValue(response, "sallyport-refusal"), "upstream_forbidden");
});

test("an upstream that may not be dialled any more is not used over its old connections either", async (t) => {
  let forbidden = false;
  const { dial, upstream } = await startOneService(t, { plane: { isOwnDoor: () => forbidden } });
  const client = await dial();
  const ask = async (): Promise<string | undefined> => {
    client.send(get("/a"));
    return fieldValue(await client.response(), "sallyport-refusal");
  };
  assert.equal(await ask(), undefined);
  assert.equal(upstream.open.size, 1);
  forbidden = true;
  // Asked without a pause, so that its connection never rests for long.
  const end = performance.now() + 5_000;
  let said: string | undefined;
  while (said === undefined && performance.now() < end) said = await ask();
  assert.equal(said, "upstream_forbidden");
  assert.equal(upstream.open.size, 0);
});
