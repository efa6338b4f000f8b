import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { RequestParser } from "./request-parser.ts";
import { ResponseParser } from "./response-parser.ts";
import {
  serializeChunkSize,
  serializeField,
  serializeFields,
  serializeLastChunk,
  serializeRequestHead,
  serializeResponseHead,
} from "./serialize.ts";

const letters = (alphabet: string, maxLength: number): fc.Arbitrary<string> =>
  fc.string({ unit: fc.constantFrom(...alphabet), minLength: 1, maxLength });
const names = letters("abcXYZ019-!~.", 12).map((name) => `q${name}`);
const values = fc
  .array(fc.integer({ min: 0x21, max: 0xff }), { maxLength: 20 })
  .map((units) => String.fromCharCode(...units.filter((unit) => unit !== 0x7f)));
const headers = fc.array(fc.tuple(names, values), { maxLength: 20 }).map((pairs) => pairs.flat());
const bodies = fc.array(fc.uint8Array({ minLength: 1, maxLength: 50 }), { maxLength: 5 });

test("a request that was written is read as it was meant", () => {
  const property = fc.property(
    letters("GETPOSabc", 8),
    letters("abc/?&=%20~", 20).map((rest) => `/${rest}`),
    headers,
    bodies,
    headers,
    (method, target, fields, chunks, trailers) => {
      const sent = ["Host", "a", ...fields, "Transfer-Encoding", "chunked"];
      const wire = Buffer.concat([
        Buffer.from(serializeRequestHead(method, target, sent), "latin1"),
        ...chunks.flatMap((chunk) => [
          Buffer.from(serializeChunkSize(chunk.length)),
          chunk,
          Buffer.from("\r\n"),
        ]),
        Buffer.from(serializeLastChunk(trailers), "latin1"),
      ]);
      const got: unknown[] = [];
      const body: Buffer[] = [];
      const parser = new RequestParser({
        onHead: (head) => void got.push(head.method, head.target, head.fields.flat),
        onBody: (chunk) => void body.push(Buffer.from(chunk)),
        onEnd: (late) => void got.push(late ?? []),
        onError: (error) => void got.push(error),
      });
      parser.push(wire);
      assert.deepEqual(got, [method, target, sent, trailers]);
      assert.deepEqual(Buffer.concat(body), Buffer.concat(chunks));
      assert.equal(parser.state, "idle");
    },
  );
  fc.assert(property, { numRuns: 300, seed: 1 });
});

test("a response that was written is read as it was meant", () => {
  const property = fc.property(
    fc.integer({ min: 205, max: 999 }).filter((status) => status !== 304),
    values,
    headers,
    fc.uint8Array({ maxLength: 50 }),
    (status, reason, fields, content) => {
      const sent = [...fields, "Content-Length", String(content.length)];
      const got: unknown[] = [];
      const body: Buffer[] = [];
      const parser = new ResponseParser({
        onInformational: () => assert.fail(),
        onHead: (head) => void got.push(head.status, head.reason, head.fields.flat),
        onBody: (chunk) => void body.push(Buffer.from(chunk)),
        onEnd: (late) => void got.push(late),
        onError: (error) => void got.push(error),
      });
      parser.expect("GET");
      parser.push(Buffer.from(serializeResponseHead(status, reason, sent), "latin1"));
      parser.push(Buffer.from(content));
      assert.deepEqual(got, [status, reason, sent, undefined]);
      assert.deepEqual(Buffer.concat(body), Buffer.from(content));
    },
  );
  fc.assert(property, { numRuns: 300, seed: 1 });
});

for (const [claim, write] of [
  ["a CRLF in a value", () => serializeField("X", "a\r\nY: b")],
  ["a LF in a value", () => serializeField("X", "a\nb")],
  ["a NUL in a value", () => serializeField("X", "a\0b")],
  ["a letter of more than one octet in a value", () => serializeField("X", "a\u010ab")],
  ["a space in front of a value", () => serializeField("X", " a")],
  ["a tab behind a value", () => serializeField("X", "a\t")],
  ["an empty name", () => serializeField("", "a")],
  ["a colon in a name", () => serializeField("X:", "a")],
  ["a space in a name", () => serializeField("X ", "a")],
  ["a CRLF in a name", () => serializeField("X\r\nY", "a")],
  ["a name without a value", () => serializeFields(["X"])],
  ["a space in a method", () => serializeRequestHead("GET /", "/", [])],
  ["an empty target", () => serializeRequestHead("GET", "", [])],
  ["a space in a target", () => serializeRequestHead("GET", "/ HTTP/1.1", [])],
  ["a CRLF in a target", () => serializeRequestHead("GET", "/\r\nX: 1", [])],
  ["raw UTF-8 in a target", () => serializeRequestHead("GET", "/ä", [])],
  ["a CRLF in a reason", () => serializeResponseHead(200, "a\r\nX: 1", [])],
  ["a status of two digits", () => serializeResponseHead(99, "", [])],
  ["a status that is no integer", () => serializeResponseHead(200.5, "", [])],
  ["a chunk of no size", () => serializeChunkSize(0)],
  ["a CRLF in a trailer", () => serializeLastChunk(["X", "a\r\nb"])],
] as const) {
  test(`${claim} is not written`, () => assert.throws(write, RangeError));
}

test("what is allowed is written", () => {
  assert.equal(serializeField("X_y", ""), "X_y: \r\n");
  assert.equal(serializeField("X", "a \t\xe4"), "X: a \t\xe4\r\n");
  assert.equal(serializeLastChunk([]), "0\r\n\r\n");
  assert.equal(serializeResponseHead(204, "", []), "HTTP/1.1 204 \r\n\r\n");
});
