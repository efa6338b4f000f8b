import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { registerDigest } from "./digest.ts";
import { parseRegister } from "./parse.ts";
import { fileBytesMax } from "./read-yaml.ts";

const fixture = (name: string) =>
  readFileSync(new URL(`../../../test/fixtures/registers/${name}`, import.meta.url), "utf8");
const parse = (text: string) => parseRegister([{ name: "r.yaml", text }]);
const told = (text: string) =>
  parse(text).problems.map((each) => `${each.line}:${each.column} ${each.code}`);

/** A register around one service `orders`, whose lines begin in line 5. */
const withOrders = (lines: string) =>
  `version: 1\ntrustDomain: t.internal\nservices:\n  web: { owner: a }\n${lines}`;
const withPort = (text: string) =>
  withOrders(`  orders: { owner: a, ports: { http: { ${text} } } }`);
const withRule = (text: string) =>
  withOrders(`  orders: { owner: a, upstreams: ["127.0.0.1:9001"], allow: [{ id: r, ${text} }] }`);

test("everything that works today parses, with its defaults filled in", () => {
  const { register, problems } = parse(fixture("today.yaml"));
  assert.deepEqual(problems, []);
  assert.ok(register);
  const { orders, billing } = register.services;
  assert.deepEqual(orders?.ports.http?.timeouts, {
    connectMs: 500,
    responseHeadMs: 30_000,
    idleMs: 300_000,
  });
  assert.deepEqual(billing?.ports.http?.timeouts, {
    connectMs: 1000,
    responseHeadMs: 15_000,
    idleMs: 60_000,
  });
  assert.deepEqual(orders?.ports.http?.upstreams[2], { kind: "unix", path: "/run/orders.sock" });
  assert.deepEqual(orders?.accept, {
    encodedSlash: true,
    underscoreHeaders: true,
    userHeaders: true,
  });
  assert.equal(orders?.staleAfter?.afterMs, 3_600_000);
  assert.equal(orders?.staleAfter?.then, "refuse");
  assert.deepEqual(orders?.allow[0]?.limit, { count: 100, perMs: 1000, burst: 200 });
  assert.deepEqual(orders?.allow[1]?.limit, { count: 5, perMs: 60_000, burst: 5 });
  assert.equal(orders?.allow[2]?.expiresMs, Date.UTC(2027, 2, 1));
  assert.equal(orders?.allow[3]?.expiresMs, Date.UTC(2027, 2, 1, 17));
  assert.deepEqual(orders?.allow[3]?.hours, {
    days: [0, 5, 6],
    startMinute: 1320,
    endMinute: 360,
    zone: "Europe/Berlin",
  });
  assert.deepEqual(orders?.allow[0]?.ports, ["http"], "the main port");
  assert.equal(billing?.ports.http?.via, "gate", "the short form is one port");
  assert.deepEqual(register.planes.data.from, ["mesh"]);
  assert.deepEqual(
    register.planes.decoys.map((bind) => bind.kind),
    ["network", "address"],
  );
});

test("doors that are not named are on loopback", () => {
  const { register } = parse(withPort('upstreams: ["127.0.0.1:1"]'));
  const doors = register && [
    register.planes.control,
    register.planes.ops,
    register.planes.join,
    register.planes.data,
  ];
  assert.deepEqual(
    doors?.map((door) => door.binds.map((bind) => bind.text).join()),
    ["127.0.0.1:7440", "127.0.0.1:7441", "127.0.0.1:7442", "127.0.0.1:7443"],
  );
});

test("a register is plain JSON, and its digest survives the journey", () => {
  const { register } = parse(fixture("today.yaml"));
  assert.ok(register);
  const travelled = JSON.parse(JSON.stringify(register));
  assert.deepEqual(travelled, register);
  assert.equal(registerDigest(travelled), registerDigest(register));
  assert.match(registerDigest(register), /^[0-9a-f]{64}$/);
  const other = parse(fixture("today.yaml").replace("100/s", "101/s")).register;
  assert.ok(other);
  assert.notEqual(registerDigest(other), registerDigest(register));
});

/** `▸` stands before the place that has to be told; without it the places are written out. */
const mistakes: readonly [claim: string, text: string, ...expected: string[]][] = [
  ["an empty file", "", "1:1 empty"],
  ["a comment alone", "# nothing\n", "1:1 empty"],
  ["a text instead of a map", "hello", "1:1 wrong-type"],
  ["another version", "version: 2\ntrustDomain: t\nservices: {}", "1:10 bad-version"],
  ["a version in quotes", 'version: "1"\ntrustDomain: t\nservices: {}', "1:10 bad-version"],
  ["everything missing", "{}", "1:1 missing-key", "1:1 missing-key", "1:1 missing-key"],
  ["two documents", `${withOrders("")}---\na: 1\n`, "5:1 yaml-documents"],
  ["a key twice", withOrders("  ▸web: { owner: b }"), "duplicate-key"],
  ["a key that is a number", withOrders("  ▸1: { owner: b }"), "yaml-key"],
  ["a key that is a list", withOrders("  ? ▸[a]\n  : { owner: b }"), "yaml-key"],
  [
    "a merge key",
    withOrders("  orders:\n    <<: { owner: a }"),
    "6:5 yaml-merge",
    "5:3 missing-key",
  ],
  ["a tag", withOrders("  orders: { owner: !!str ▸1 }"), "yaml-tag"],
  ["a tag nobody knows", withOrders("  orders: { owner: ▸!secret x }"), "yaml-syntax"],
  ["an alias to nothing", withOrders("  orders: { owner: ▸*nobody }"), "yaml-alias"],
  ["an unquoted star", withRule("from: ▸*"), "yaml-syntax"],
  ["a tab", "version: 1\nservices:\n\tweb: {}\n", "3:1 yaml-syntax"],
  ["an unclosed bracket", "version: 1\nservices: { web: { owner: a }\n", "3:1 yaml-syntax"],
  ["an unclosed quote", 'version: 1\ntrustDomain: "t\n', "3:1 yaml-syntax"],
  ["a second key in one line", "version: 1\ntrustDomain: a: b\n", "2:14 yaml-syntax"],
  ["braces in a path", withRule("from: web, paths: [/a/▸{id}]"), "yaml-syntax"],
  ["a name in upper case", withOrders("  ▸Orders: { owner: a }"), "bad-name"],
  ["a name that objects have", withOrders("  ▸constructor: { owner: a }"), "bad-name"],
  ["a name that objects must not have", withOrders("  ▸__proto__: { owner: a }"), "bad-name"],
  ["a service that is a text", withOrders("  orders: ▸commerce"), "wrong-type"],
  ["a key without a value", withOrders("  orders: { ▸owner: }"), "no-value"],
  ["a number for an owner", withOrders("  orders: { owner: ▸7 }"), "wrong-type"],
  ["an empty owner", withOrders('  orders: { owner: ▸" " }'), "bad-text"],
  ["a gated port without upstreams", withPort("protocol: http"), "5:38 missing-key"],
  ["a gated port with no upstream", withPort("upstreams: ▸[]"), "missing-key"],
  ["a direct port without its port", withPort("via: direct"), "5:38 missing-key"],
  [
    "a direct port with upstreams",
    withPort('via: direct, port: 1, ▸upstreams: ["a:1"]'),
    "unused-key",
  ],
  ["another protocol", withPort('protocol: ▸htp, upstreams: ["127.0.0.1:1"]'), "bad-word"],
  [
    "grpc through the gate",
    withPort('protocol: ▸grpc, upstreams: ["127.0.0.1:1"]'),
    "not-supported-yet",
  ],
  [
    "tcp through the gate",
    withPort('protocol: ▸tcp, upstreams: ["127.0.0.1:1"]'),
    "not-supported-yet",
  ],
  [
    "upstreamProtocol",
    withPort('upstreams: ["127.0.0.1:1"], ▸upstreamProtocol: http2'),
    "not-supported-yet",
  ],
  [
    "tls to upstreams",
    withPort('upstreams: ["127.0.0.1:1"], ▸tls: { ca: x }'),
    "not-supported-yet",
  ],
  ["cors", withRule("from: web, ▸cors: {}"), "not-supported-yet"],
  ["gates", `gates: {}\n${withOrders("")}`, "1:1 not-supported-yet"],
  ["overlays", `overlays: [a]\n${withOrders("")}`, "1:1 not-supported-yet"],
  ["a port too large", withPort("via: direct, port: ▸65536"), "out-of-range"],
  ["a port in quotes", withPort('via: direct, port: ▸"80"'), "wrong-type"],
  ["port zero behind the gate", withPort('upstreams: [▸"127.0.0.1:0"]'), "bad-address"],
  ["a URL for an upstream", withPort('upstreams: [▸"http://a:1"]'), "bad-address"],
  ["an upstream without its port", withPort('upstreams: [▸"a"]'), "bad-address"],
  ["a short IPv4 address", withPort('upstreams: [▸"127.1:80"]'), "bad-address"],
  ["an octal IPv4 address", withPort('upstreams: [▸"0177.0.0.1:80"]'), "bad-address"],
  ["a bare IPv6 address", withPort('upstreams: [▸"::1:80"]'), "bad-address"],
  ["a relative socket", withPort('upstreams: [▸"unix:orders.sock"]'), "bad-address"],
  ["a socket above", withPort('upstreams: [▸"unix:/run/../etc/x"]'), "bad-address"],
  [
    "plaintext without a date",
    withPort('upstreams: ["a:1"], plaintext: ▸{ why: x }'),
    "missing-key",
  ],
  [
    "plaintext without a reason",
    withPort('upstreams: ["a:1"], plaintext: { why: ▸"", expires: 2027-01-01 }'),
    "bad-text",
  ],
  [
    "the short form beside ports",
    withOrders("  orders: { owner: a, ▸protocol: http, ports: {} }"),
    "short-form-mixed",
  ],
  [
    "timeouts of nothing",
    withOrders("  orders: { owner: a, ▸timeouts: { idle: 1m } }"),
    "unused-key",
  ],
  [
    "a timeout without a unit",
    withOrders('  orders: { owner: a, upstreams: ["127.0.0.1:1"], timeouts: { idle: ▸60 } }'),
    "bad-duration",
  ],
  [
    "a rule without an id",
    withOrders('  orders: { owner: a, upstreams: ["127.0.0.1:1"], allow: [▸{ from: web }] }'),
    "missing-key",
  ],
  ["a rule for nobody said", withRule("methods: [GET]"), "5:62 missing-key"],
  ["a caller as a URI", withRule("from: ▸spiffe://t.internal/service/web"), "bad-caller"],
  ["an administrator as a caller", withRule("from: ▸admin/first"), "bad-caller"],
  ["everybody and somebody", withRule('from: [web, ▸"*"]'), "bad-caller"],
  ["a method in lower case", withRule("from: web, methods: [▸get]"), "bad-method"],
  ["a mistyped method", withRule("from: web, methods: [▸POTS]"), "bad-method"],
  ["a star for methods", withRule('from: web, methods: [▸"*"]'), "bad-method"],
  ["a method that opens tunnels", withRule("from: web, methods: [▸CONNECT]"), "bad-method"],
  ["methods that are a text", withRule("from: web, methods: ▸GET"), "wrong-type"],
  ["a path without its slash", withRule("from: web, paths: [▸orders]"), "bad-path"],
  ["stars in the middle", withRule('from: web, paths: [▸"/**/x"]'), "bad-path"],
  ["one star", withRule('from: web, paths: [▸"/a/*"]'), "bad-path"],
  ["a query", withRule('from: web, paths: [▸"/a?b=c"]'), "bad-path"],
  ["dot segments", withRule('from: web, paths: [▸"/a/../b"]'), "bad-path"],
  ["an encoded character", withRule('from: web, paths: [▸"/a%2Fb"]'), "bad-path"],
  ["a doubled slash", withRule('from: web, paths: [▸"//a"]'), "bad-path"],
  ["a letter outside ASCII", withRule('from: web, paths: [▸"/é"]'), "bad-path"],
  ["a nameless variable", withRule('from: web, paths: [▸"/a/:"]'), "bad-path"],
  ["a rate without its slash", withRule("from: web, limit: { rate: ▸100 }"), "bad-rate"],
  [
    "a limit that lets nobody",
    withRule("from: web, limit: { rate: 5/s, burst: ▸0 }"),
    "out-of-range",
  ],
  ["the thirtieth of February", withRule("from: web, expires: ▸2027-02-30"), "bad-date"],
  ["a time without a zone", withRule("from: web, expires: ▸2027-03-01T08:00:00"), "bad-date"],
  [
    "a day nobody knows",
    withRule('from: web, hours: { days: ▸funday, start: "08:00", end: "09:00" }'),
    "bad-days",
  ],
  ["an hour too many", withRule('from: web, hours: { start: "08:00", end: ▸"24:01" }'), "bad-time"],
  [
    "a zone nobody knows",
    withRule('from: web, hours: { start: "08:00", end: "09:00", zone: ▸Mars/Base }'),
    "bad-zone",
  ],
  [
    "an offset for a zone",
    withRule('from: web, hours: { start: "08:00", end: "09:00", zone: ▸"+01:00" }'),
    "bad-zone",
  ],
  ["grace for ever", withOrders("  orders: { owner: a, grace: ▸400d }"), "bad-duration"],
  [
    "stale and then what",
    withOrders("  orders: { owner: a, staleAfter: { after: 1h, then: ▸panic } }"),
    "bad-word",
  ],
  ["leaves that outlive a day", `lifetimes: { leaf: 2d }\n${withOrders("")}`, "1:20 bad-duration"],
  ["leaves that die at once", `lifetimes: { leaf: 1m }\n${withOrders("")}`, "1:20 bad-duration"],
  ["host bits", `networks: { mesh: "10.1.2.3/8" }\n${withOrders("")}`, "1:19 bad-cidr"],
  [
    "another spelling of a range",
    `networks: { mesh: "FD00::/8" }\n${withOrders("")}`,
    "1:19 bad-cidr",
  ],
  ["no range at all", `networks: { mesh: "10.0.0.0/33" }\n${withOrders("")}`, "1:19 bad-cidr"],
  [
    "a network called public",
    `networks: { public: "10.0.0.0/8" }\n${withOrders("")}`,
    "1:13 bad-name",
  ],
  [
    "no address before the port",
    `planes: { data: { bind: ":7443" } }\n${withOrders("")}`,
    "1:25 bad-address",
  ],
  [
    "a star for an address",
    `planes: { data: { bind: "*:7443" } }\n${withOrders("")}`,
    "1:25 bad-address",
  ],
  [
    "a hexadecimal address",
    `planes: { data: { bind: "0x0.0:7443" } }\n${withOrders("")}`,
    "1:25 bad-address",
  ],
  ["a bare port", `planes: { data: { bind: 7443 } }\n${withOrders("")}`, "1:25 bad-address"],
  [
    "a danger without a date",
    `planes: { data: { bind: "0.0.0.0:1", unsafeBind: { why: x } } }\n${withOrders("")}`,
    "1:50 missing-key",
  ],
  [
    "another plane",
    `planes: { date: { bind: "127.0.0.1:1" } }\n${withOrders("")}`,
    "1:11 unknown-key",
  ],
  [
    "a host name with a port",
    withOrders('  orders: { owner: a, hosts: [▸"a.example:80"] }'),
    "bad-host",
  ],
  ["a wildcard host name", withOrders('  orders: { owner: a, hosts: [▸"*.example"] }'), "bad-host"],
];
for (const [claim, marked, ...codes] of mistakes)
  test(`refused at its place: ${claim}`, () => {
    const text = marked.replace("▸", "");
    const before = marked.split("▸", 1)[0]?.split("\n") ?? [];
    const place = `${before.length}:${(before.at(-1)?.length ?? 0) + 1}`;
    const expected = text === marked ? codes : codes.map((code) => `${place} ${code}`);
    assert.deepEqual(told(text), expected);
    assert.equal(parse(text).register, undefined);
  });

const hints: readonly [text: string, hint: RegExp][] = [
  [withOrders("  orders: { ownr: a }"), /did you mean "owner"/],
  [withRule("callers: web"), /did you mean "from"/],
  [withPort('backend: "a:1"'), /did you mean "upstreams"/],
  [withRule("from: web, methods: [get]"), /did you mean "GET"/],
  [withRule('from: web, paths: ["/a/<id>"]'), /did you mean "\/a\/:id"/],
  [withRule("from: service/web"), /write "web"/],
  [withPort('upstreams: ["https://a/x"]'), /write "a:443"/],
  [`networks: { mesh: "10.1.2.3/8" }\n${withOrders("")}`, /did you mean 10\.0\.0\.0\/8/],
  [withOrders("  orders: { owner: a, grace: 24 hours }"), /did you mean 24h/],
  [withRule("from: *"), /quote it: "\*"/],
];
for (const [text, hint] of hints)
  test(`the way out is told: ${hint.source}`, () =>
    assert.match(
      parse(text)
        .problems.map((each) => each.hint)
        .join(),
      hint,
    ));

test("a byte order mark and CRLF are no mistakes, and move no place", () => {
  const text = fixture("today.yaml");
  assert.deepEqual(told(`\uFEFF${text.replaceAll("\n", "\r\n")}`), []);
  assert.deepEqual(told("\uFEFFversion: 2\r\ntrustDomain: T\r\nservices: {}"), [
    "1:10 bad-version",
    "2:14 bad-trust-domain",
  ]);
});

test("anchors may be used, bombs are not expanded", () => {
  assert.deepEqual(told(withOrders("  a: { owner: &o x }\n  b: { owner: *o }")), []);
  let bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (let i = 1; i < 10; i++)
    bomb += `a${i}: &a${i} [${Array(10)
      .fill(`*a${i - 1}`)
      .join(", ")}]\n`;
  const began = process.hrtime.bigint();
  assert.ok(told(bomb).some((each) => each.endsWith(" too-large")));
  assert.ok(process.hrtime.bigint() - began < 5_000_000_000n);
  assert.ok(told("a: &a [*a]\n").includes("1:8 yaml-alias"), "nothing contains itself");
});

test("what is too large or too deep is said, not tried", () => {
  assert.deepEqual(
    parse(" ".repeat(fileBytesMax + 1)).problems.map((each) => each.code),
    ["too-large"],
  );
  assert.ok(
    told(`a: ${"[".repeat(40)}${"]".repeat(40)}`).some((each) => each.endsWith("too-deep")),
  );
  assert.ok(parse("[".repeat(100_000)).problems.length > 0);
  assert.ok(parse(`a: ${"- ".repeat(20_000)}`).problems.length > 0);
});

test("a file full of mistakes is told as far as anybody reads", () => {
  const { problems } = parse(`a: {${"b: 1, ".repeat(130_000)}}`);
  assert.equal(problems.length, 2001);
  assert.equal(problems.at(-1)?.code, "too-many");
});

test("files of teams are merged in the order of their names", () => {
  const { register, problems, locate } = parseRegister([
    { name: "sallyport.yaml", text: withOrders("") },
    { name: "sallyport.d/b.yaml", text: "services:\n  b: { owner: b }\n" },
    {
      name: "sallyport.d/a.yaml",
      text: 'version: 1\nnetworks: { lan: "10.0.0.0/8" }\nservices:\n  a: { owner: a }\n',
    },
  ]);
  assert.deepEqual(problems, []);
  assert.deepEqual(Object.keys(register?.services ?? {}), ["web", "a", "b"]);
  assert.deepEqual(register?.networks.lan, ["10.0.0.0/8"]);
  assert.equal(locate("services.b.owner")?.file, "sallyport.d/b.yaml");
  assert.equal(locate("services.b.allow[3].paths")?.line, 2, "the nearest that is written");
});

test("two owners of one name are told with both places", () => {
  const { problems, register } = parseRegister([
    { name: "main.yaml", text: withOrders("") },
    { name: "d/a.yaml", text: "services:\n  web: { owner: thief }\nplanes: {}\ntrustDomain: x\n" },
  ]);
  assert.equal(register, undefined);
  assert.deepEqual(
    problems.map((each) => `${each.file}:${each.line}:${each.column} ${each.code}`),
    ["d/a.yaml:3:1 unknown-key", "d/a.yaml:4:1 unknown-key", "d/a.yaml:2:3 defined-twice"],
  );
  assert.match(problems[2]?.message ?? "", /main\.yaml:4/);
});

test("no mutation of a register makes the parser throw, and no problem is without its words", () => {
  const text = fixture("today.yaml");
  const bit = fc.constantFrom(
    ..."{}[]:,-*&!|>'\"%@`#?~\t\n \0\uFEFF\uD800é0",
    "<<: ",
    "null",
    "---\n",
  );
  const cut = fc.record({
    at: fc.nat(text.length),
    drop: fc.nat(12),
    put: fc.string({ unit: bit, maxLength: 4 }),
  });
  fc.assert(
    fc.property(fc.array(cut, { minLength: 1, maxLength: 6 }), (cuts) => {
      let mutated = text;
      for (const { at, drop, put } of cuts)
        mutated = mutated.slice(0, at) + put + mutated.slice(at + drop);
      const { register, problems } = parse(mutated);
      assert.ok(register || problems.length > 0);
      for (const problem of problems) {
        assert.ok(problem.message.length > 0 && problem.code.length > 0);
        assert.ok(problem.line === undefined || problem.line >= 1);
      }
    }),
    { numRuns: 400, seed: 7 },
  );
});

test("more gated ports than a gate can keep certificates for are refused, at the first one too many", () => {
  const header = "version: 1\ntrustDomain: shop.internal\nservices: {}\n";
  // In parts: one file holds at most a mebibyte, and so many values.
  const files = Array.from({ length: 21 }, (_, part) => ({
    name: `part-${part < 10 ? "0" : ""}${part}.yaml`,
    text: `services:\n${Array.from({ length: part < 20 ? 1_000 : 1 }, (_, i) => `  s${part}-${i}: { owner: t, upstreams: ["127.0.0.1:9"] }\n`).join("")}`,
  }));
  const all = parseRegister([{ name: "sallyport.yaml", text: header }, ...files]);
  const problem = all.problems.find(({ code }) => code === "too-many");
  assert.deepEqual([problem?.code, problem?.file, problem?.line], ["too-many", "part-20.yaml", 2]);
  const fits = parseRegister([{ name: "sallyport.yaml", text: header }, ...files.slice(0, 20)]);
  assert.equal(
    fits.problems.some(({ code }) => code === "too-many"),
    false,
  );
});
