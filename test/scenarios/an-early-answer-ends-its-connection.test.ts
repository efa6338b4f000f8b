import assert from "node:assert/strict";
import { test } from "node:test";
import { statusOf } from "../harness/http-text.ts";
import { startOneService } from "../harness/one-service.ts";
import { ok } from "../harness/scripted-upstream.ts";
import { until } from "../harness/until.ts";

test("what is left of a question that was answered early is not read as the next caller's question", async (t) => {
  // A service that forgets the body of what it has answered, and so takes the body for another request.
  const heads: string[] = [];
  const service = await startOneService(t, {
    onHead(head, socket) {
      heads.push(head);
      socket.write(ok("early"), "latin1");
      socket.on("data", (chunk: Buffer) => {
        const text = chunk.toString("latin1");
        if (!text.startsWith("GET ")) return;
        heads.push(text);
        socket.write(ok("of another"), "latin1");
      });
      return true;
    },
  });
  const attacker = await service.dial();
  const smuggled = "GET /admin HTTP/1.1\r\nHost: orders\r\n\r\n";
  attacker.send(
    `POST /upload HTTP/1.1\r\nHost: orders\r\nContent-Length: ${smuggled.length}\r\n\r\n`,
  );
  await until("the early answer", () => attacker.rest.includes("early"));
  attacker.send(smuggled);
  await attacker.ended;
  await until("its connection is gone", () => service.upstream.open.size === 0);

  const honest = await service.dial();
  honest.send("GET /mine HTTP/1.1\r\nHost: orders\r\n\r\n");
  const response = await honest.response();
  assert.equal(statusOf(response), 200);
  assert.equal(service.upstream.connections, 2);
  assert.ok(
    !heads.some((head) => head.startsWith("GET /admin")),
    "the body never became a request",
  );
});
