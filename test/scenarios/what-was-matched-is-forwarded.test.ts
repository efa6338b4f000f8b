import assert from "node:assert/strict";
import { test } from "node:test";
import { fieldValue, statusOf } from "../harness/http-text.ts";
import { startOneService } from "../harness/one-service.ts";

/** A target, and what the service sees of it; or the code it is refused with. */
const targets: readonly (readonly [claim: string, target: string, outcome: string])[] = [
  ["a plain path is forwarded", "/orders/1", "/orders/1"],
  [
    "a query is forwarded as it came",
    "/orders/1?a=%2e%2e/&b=//..&c=%00",
    "/orders/1?a=%2e%2e/&b=//..&c=%00",
  ],
  ["an empty query keeps its mark", "/orders/1?", "/orders/1?"],
  ["dots in a name are a name", "/orders/..a/b..", "/orders/..a/b.."],
  ["a dot segment goes", "/orders/./1", "/orders/1"],
  ["two dots go up", "/orders/x/../1", "/orders/1"],
  ["two dots cannot leave what is allowed", "/orders/../secret", "not_authorized"],
  ["escaped dots are dots", "/orders/%2e%2E/secret", "not_authorized"],
  ["half escaped dots are dots", "/orders/.%2e/secret", "not_authorized"],
  ["dots above the root are refused", "/../orders/1", "bad_path"],
  ["doubled slashes are one", "//orders///1", "/orders/1"],
  ["a trailing slash stays", "/orders/1/", "/orders/1/"],
  ["an escaped letter is the letter", "/%6frders/1", "/orders/1"],
  ["an escape is upper case", "/orders/%c3%a4", "/orders/%C3%A4"],
  ["a denied path is denied in every spelling", "/orders/%64ebug/x", "denied"],
  ["a denied path is denied with doubled slashes", "/orders//debug//x", "denied"],
  ["an escaped slash is refused", "/orders%2f1", "bad_path"],
  ["an escaped backslash is refused", "/orders/%5c..%5csecret", "bad_path"],
  ["a raw backslash is refused", "/orders\\..\\secret", "bad_request"],
  ["an escaped NUL is refused", "/orders/1%00.txt", "bad_path"],
  ["an escaped line break is refused", "/orders/%0d%0aX:%20y", "bad_path"],
  ["parameters on dots are refused", "/orders/..;/secret", "bad_path"],
  ["escapes of escapes are refused", "/orders/%252e%252e/secret", "bad_path"],
  ["a broken escape is refused", "/orders/%2", "bad_path"],
  ["overlong UTF-8 is refused", "/orders/%c0%ae%c0%ae/secret", "bad_path"],
  ["a fragment is refused", "/orders/1#x", "bad_request"],
  ["case matters", "/Orders/1", "not_authorized"],
  ["a longer name is another path", "/orders-secret", "not_authorized"],
  ["an absolute target is its path", "http://orders/orders/1?x", "/orders/1?x"],
  [
    "an absolute target keeps its query though it has no path",
    "http://orders?x=/orders/1",
    "not_authorized",
  ],
  ["an absolute target of another host is refused", "http://billing/orders/1", "bad_host"],
  ["an absolute target may say what we speak", "https://orders/orders/1?x", "/orders/1?x"],
  [
    "an absolute target of another host is refused by https too",
    "https://billing/orders/1",
    "bad_host",
  ],
  ["an absolute target with another scheme is refused", "ftp://orders/orders/1", "bad_request"],
  ["a target without slash is refused", "orders/1", "bad_request"],
];

test("the service is asked for exactly what the rules were asked about", async (t) => {
  const { dial, upstream, world } = await startOneService(t, {
    allow: '[{ id: web-orders, from: web, methods: [GET], paths: ["/orders/**"] }]',
    orders: '    deny: [{ id: no-debug, from: "*", paths: ["/orders/debug/**"] }]',
  });
  for (const [claim, target, outcome] of targets) {
    const client = await dial();
    const before = upstream.bytes;
    client.send(`GET ${target} HTTP/1.1\r\nHost: orders\r\n\r\n`);
    const response = await client.response();
    const hit = world.hits.at(-1);
    if (outcome.startsWith("/")) {
      assert.equal(statusOf(response), 200, claim);
      assert.equal(upstream.requests.at(-1)?.message.start, `GET ${outcome} HTTP/1.1`, claim);
      assert.equal(
        hit?.path,
        outcome.split("?")[0],
        "the record says what was matched, without the query",
      );
    } else {
      assert.equal(fieldValue(response, "sallyport-refusal"), outcome, claim);
      assert.equal(upstream.bytes, before, claim);
    }
    client.close();
  }
});

test("the host that is forwarded is the one that was matched", async (t) => {
  const { dial, upstream } = await startOneService(t, {
    orders: '    hosts: ["orders.shop.example"]',
  });
  const hosts: readonly (readonly [host: string, outcome: string])[] = [
    ["orders", "orders"],
    ["ORDERS", "orders"],
    ["orders:7443", "orders"],
    ["Orders.Shop.Example:443", "orders.shop.example"],
    ["orders.", "orders"],
    ["web", "unknown_service"],
    ["orders.evil.example", "unknown_service"],
    ["[::1]", "unknown_service"],
    ["127.0.0.1", "unknown_service"],
    ["user@orders", "bad_host"],
    ["orders, billing", "bad_host"],
    ["orders:99999", "bad_host"],
    ["orders/x", "bad_host"],
    ["", "bad_host"],
  ];
  for (const [host, outcome] of hosts) {
    const client = await dial();
    client.send(`GET /a HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
    const response = await client.response();
    if (statusOf(response) === 200)
      assert.equal(fieldValue(upstream.requests.at(-1)?.message as never, "host"), outcome, host);
    else assert.equal(fieldValue(response, "sallyport-refusal"), outcome, host);
    client.close();
  }
});

test("methods are matched as they are, and those that change the connection are not spoken", async (t) => {
  const { dial, upstream } = await startOneService(t, {
    allow: "[{ id: reads, from: web, methods: [GET] }]",
  });
  for (const [method, outcome] of [
    ["GET", "200"],
    ["HEAD", "200"],
    ["get", "method_not_supported"],
    ["POST", "not_authorized"],
    ["DELETE", "not_authorized"],
    ["TRACE", "method_not_supported"],
    ["CONNECT", "method_not_supported"],
    ["PRI", "not_authorized"],
  ] as const) {
    const client = await dial();
    client.send(`${method} /a HTTP/1.1\r\nHost: orders\r\n\r\n`);
    const response = await client.response({ bodiless: method === "HEAD" });
    assert.equal(
      statusOf(response) === 200 ? "200" : fieldValue(response, "sallyport-refusal"),
      outcome,
      method,
    );
    client.close();
  }
  assert.equal(upstream.requests.length, 2);
});
