import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { BadMessage, type Down, encode, parseDown, parseUp, type Up } from "./protocol.ts";

const running = { epoch: 1, version: 2, digest: "ab" };
const downs: Down[] = [
  { type: "snapshot", signed: { payload: "{}", signature: "AA", key: "AA" } },
  { type: "revoke", sequence: 1, revocation: { principal: "service/web", at: 1 } },
  {
    type: "revoke",
    sequence: 1,
    revocation: { principal: "gate/g-1", serial: "0a", lineage: "0b", at: 1 },
  },
  { type: "key", announcement: { successor: "AA", by: "AA", signature: "AA" } },
  { type: "renew" },
  {
    type: "roots",
    control: { active: "a".repeat(43), trusted: ["a".repeat(43)] },
    data: { active: "b".repeat(43), trusted: ["b".repeat(43), "c".repeat(43)] },
  },
  { type: "control-heads", heads: [{ chain: "abc", sequence: 1, head: "00" }] },
  { type: "heads-kept", id: 1 },
  { type: "hits.query", id: 1, filter: { caller: "service/web", sinceMs: 1, limit: 10 } },
  { type: "hits.more", id: 1 },
  { type: "hits.stop", id: 1 },
  { type: "ping", sequence: 1 },
  { type: "bye", reason: "closing" },
];
const ups: Up[] = [
  { type: "ack", ...running },
  { type: "revoked", sequence: 1 },
  {
    type: "roots",
    control: { trusted: [], leaf: null },
    data: { trusted: ["b".repeat(43)], leaf: "b".repeat(43) },
  },
  { type: "pong", sequence: 1 },
  { type: "heads", heads: [] },
  { type: "heads", heads: [], id: 1 },
  {
    type: "problem",
    epoch: null,
    version: null,
    digest: null,
    code: "bad_shape",
    message: "m",
    running: null,
  },
  {
    type: "hits.page",
    id: 1,
    hits: [{ id: "a-1", at: 1, plane: "data", kind: "request", decision: "allowed" }],
    done: true,
  },
  { type: "status", addresses: [], servedNames: [], counters: { requests: { total: 1 } } },
];

test("each message survives its line, and only in its own direction", () => {
  for (const message of downs) {
    assert.deepEqual(parseDown(encode(message).trimEnd()), message);
    assert.throws(() => parseUp(encode(message)), BadMessage);
  }
  for (const message of ups) {
    assert.deepEqual(parseUp(encode(message).trimEnd()), message);
    assert.throws(() => parseDown(encode(message)), BadMessage);
  }
});

const noes: [claim: string, line: string][] = [
  ["nothing", ""],
  ["a text", '"ping"'],
  ["a list", '[{"type":"ping","sequence":1}]'],
  ["no type", '{"sequence":1}'],
  ["an unknown type", '{"type":"exec","sequence":1}'],
  ["an unknown member", '{"type":"ping","sequence":1,"x":1}'],
  ["a prototype", '{"type":"ping","sequence":1,"__proto__":{"a":1}}'],
  ["a number as text", '{"type":"ping","sequence":"1"}'],
  ["a negative number", '{"type":"ping","sequence":-1}'],
  ["a fraction", '{"type":"ping","sequence":1.5}'],
  ["a number too large to count with", '{"type":"ping","sequence":9007199254740993}'],
  [
    "a principal with another spelling",
    '{"type":"revoke","sequence":1,"revocation":{"principal":"Service/web","at":1}}',
  ],
  [
    "a serial in upper case",
    '{"type":"revoke","sequence":1,"revocation":{"principal":"service/web","serial":"0A","at":1}}',
  ],
  [
    "a revocation without its time",
    '{"type":"revoke","sequence":1,"revocation":{"principal":"service/web"}}',
  ],
  ["more hits than may be asked for", '{"type":"hits.query","id":1,"filter":{"limit":10001}}'],
  ["a filter that is not known", '{"type":"hits.query","id":1,"filter":{"regex":".*"}}'],
  ["a reason that is not known", '{"type":"bye","reason":"because"}'],
  ["two messages", '{"type":"ping","sequence":1}{"type":"ping","sequence":2}'],
];
for (const [claim, line] of noes)
  test(`refused: ${claim}`, () => assert.throws(() => parseDown(line), BadMessage));

test("hits from a gate may have new members, but nothing nested and nothing huge", () => {
  const page = (hit: object): string =>
    JSON.stringify({ type: "hits.page", id: 1, hits: [hit], done: true });
  assert.doesNotThrow(() => parseUp(page({ id: "a", at: 1, newer: "member" })));
  for (const hit of [
    { id: "a" },
    { id: 1, at: 1 },
    { id: "a", at: 1, x: {} },
    { id: "a", at: 1, x: "y".repeat(3_000) },
  ])
    assert.throws(() => parseUp(page(hit)), BadMessage);
});

test("no escape sequence of a gate reaches whoever reads what it says", () => {
  const evil = "\u001b]0;owned\u0007\u009b2J\u202egnp\r\nerror: \u2028";
  const status = {
    type: "status",
    addresses: [evil],
    servedNames: [evil],
    counters: { [`k${evil}`]: { [evil]: [evil] }, n: 1 },
  };
  const lines = [
    status,
    { ...ups.find(({ type }) => type === "problem"), message: evil },
    {
      type: "warning",
      warning: {
        id: evil,
        at: 1,
        detector: evil,
        severity: "info",
        says: evil,
        hits: [evil],
        count: 1,
      },
    },
    {
      type: "hits.page",
      id: 1,
      hits: [{ id: evil, at: 1, path: evil }],
      done: true,
      problem: evil,
    },
  ];
  for (const message of lines) {
    const read = parseUp(JSON.stringify(message));
    const texts: string[] = [];
    JSON.stringify(read, (key, value) => {
      texts.push(key);
      if (typeof value === "string") texts.push(value);
      return value;
    });
    for (const said of texts) assert.doesNotMatch(said, /[\p{Cc}\p{Cf}\p{Zl}]/u, message.type);
    assert.ok(texts.some((said) => said.includes("?]0;owned??2J?gnp??error: ?")));
  }
});

test("counters nest a little, and never so deep that they cannot be written again", () => {
  const line = (counters: string): string =>
    `{"type":"status","addresses":[],"servedNames":[],"counters":${counters}}`;
  assert.doesNotThrow(() => parseUp(line('{"a":{"b":{"c":[1,"x",true,null]}}}')));
  const deep = 500_000;
  for (const counters of [
    `{"a":${"[".repeat(deep)}${"]".repeat(deep)}}`,
    `{"a":${'{"a":'.repeat(deep)}1${"}".repeat(deep)}}`,
    `{"a":[${"1,".repeat(100_000)}1]}`,
  ])
    assert.throws(() => parseUp(line(counters)), BadMessage);
});

test("whatever a line holds, it is a message or a BadMessage, and never quoted", () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (line) => {
      for (const parse of [parseDown, parseUp]) {
        try {
          parse(line);
        } catch (cause) {
          assert.ok(cause instanceof BadMessage);
        }
      }
    }),
    { numRuns: 500 },
  );
  assert.throws(
    () => parseDown('{"type":"snapshot","signed":"the secret"}'),
    (cause) => cause instanceof BadMessage && !cause.message.includes("secret"),
  );
});
