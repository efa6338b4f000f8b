import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { hostCharsMax, parseHost } from "./host.ts";

const taken: readonly (readonly [text: string, host: string, port?: number])[] = [
  ["orders", "orders"],
  ["Orders", "orders"],
  ["orders:7443", "orders", 7443],
  ["orders:", "orders"],
  ["orders.", "orders"],
  ["ORDERS.:0", "orders", 0],
  ["metrics.orders", "metrics.orders"],
  ["my_service", "my_service"],
  ["10.0.0.1:80", "10.0.0.1", 80],
  ["[::1]", "[::1]"],
  ["[FD00::1]:65535", "[fd00::1]", 65_535],
];
for (const [text, host, port] of taken)
  test(`${text} is ${host}`, () => assert.deepEqual(parseHost(text), { host, port }));

const refused: readonly (readonly [claim: string, text: string])[] = [
  ["nothing", ""],
  ["a dot", "."],
  ["a dot and a port", ".:80"],
  ["a port alone", ":80"],
  ["two dots", "orders.."],
  ["a dot in front", ".orders"],
  ["an empty label", "metrics..orders"],
  ["user information", "user@orders"],
  ["user and password", "user:secret@orders"],
  ["a space", "orders billing"],
  ["a space at the end", "orders "],
  ["a list", "orders,billing"],
  ["a path", "orders/x"],
  ["a query", "orders?x"],
  ["a backslash", "orders\\billing"],
  ["an escape", "order%73"],
  ["a NUL byte", "orders\0"],
  ["a line break", "orders\r\nx"],
  ["letters beyond ASCII", "örders"],
  ["a letter that lower-cases to ASCII", "\u212a"],
  ["two ports", "orders:80:81"],
  ["a port that is none", "orders:http"],
  ["a signed port", "orders:+80"],
  ["a port too large", "orders:65536"],
  ["a port too long", "orders:000080"],
  ["a long label", "a".repeat(64)],
  ["a long label in front", `${"a".repeat(64)}.orders`],
  ["a long label before a port", `${"a".repeat(64)}:80`],
  ["a long name", "a.".repeat(128)],
  ["an open bracket", "[::1"],
  ["a bracket with no address", "[]"],
  ["a name in brackets", "[orders]"],
  ["a zone", "[fe80::1%25eth0]"],
  ["something behind the bracket", "[::1]x"],
  ["IPv6 without brackets", "::1"],
];
for (const [claim, text] of refused)
  test(`${claim} is refused`, () => assert.equal(parseHost(text), undefined));

test("what comes out goes in again, and is lower-case ASCII", () => {
  const char = fc.constantFrom(..."aB.-_:1[]%@ ,é\0");
  fc.assert(
    fc.property(
      fc.array(char, { maxLength: 12 }).map((chars) => chars.join("")),
      (text) => {
        const found = parseHost(text);
        if (!found) return;
        assert.match(found.host, /^[a-z0-9._[\]:-]+$/);
        assert.ok(found.host.length <= hostCharsMax && !found.host.endsWith("."));
        assert.deepEqual(parseHost(found.host), { host: found.host, port: undefined });
      },
    ),
    { numRuns: 3000 },
  );
});
