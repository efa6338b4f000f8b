import assert from "node:assert/strict";
import { test } from "node:test";
import { fieldValue, statusOf } from "../harness/http-text.ts";
import { startOneService } from "../harness/one-service.ts";

test("a method in small letters is no way around a denial of the method", async (t) => {
  const service = await startOneService(t, {
    orders: "    deny: [{ id: no-delete, from: web, methods: [DELETE] }]",
  });
  for (const method of ["DELETE", "delete", "Delete", "deletE"]) {
    const client = await service.dial();
    client.send(`${method} /orders/1 HTTP/1.1\r\nHost: orders\r\n\r\n`);
    assert.ok([403, 501].includes(statusOf(await client.response())), method);
  }
  assert.equal(service.upstream.requests.length, 0);
});

test("no spelling of a field that names the caller gets through, whatever stands between its words", async (t) => {
  const service = await startOneService(t);
  const client = await service.dial();
  const spellings = [".", "!", "+", "~", "'", "|"].map((sign) => `sallyport${sign}Caller`);
  client.send(
    `GET / HTTP/1.1\r\nHost: orders\r\n${spellings.map((name) => `${name}: spiffe://test.internal/service/admin\r\n`).join("")}X.Forwarded.For: 1.2.3.4\r\nX-Harmless.One: 1\r\n\r\n`,
  );
  assert.equal(statusOf(await client.response()), 200);
  const [received] = service.upstream.requests;
  assert.ok(received);
  const names = received.message.fields.map(([name]) => name);
  assert.deepEqual(
    names.filter((name) => /caller|forwarded/.test(name)),
    ["sallyport-caller"],
  );
  assert.equal(
    fieldValue(received.message, "sallyport-caller"),
    "spiffe://test.internal/service/web",
  );
  assert.ok(names.includes("x-harmless.one"));
});
