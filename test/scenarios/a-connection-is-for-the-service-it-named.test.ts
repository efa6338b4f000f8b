import assert from "node:assert/strict";
import { test } from "node:test";
import { fieldValue, statusOf } from "../harness/http-text.ts";
import { startOneService } from "../harness/one-service.ts";
import { dial } from "../harness/tls-client.ts";

const get = (host: string): string => `GET /a HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
const services = `  billing:
    owner: shop
    upstreams: ["127.0.0.1:9"]
    allow: [{ id: web-billing, from: web }]`;

test("SNI chooses the leaf; an unknown name and none get the gate's own", async (t) => {
  const { world, web } = await startOneService(t, { plane: { names: ["orders", "billing"] } });
  for (const [sni, name] of [
    ["orders", "DNS:orders"],
    ["billing", "DNS:billing"],
    ["ORDERS", "DNS:orders"],
    ["nowhere", "DNS:test.gate.test.internal"],
    ["test.gate.test.internal", "DNS:test.gate.test.internal"],
    ["", "DNS:test.gate.test.internal"],
  ] as const) {
    const client = await dial({ port: world.port, credentials: web, sni });
    t.after(() => client.close());
    const { subjectaltname = "" } = client.socket.getPeerCertificate();
    assert.ok(subjectaltname.split(", ").includes(name), `${sni}: ${subjectaltname}`);
    assert.ok(subjectaltname.includes("URI:spiffe://test.internal/gate/test"));
  }
});

test("a connection that named one service does not reach another", async (t) => {
  const one = await startOneService(t, { services, plane: { names: ["orders"] } });
  const client = await one.dial(one.web, "billing");
  client.send(get("orders"));
  const response = await client.response();
  assert.equal(statusOf(response), 421);
  assert.equal(fieldValue(response, "sallyport-refusal"), "misdirected");
  assert.equal(one.upstream.bytes, 0);
  for (const sni of ["orders", "test.gate.test.internal", "", undefined]) {
    const good = await one.dial(one.web, sni);
    good.send(get("orders"));
    assert.equal(statusOf(await good.response()), 200, `SNI ${sni}`);
  }
});

test("a name leaf asks for the same proof as the gate's own", async (t) => {
  const { world } = await startOneService(t, { plane: { names: ["orders"] } });
  const client = await dial({ port: world.port, sni: "orders" });
  t.after(() => client.close());
  client.send(get("orders"));
  assert.equal(fieldValue(await client.response(), "sallyport-refusal"), "no_certificate");
  await assert.rejects(
    dial({ port: world.port, sni: "orders", options: { maxVersion: "TLSv1.2" } }),
  );
});
