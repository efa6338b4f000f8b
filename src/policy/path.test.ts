import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { absoluteForm, canonicalPath, lenientReadings, targetCharsMax } from "./path.ts";

const strict = { encodedSlash: false };
const canonical = (target: string, accept = strict) => {
  const found = canonicalPath(target, accept);
  return found && found.path + found.query;
};

const kept: readonly string[] = [
  "/",
  "/orders/7",
  "/orders/",
  "/orders?a=1&b=%zz/../x",
  "/orders??",
  "/o?",
  "/a-._~!$&'()*+,;=:@/b",
  "/.well-known/x",
  "/.../....",
  "/..a/.b",
  "/a;v=1/b",
  "/%E2%82%AC",
  "/a%20b",
  "/100%25",
  "/%25zz",
];
for (const target of kept)
  test(`${target} stays as it is`, () => assert.equal(canonical(target), target));

const rewritten: readonly (readonly [claim: string, target: string, path: string])[] = [
  ["dot segments are removed", "/a/./b/../c", "/a/c"],
  ["also when they are escaped", "/a/%2e/b/%2E%2e/c", "/a/c"],
  ["and mixed", "/a/.%2e/b", "/b"],
  ["at the end they leave a folder", "/a/b/..", "/a/"],
  ["a single dot at the end too", "/a/.", "/a/"],
  ["down to the root", "/a/..", "/"],
  ["slashes are merged", "//a///b//", "/a/b/"],
  ["many slashes are the root", "///", "/"],
  ["slashes are merged before dot segments count", "/a//../b", "/b"],
  ["unreserved characters are decoded", "/%61%7E%2D%5f", "/a~-_"],
  ["other escapes are put in upper case", "/a%3ab%c3%a9", "/a%3Ab%C3%A9"],
  ["the query is not touched", "/%61?%61=//..", "/a?%61=//.."],
];
for (const [claim, target, path] of rewritten)
  test(`${claim}: ${target}`, () => assert.equal(canonical(target), path));

const refused: readonly (readonly [claim: string, target: string])[] = [
  ["nothing", ""],
  ["no slash at the start", "orders"],
  ["the asterisk", "*"],
  ["absolute form", "http://orders/"],
  ["authority form", "orders:80"],
  ["a fragment", "/a#b"],
  ["a fragment behind a query", "/a?b#c"],
  ["above the root", "/.."],
  ["above the root, later", "/a/../../b"],
  ["above the root, escaped", "/%2e%2e/b"],
  ["above the root behind merged slashes", "/a//../../b"],
  ["an escaped slash", "/a%2fb"],
  ["an escaped backslash", "/a%5Cb"],
  ["an escaped NUL", "/a%00"],
  ["an escaped CR", "/a%0d"],
  ["an escaped LF", "/a%0Ab"],
  ["an escaped DEL", "/a%7f"],
  ["an escape cut short", "/a%2"],
  ["an escape cut shorter", "/a%"],
  ["an escape that is none", "/a%zz"],
  ["an escape with a sign", "/a%+1"],
  ["an escape across a slash", "/a%2/f"],
  ["a backslash", "/a\\b"],
  ["a space", "/a b"],
  ["a tab", "/a\tb"],
  ["a line break", "/a\r\nb"],
  ["a NUL byte", "/a\0"],
  ["DEL", "/a\x7f"],
  ["a quote", '/a"b'],
  ["angle brackets", "/<a>"],
  ["a caret", "/a^"],
  ["a grave accent", "/a`"],
  ["braces", "/{a}"],
  ["a bar", "/a|b"],
  ["square brackets", "/[a]"],
  ["a byte beyond ASCII", "/\xe9"],
  ["a character beyond Latin-1", "/\u2215"],
  ["a space in the query", "/a?b c"],
  ["a line break in the query", "/a?b\r\nX: y"],
  ["a NUL byte in the query", "/a?\0"],
  ["a byte beyond ASCII in the query", "/a?\xe9"],
  ["a character beyond Latin-1 in the query", "/a?\u010a"],
  ["parameters on dots", "/orders/..;/admin"],
  ["parameters on a dot", "/orders/.;a=b/admin"],
  ["parameters on escaped dots", "/orders/%2e%2e;x/admin"],
  ["escaped parameters on dots", "/orders/..%3Bx/admin"],
  ["dots escaped twice", "/orders/%252e%252e/admin"],
  ["a slash escaped twice", "/orders%252Fadmin"],
  ["a backslash escaped twice", "/orders%255cadmin"],
  ["a slash escaped thrice", "/orders%25252fadmin"],
  ["a slash escaped twice, digit by digit", "/orders%25%32%66admin"],
  ["a dot in two bytes", "/%c0%ae%c0%ae/admin"],
  ["a slash in two bytes", "/a%c0%af"],
  ["a slash in three bytes", "/a%e0%80%af"],
  ["a slash in four bytes", "/a%f0%80%80%af"],
  ["too much", `/${"a".repeat(targetCharsMax)}`],
];
for (const [claim, target] of refused)
  test(`${claim} is refused`, () => {
    assert.equal(canonicalPath(target, strict), undefined);
  });

test("a target of exactly the limit is taken", () => {
  assert.ok(canonicalPath(`/${"a".repeat(targetCharsMax - 1)}`, strict));
});

test("a service may accept escaped slashes, and only those", () => {
  const accept = { encodedSlash: true };
  assert.equal(canonical("/a%2fb/../c", accept), "/c");
  assert.equal(canonical("/a%2fb", accept), "/a%2Fb");
  for (const target of [
    "/a%5cb",
    "/a%00",
    "/a%252fb",
    "/..%2fadmin",
    "/a%2f..",
    "/a%2f../b",
    "/a%2f.;x",
  ])
    assert.equal(canonicalPath(target, accept), undefined, target);
});

const piece = fc.constantFrom(
  ..."/,//,.,..,%2e,%2E,;,%3b,a,b,%61,%2f,%25,25,2e,2f,?,%c3%a9,%,:,~,%7e, ,\\".split(","),
);
const target = fc.array(piece, { maxLength: 12 }).map((pieces) => `/${pieces.join("")}`);

test("a canonical path is its own canonical path, and holds nothing that can be read in two ways", () => {
  fc.assert(
    fc.property(target, fc.boolean(), (text, encodedSlash) => {
      const found = canonicalPath(text, { encodedSlash });
      if (!found) return;
      const { path, query } = found;
      assert.deepEqual(canonicalPath(path + query, { encodedSlash }), found);
      assert.ok(path.startsWith("/") && !path.includes("//"));
      assert.ok(!path.split("/").some((segment) => segment === "." || segment === ".."));
      assert.ok(query === "" || query.startsWith("?"));
      // A second decoding finds no dot segment either.
      const decoded = path.replaceAll(/%(..)/g, (_, hex) =>
        String.fromCharCode(Number.parseInt(hex, 16)),
      );
      const again = decoded.split("/");
      assert.ok(!again.some((segment) => /^\.\.?(;|$)/.test(segment)), path);
    }),
    { numRuns: 3000 },
  );
});

test("whatever comes in, it answers and never throws", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 60 }), (text) => {
      const found = canonicalPath(`/${text}`, strict);
      assert.ok(found === undefined || /^\/[\x21-\x7e]*$/.test(found.path + found.query));
    }),
  );
});

test("it agrees with the URL standard wherever both accept", () => {
  fc.assert(
    fc.property(target, (text) => {
      const path = canonicalPath(text, strict)?.path;
      if (path === undefined || text.includes("//")) return;
      const url = new URL(`http://h${text}`).pathname;
      assert.equal(path, canonicalPath(url, strict)?.path);
    }),
    { numRuns: 2000 },
  );
});

const absolutes: readonly (readonly [string, ReturnType<typeof absoluteForm>])[] = [
  ["http://orders/x?y", { host: "orders", target: "/x?y" }],
  ["HTTPS://Orders:80/", { host: "Orders:80", target: "/" }],
  ["http://orders", { host: "orders", target: "/" }],
  ["http://orders?x", { host: "orders", target: "/?x" }],
  ["http://u@orders/x", { host: "u@orders", target: "/x" }],
  ["http:///x", { host: "", target: "/x" }],
  ["http://orders#x", { host: "orders", target: "/#x" }],
  ["ftp://orders/x", undefined],
  ["/x", undefined],
  ["http:/x", undefined],
];
for (const [text, expected] of absolutes)
  test(`absolute form: ${text}`, () => assert.deepEqual(absoluteForm(text), expected));

const readings: readonly (readonly [string, readonly string[]])[] = [
  ["/debug/vars", []],
  ["/debug%20x", []],
  ["/debug;x/vars", ["/debug/vars"]],
  ["/debug%3Bx/vars", ["/debug/vars"]],
  ["/a/;x/b", ["/a/b"]],
  ["/;x", ["/"]],
  ["/a%2Fb", ["/a/b"]],
  ["/a;%2Fb", ["/a", "/a/b"]],
];
for (const [path, expected] of readings)
  test(`a lenient server could read ${path} otherwise`, () => {
    assert.deepEqual(lenientReadings(path), expected);
  });
