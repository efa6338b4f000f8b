import assert from "node:assert/strict";
import { test } from "node:test";
import { startOneService } from "../harness/one-service.ts";
import { ok } from "../harness/scripted-upstream.ts";
import { until } from "../harness/until.ts";

const text = "0123456789".repeat(2_000);
const tiny = `${[...text].map((one) => `1\r\n${one}\r\n`).join("")}0\r\n\r\n`;

test("a body in chunks of one byte costs neither side a chunk a byte, and loses none", async (t) => {
  const service = await startOneService(t, {
    answer: () => `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${tiny}`,
  });
  const client = await service.dial();
  client.send(`POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n${tiny}`);
  const response = await client.response();
  const [received] = service.upstream.requests;
  assert.equal(received?.message.body.toString(), text);
  assert.equal(response.body.toString(), text);
  assert.ok(service.upstream.bytes < 2 * text.length, `${service.upstream.bytes} bytes went in`);
  assert.ok(response.raw.length < 2 * text.length, `${response.raw.length} bytes came out`);
});

test("a tiny chunk goes on at once, without waiting for another", async (t) => {
  let tail = "";
  const service = await startOneService(t, {
    onHead(head, socket) {
      tail = head;
      socket.on("data", (chunk: Buffer) => {
        tail += chunk.toString("latin1");
        if (tail.endsWith("0\r\n\r\n")) socket.write(ok("whole"));
      });
      return true;
    },
  });
  const client = await service.dial();
  client.send("POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n");
  await until("the head", () => tail !== "");
  client.send("1\r\na\r\n");
  await until("the first byte of the body", () => tail.endsWith("1\r\na\r\n"));
  client.send("0\r\n\r\n");
  assert.match((await client.response()).start, /200/);
});
