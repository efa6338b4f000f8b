import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { below, pick, seeded } from "../fuzz/random.ts";
import { fieldValue } from "../harness/http-text.ts";
import { startPlane } from "../harness/plane-world.ts";
import { dial, type RawClient } from "../harness/tls-client.ts";

const callers = 24;
const talksEach = 3;
/** Around the sizes at which the gate reads, joins and queues. */
const sizes = [0, 1, 1_023, 1_025, 4_095, 4_096, 4_097, 16_383, 16_385, 40_000, 66_000];

/** Eight bytes at a time: whose they are, and where they belong. */
function bodyOf(owner: number, size: number): Buffer {
  const body = Buffer.allocUnsafe(size + 8);
  for (let at = 0; at < size; at += 8) {
    body.writeUInt32BE(owner, at);
    body.writeUInt32BE(at, at + 4);
  }
  return body.subarray(0, size);
}

/** The owner of the answer to `owner`. */
const answerTo = (owner: number): number => owner + 0x80_00_00_00;

function inChunks(body: Buffer, random: () => number): Buffer {
  const most = pick(random, [300, 1_500, 20_000]);
  const parts: Buffer[] = [];
  for (let at = 0; at < body.length; ) {
    const chunk = body.subarray(at, at + 1 + below(random, most));
    parts.push(Buffer.from(`${chunk.length.toString(16)}\r\n`), chunk, Buffer.from("\r\n"));
    at += chunk.length;
  }
  return Buffer.concat([...parts, Buffer.from("0\r\n\r\n")]);
}

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise(setImmediate);
}

/** A service that looks at every byte it is sent, now and then slowly, and answers each request with bytes of its own. */
async function startService(t: TestContext, complain: (what: string) => void) {
  const random = seeded(2);
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const [, owner, asked, answered] = (request.url ?? "").split("/").map(Number) as number[];
    const parts: Buffer[] = [];
    for await (const part of request) {
      parts.push(part);
      if (random() < 0.2) await turns(below(random, 20));
    }
    if (!Buffer.concat(parts).equals(bodyOf(owner as number, asked as number)))
      complain(`the body of request ${request.url}`);
    const body = bodyOf(answerTo(owner as number), answered as number);
    response.setHeader("X-Owner", owner as number);
    if (random() < 0.5) response.setHeader("Content-Length", body.length);
    for (let at = 0; at < body.length; ) {
      const size = 1 + below(random, pick(random, [2_000, 70_000]));
      response.write(body.subarray(at, at + size));
      at += size;
      if (random() < 0.3) await turns(below(random, 8));
    }
    response.end();
  };
  const server = createServer((request, response) => {
    answer(request, response).catch(() => undefined); // a caller that left
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

async function send(client: RawClient, bytes: Buffer, random: () => number): Promise<void> {
  const most = pick(random, [700, 5_000, 100_000]);
  for (let at = 0; at < bytes.length; ) {
    const size = 1 + below(random, most);
    client.send(bytes.subarray(at, at + size));
    at += size;
    if (random() < 0.3) await turns(1);
  }
}

test("every byte of every body is its own request's, whoever else is read, waits or leaves", async (t) => {
  const complaints: string[] = [];
  const port = await startService(t, (what) => complaints.push(what));
  const world = await startPlane({
    register: `
version: 1
trustDomain: test.internal
services:
  web: { owner: shop }
  orders:
    owner: shop
    upstreams: ["127.0.0.1:${port}"]
    allow: [{ id: web-orders, from: web }]
`,
  });
  t.after(() => world.close());
  const credentials = await world.issue("web");
  let owner = 0;
  let answered = 0;

  const talk = async (random: () => number): Promise<void> => {
    const client = await dial({ port: world.port, credentials });
    t.after(() => client.close());
    const plans = Array.from({ length: 1 + below(random, 5) }, () => {
      const mine = ++owner;
      const [asks, gets] = [pick(random, sizes), pick(random, sizes)];
      const isChunked = random() < 0.5;
      const body = bodyOf(mine, asks);
      const framing = isChunked ? "Transfer-Encoding: chunked" : `Content-Length: ${asks}`;
      const head = `POST /${mine}/${asks}/${gets} HTTP/1.1\r\nHost: orders\r\n${framing}\r\n\r\n`;
      const bytes = Buffer.concat([Buffer.from(head), isChunked ? inChunks(body, random) : body]);
      return { mine, gets, bytes };
    });
    const whole = Buffer.concat(plans.map(({ bytes }) => bytes));
    if (random() < 0.15) {
      await send(client, whole.subarray(0, below(random, whole.length)), random);
      return client.close();
    }
    const isPipelined = random() < 0.5;
    if (isPipelined) await send(client, whole, random);
    for (const { mine, gets, bytes } of plans) {
      if (!isPipelined) await send(client, bytes, random);
      if (random() < 0.3) {
        client.socket.pause();
        await turns(below(random, 100));
        client.socket.resume();
      }
      const message = await client.response();
      if (fieldValue(message, "x-owner") !== String(mine))
        complaints.push(`${message.start} of another for ${mine}`);
      if (!message.body.equals(bodyOf(answerTo(mine), gets)))
        complaints.push(`the body of the answer to ${mine}`);
      answered++;
    }
    client.close();
  };

  await Promise.all(
    Array.from({ length: callers }, async (_, which) => {
      const random = seeded(1_000 + which);
      for (let i = 0; i < talksEach; i++) await talk(random);
    }),
  );
  assert.deepEqual(complaints, []);
  assert.deepEqual(world.errors, []);
  assert.ok(answered > 100, `only ${answered} were answered`);
});
