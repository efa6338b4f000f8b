import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { HeadFields } from "../../wire/http1/head-fields.ts";
import { RequestParser } from "../../wire/http1/request-parser.ts";
import { type Fate, fate, requestFate, requestFieldFate } from "./hygiene.ts";
import { keptLines } from "./kept-lines.ts";

function fieldsOf(lines: string): HeadFields {
  let fields: HeadFields | undefined;
  const parser = new RequestParser({
    onHead: (head) => {
      fields = head.fields;
    },
    onBody() {},
    onEnd() {},
    onError: ({ detail }) => assert.fail(detail),
  });
  parser.push(Buffer.from(`GET / HTTP/1.1\r\nHost: a\r\n${lines}\r\n`, "latin1"));
  return fields ?? assert.fail("no head");
}

const kept = (lines: string, nominated: readonly string[] = []): string =>
  keptLines(fieldsOf(lines), nominated, requestFieldFate);

test("what is spelled plainly goes on as it came", () => {
  assert.equal(kept("Accept: */*\r\nX-A: 1\r\nx-a:  \r\n"), "Accept: */*\r\nX-A: 1\r\nx-a: \r\n");
});

test("other spellings become one space after the colon and none behind", () => {
  for (const line of ["X-A:1", "X-A:\t1", "X-A:  1", "X-A: 1 ", "X-A: 1\t", "X-A:1 "])
    assert.equal(kept(`Accept: b\r\n${line}\r\nX-C: d\r\n`), "Accept: b\r\nX-A: 1\r\nX-C: d\r\n");
});

test("a line that ends here takes none of its neighbours with it", () => {
  const lines = "X-A: 1\r\nX-Forwarded-For: 6.6.6.6\r\nX-B: 2\r\nKeep-Alive: 9\r\nX-C: 3\r\n";
  assert.equal(kept(lines), "X-A: 1\r\nX-B: 2\r\nX-C: 3\r\n");
  assert.equal(kept(lines, ["x-b"]), "X-A: 1\r\nX-C: 3\r\n");
  assert.equal(kept("Sallyport-Caller: me\r\n"), "");
});

test("what needs a look is told, and is not passed on by itself", () => {
  const told: [Fate, number][] = [];
  const fields = fieldsOf("TE: trailers\r\nX-A: 1\r\nVia: 1.1 x\r\n");
  const text = keptLines(fields, [], requestFieldFate, (verdict, which) =>
    told.push([verdict, which]),
  );
  assert.equal(text, "X-A: 1\r\n");
  assert.deepEqual(told, [
    [fate.te, 1],
    [fate.via, 3],
  ]);
});

const name = fc.constantFrom(
  ..."Accept X-A x-b Via TE Keep-Alive X-Forwarded-Host Sallyport-Hit Server Cookie".split(" "),
);
const space = fc.constantFrom("", " ", "  ", "\t", " \t");
const value = fc.string({ maxLength: 6 }).map((text) => text.replaceAll(/[^a-z]/g, "").trim());

test("whatever comes, the lines are those that a look at each field by itself gives", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(name, space, value, space), { maxLength: 12 }),
      fc.subarray(["accept", "x-a", "x-b"]),
      (fields, nominated) => {
        const lines = fields.map(([name, before, text, after]) => {
          return `${name}:${before}${text}${after}\r\n`;
        });
        const expected = fields
          .filter(([name]) => requestFate(name) === fate.keep)
          .filter(([name]) => !nominated.includes(name.toLowerCase()))
          .map(([name, , text]) => `${name}: ${text}\r\n`);
        assert.equal(kept(lines.join(""), nominated), expected.join(""));
      },
    ),
  );
});
