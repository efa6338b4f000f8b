import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { test } from "node:test";
import { startOneService } from "../harness/one-service.ts";
import { ok } from "../harness/scripted-upstream.ts";
import { until } from "../harness/until.ts";

const mebibyte = 1_048_576;
const size = 50 * mebibyte;
/** What the sockets of both ends and their kernels hold of a stream that nobody takes. */
const held = 20 * mebibyte;

/** Waits until `count` stops growing, and returns where. */
async function standstill(count: () => number): Promise<number> {
  let last = -1;
  let same = 0;
  await until("a standstill", () => {
    const now = count();
    same = now > 0 && now === last ? same + 1 : 0;
    last = now;
    return same > 50;
  });
  return last;
}

for (const [framing, head, wrap] of [
  ["with a length", `Content-Length: ${size}`, (chunk: Buffer) => chunk],
  ["in chunks", "Transfer-Encoding: chunked", chunkOf],
] as const)
  test(`50 MiB ${framing} to a caller that does not read stop at the service`, async (t) => {
    let sent = 0;
    const { dial } = await startOneService(t, {
      answer({ socket }) {
        socket.write(`HTTP/1.1 200 OK\r\n${head}\r\n\r\n`);
        const chunk = Buffer.alloc(65_536, 0x61);
        const more = (): void => {
          while (sent < size) {
            sent += chunk.length;
            if (!socket.write(wrap(chunk))) return void socket.once("drain", more);
          }
          if (framing === "in chunks") socket.write("0\r\n\r\n");
        };
        more();
        return undefined;
      },
    });
    const before = process.memoryUsage().arrayBuffers;
    const client = await dial();
    client.send("GET /a HTTP/1.1\r\nHost: orders\r\n\r\n");
    await until("the first bytes", () => client.rest.length > 0);
    client.socket.pause();
    const at = await standstill(() => sent);
    assert.ok(at < size - held, `${at} of ${size} bytes were taken from the service`);
    const grown = process.memoryUsage().arrayBuffers - before;
    assert.ok(grown < held, `${grown} bytes more in this process, which holds all three parties`);
    let got = client.rest.length;
    client.socket.removeAllListeners("data");
    client.socket.on("data", (chunk: Buffer) => {
      got += chunk.length;
    });
    client.socket.resume();
    await until("all of it", () => got >= size, 20_000);
    assert.ok(!client.isEnded);
  });

for (const framing of ["with a length", "in chunks"] as const)
  test(`50 MiB ${framing} to a service that does not read stop at the caller`, async (t) => {
    let paused: Socket | undefined;
    const { dial, upstream } = await startOneService(t, {
      onHead(_head, socket) {
        paused = socket.pause();
        return true;
      },
    });
    const before = process.memoryUsage().arrayBuffers;
    const client = await dial();
    const wrap = framing === "in chunks" ? chunkOf : (chunk: Buffer) => chunk;
    const head = framing === "in chunks" ? "Transfer-Encoding: chunked" : `Content-Length: ${size}`;
    client.send(`POST /a HTTP/1.1\r\nHost: orders\r\n${head}\r\n\r\n`);
    const chunk = Buffer.alloc(65_536, 0x61);
    let sent = 0;
    const more = (): void => {
      while (sent < size) {
        sent += chunk.length;
        if (!client.socket.write(wrap(chunk))) return void client.socket.once("drain", more);
      }
      if (framing === "in chunks") client.send("0\r\n\r\n");
    };
    more();
    const at = await standstill(() => (paused ? sent : 0));
    assert.ok(at < size - held, `${at} of ${size} bytes were taken from the caller`);
    const grown = process.memoryUsage().arrayBuffers - before;
    assert.ok(grown < held, `${grown} bytes more in this process`);
    paused?.resume();
    await until("all of it", () => upstream.bytes >= size, 20_000);
    await until("all was sent", () => sent >= size);
    paused?.write(ok("thanks"));
    assert.equal((await client.response()).body.toString(), "thanks");
  });

function chunkOf(chunk: Buffer): Buffer {
  return Buffer.concat([
    Buffer.from(`${chunk.length.toString(16)}\r\n`),
    chunk,
    Buffer.from("\r\n"),
  ]);
}

test("a connection whose last bytes met a full socket serves the next one", async (t) => {
  // As much as one read of the gate takes, and more than a socket takes without saying "wait".
  const body = Buffer.alloc(4 * 65_536, 0x61);
  const { dial, upstream } = await startOneService(t, {
    answer({ message, socket }) {
      if (!message.start.includes("/big")) return ok("next");
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n`);
      return undefined;
    },
  });
  const client = await dial();
  for (let turn = 0; turn < 5; turn++) {
    client.send("GET /big HTTP/1.1\r\nHost: orders\r\n\r\n");
    await until("the head is out", () => client.rest.includes("\r\n\r\n"));
    for (const socket of upstream.open) socket.write(body);
    assert.equal((await client.response()).body.length, body.length);
    client.send("GET /next HTTP/1.1\r\nHost: orders\r\n\r\n");
    assert.equal((await client.response()).body.toString(), "next");
  }
  assert.equal(upstream.connections, 1);
});

test("a connection whose last, small chunk met a full socket serves the next one", async (t) => {
  // Most of it is on its way to the caller, and fills its socket, when the small chunk comes with the end in one read.
  const tiny = Buffer.from("1\r\na\r\n".repeat(2_000));
  const large = Buffer.alloc(110_000, 0x62);
  const last = Buffer.from("3\r\nend\r\n0\r\n\r\n");
  const { dial, upstream } = await startOneService(t, {
    answer({ message, socket }) {
      if (!message.start.includes("/big")) return ok("next");
      socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
      return undefined;
    },
  });
  const client = await dial();
  for (let turn = 0; turn < 20; turn++) {
    client.send("GET /big HTTP/1.1\r\nHost: orders\r\n\r\n");
    await until("the head is out", () => client.rest.includes("\r\n\r\n"));
    const whole = Buffer.concat([tiny, chunkOf(large), last]);
    for (const socket of upstream.open) socket.write(whole);
    assert.equal((await client.response()).body.length, 2_000 + large.length + 3);
    client.send("GET /next HTTP/1.1\r\nHost: orders\r\n\r\n");
    assert.equal((await client.response()).body.toString(), "next");
  }
  assert.equal(upstream.connections, 1);
});
