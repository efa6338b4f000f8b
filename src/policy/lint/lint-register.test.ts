import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { checkRegister } from "./check-register.ts";
import { patternCovers } from "./covers.ts";

const nowMs = Date.parse("2026-11-22T12:00:00Z");
const fixture = (name: string) =>
  readFileSync(new URL(`../../../test/fixtures/registers/${name}`, import.meta.url), "utf8");
const check = (text: string) => checkRegister([{ name: "r.yaml", text }], nowMs);
const told = (text: string) =>
  check(text).problems.map((each) => `${each.line}:${each.column} ${each.severity} ${each.code}`);

test("a register of what works today has nothing to complain about", () => {
  const { register, problems } = check(fixture("today.yaml"));
  assert.deepEqual(problems, []);
  assert.ok(register);
});

test("the design's register lists its lines that are not supported yet, and the plaintext off loopback", () => {
  assert.deepEqual(told(fixture("design.yaml")), [
    "16:29 error not-supported-yet",
    "28:40 error not-supported-yet",
    "28:58 error plaintext-off-loopback",
  ]);
});

test("twenty planted mistakes are told in one run, each at its place", () => {
  assert.deepEqual(told(fixture("twenty-mistakes.yaml")), [
    "2:14 error bad-trust-domain",
    "4:10 error bad-cidr",
    "7:20 error bind-wildcard",
    "8:20 error same-address",
    "8:45 error unknown-network",
    "10:10 error unknown-key",
    "11:3 error bad-name",
    "15:46 error bad-address",
    "16:28 error not-supported-yet",
    "17:37 error out-of-range",
    "18:31 error bad-duration",
    "20:28 error unknown-caller",
    "20:43 error bad-method",
    "21:15 error duplicate-rule",
    "21:41 error bad-path",
    "22:29 error rule-never-matches",
    "23:41 error unknown-port",
    "23:59 error bad-date",
    "24:91 error bad-zone",
    "25:42 error upstream-forbidden",
  ]);
});

/** Around one service `orders` that `web` and `blog` may call; what is told about anything else is left out. */
const rules = (text: string) =>
  `version: 1
trustDomain: t.internal
services:
  web: { owner: a }
  blog: { owner: a }
  orders:
    owner: a
    ports: { http: { upstreams: ["127.0.0.1:9001"] }, two: { upstreams: ["127.0.0.1:9002"] }, raw: { via: direct, port: 1 } }
${text}`;
const allow = (...texts: string[]) =>
  rules(`    allow: [${texts.map((each, i) => `{ id: r${i}, ${each} }`)}]`);
const withDeny = (deny: string, rule: string) =>
  rules(`    deny: [{ id: no, ${deny} }]\n    allow: [{ id: yes, ${rule} }]`);

const ruleCases: readonly [claim: string, text: string, ...codes: string[]][] = [
  ["one rule", allow("from: web")],
  ["two callers", allow("from: web", "from: blog")],
  ["nobody", allow("from: []"), "error rule-never-matches"],
  ["no method", allow("from: web, methods: []"), "error rule-never-matches"],
  ["no path", allow("from: web, paths: []"), "error rule-never-matches"],
  ["a port that is not gated", allow("from: web, ports: [raw]"), "error rule-never-matches"],
  ["a port that is not there", allow("from: web, ports: [rwa]"), "error unknown-port"],
  ["a stranger", allow("from: wbe"), "error unknown-caller"],
  ["all, then a part", allow("from: web", "from: web, paths: [/x]"), "error rule-shadowed"],
  ["a part, then all", allow("from: web, paths: [/x]", "from: web"), "warning rule-shadowed"],
  ["a limited part, then all", allow("from: web, paths: [/x], limit: { rate: 1/s }", "from: web")],
  [
    "all, then a limited part",
    allow("from: web", "from: web, paths: [/x], limit: { rate: 1/s }"),
    "error rule-shadowed",
  ],
  ["everybody, then one", allow('from: "*"', "from: web"), "error rule-shadowed"],
  ["the same twice", allow("from: web", "from: web"), "error rule-shadowed"],
  ["another port", allow("from: web", "from: web, ports: [two]")],
  ["other methods", allow("from: web, methods: [GET]", "from: web, methods: [POST]")],
  [
    "HEAD is in GET",
    allow("from: web, methods: [GET]", "from: web, methods: [HEAD]"),
    "error rule-shadowed",
  ],
  [
    "GET is not in HEAD",
    allow("from: web, methods: [HEAD]", "from: web, methods: [GET]"),
    "warning rule-shadowed",
  ],
  [
    "hours cover nothing for good",
    allow('from: web, hours: { start: "08:00", end: "09:00" }', "from: web, paths: [/x]"),
  ],
  [
    "what ends before covers nothing for good",
    allow("from: web, expires: 2027-06-01", "from: web, paths: [/x]"),
  ],
  [
    "what ends later covers",
    allow("from: web, expires: 2027-06-01", "from: web, paths: [/x], expires: 2027-05-01"),
    "error rule-shadowed",
  ],
  [
    "what has expired covers nothing",
    allow("from: web, expires: 2026-01-01", "from: web, paths: [/x]"),
    "time expired",
  ],
  ["deny swallows", withDeny('from: "*"', "from: web"), "error rule-never-matches"],
  [
    "deny swallows a path",
    withDeny('from: "*", paths: ["/a/**"]', 'from: web, paths: ["/a/:id"]'),
    "error rule-never-matches",
  ],
  ["deny takes a part", withDeny('from: "*", paths: ["/a/**"]', "from: web")],
  ["deny of somebody else", withDeny("from: blog", "from: web")],
  [
    "deny for some hours",
    withDeny('from: web, hours: { start: "08:00", end: "09:00" }', "from: web"),
  ],
];
for (const [claim, text, ...codes] of ruleCases)
  test(`rules: ${claim}`, () => {
    const about = check(text).problems.filter(
      (each) => !/nobody-may-call|caller-never-used/.test(each.code),
    );
    assert.deepEqual(
      about.map((each) => `${each.severity} ${each.code}`),
      codes,
    );
    for (const each of about) assert.ok((each.line ?? 0) >= 8, "told where it is");
  });

test("rules: what would take minutes to compare is not compared, and that is told", () => {
  const paths = (i: number) => Array.from({ length: 100 }, (_, k) => `/a${i}-${k}/b`).join(", ");
  const text = allow(...Array.from({ length: 101 }, (_, i) => `from: web, paths: [${paths(i)}]`));
  assert.ok(told(text).some((each) => each.endsWith("warning rules-not-compared")));
});

const around = (text: string) =>
  `version: 1\ntrustDomain: t.internal\n${text}\nservices: { web: { owner: a }, orders: { owner: a, upstreams: ["127.0.0.1:9001"], allow: [{ id: r, from: web }] } }\n`;
const upstream = (text: string) =>
  `version: 1\ntrustDomain: t.internal\nservices: { web: { owner: a }, orders: { owner: a, ${text}, allow: [{ id: r, from: web }] } }\n`;

const dangers: readonly [claim: string, text: string, ...codes: string[]][] = [
  [
    "private addresses are free",
    around('planes: { data: { bind: ["10.0.0.1:7443", "[fd00::1]:7443"] } }'),
  ],
  [
    "a public address",
    around('planes: { data: { bind: "203.0.114.9:7443" } }'),
    "error bind-public",
  ],
  [
    "every IPv4 address",
    around('planes: { data: { bind: "0.0.0.0:7443" } }'),
    "error bind-wildcard",
  ],
  ["every IPv6 address", around('planes: { data: { bind: "[::]:7443" } }'), "error bind-wildcard"],
  [
    "a mapped wildcard",
    around('planes: { data: { bind: "[::ffff:0.0.0.0]:7443" } }'),
    "error bind-wildcard",
  ],
  ["a decoy in public", around('planes: { decoys: ["0.0.0.0:5432"] }'), "error bind-wildcard"],
  [
    "with its reason",
    around(
      'planes: { data: { bind: "0.0.0.0:7443", unsafeBind: { why: x, expires: 2027-06-01 } } }',
    ),
    "warning unsafe-bind",
  ],
  [
    "with a reason that has run out",
    around(
      'planes: { data: { bind: "0.0.0.0:7443", unsafeBind: { why: x, expires: 2026-06-01 } } }',
    ),
    "time expired",
  ],
  [
    "with a reason that soon will",
    around(
      'planes: { data: { bind: "0.0.0.0:7443", unsafeBind: { why: x, expires: 2026-11-25 } } }',
    ),
    "warning unsafe-bind",
    "time expires-within-7d",
  ],
  [
    "a reason without a danger",
    around(
      'planes: { data: { bind: "10.0.0.1:7443", unsafeBind: { why: x, expires: 2027-06-01 } } }',
    ),
    "warning unsafe-bind-unneeded",
  ],
  ["shared space", around('planes: { data: { bind: "100.64.0.1:7443" } }'), "error bind-shared"],
  [
    "shared space in a network",
    around('networks: { cg: "100.64.0.0/16" }\nplanes: { data: { bind: "100.64.0.1:7443" } }'),
  ],
  [
    "a network too wide",
    around('networks: { all: "10.0.0.0/7" }\nplanes: { data: { bind: "all:7443" } }'),
    "error bind-too-wide",
  ],
  [
    "a network with public space",
    around('networks: { lan: "192.168.0.0/15" }\nplanes: { data: { bind: "lan:7443" } }'),
    "error bind-holds-public",
  ],
  ["a network that nothing binds to may be wide", around('networks: { internet: "0.0.0.0/0" }')],
  [
    "a network nobody knows",
    around('networks: { mesh: "10.0.0.0/8" }\nplanes: { data: { bind: "mseh:7443" } }'),
    "error unknown-network",
  ],
  ["a source nobody knows", around("planes: { data: { from: [mesh] } }"), "error unknown-network"],
  [
    "an exposure nobody knows",
    around("").replace("upstreams", "exposure: mesh, upstreams"),
    "error unknown-network",
  ],
  [
    "two doors on one address",
    around('planes: { control: { bind: "127.0.0.1:7443" } }'),
    "error same-address",
  ],
  ["a decoy on a door", around('planes: { decoys: ["localhost:7440"] }'), "error same-address"],
  [
    "an address inside a network's bind",
    around(
      'networks: { mesh: "10.0.0.0/8" }\nplanes: { data: { bind: "mesh:1" }, join: { bind: "10.1.2.3:1" } }',
    ),
    "error same-address",
  ],
  [
    "port 0 is always another",
    around('planes: { data: { bind: "127.0.0.1:0" }, control: { bind: "127.0.0.1:0" } }'),
  ],
  [
    "an upstream on loopback",
    upstream('upstreams: ["127.0.0.1:1", "[::1]:1", "localhost:2", "unix:/run/x"]'),
  ],
  [
    "an upstream further away",
    upstream('upstreams: ["10.0.0.9:1"]'),
    "error plaintext-off-loopback",
  ],
  ["an upstream by name", upstream('upstreams: ["orders:1"]'), "error plaintext-off-loopback"],
  [
    "with its reason",
    upstream('upstreams: ["orders:1"], plaintext: { why: x, expires: 2027-06-01 }'),
  ],
  [
    "a reason for nothing",
    upstream('upstreams: ["127.0.0.1:1"], plaintext: { why: x, expires: 2027-06-01 }'),
    "warning plaintext-unneeded",
  ],
  [
    "the metadata service",
    upstream('upstreams: ["169.254.169.254:80"]'),
    "error upstream-forbidden",
  ],
  [
    "the metadata service, IPv6",
    upstream('upstreams: ["[fd00:ec2::254]:80"]'),
    "error upstream-forbidden",
  ],
  ["a link-local upstream", upstream('upstreams: ["[fe80::1]:80"]'), "error upstream-forbidden"],
  ["a wildcard upstream", upstream('upstreams: ["0.0.0.0:80"]'), "error upstream-forbidden"],
  [
    "a door of ours as an upstream",
    upstream('upstreams: ["127.0.0.1:7440"]'),
    "error upstream-forbidden",
  ],
  ["a door of ours by name", upstream('upstreams: ["localhost:7443"]'), "error upstream-forbidden"],
  [
    "one upstream twice",
    upstream('upstreams: ["127.0.0.1:1", "localhost:1"]'),
    "error same-address",
  ],
  [
    "nobody may call",
    upstream('upstreams: ["127.0.0.1:1"]').replace(/, allow.*\]/, ""),
    "warning caller-never-used",
    "warning nobody-may-call",
  ],
  [
    "a host name that is a service",
    upstream('hosts: [web], upstreams: ["127.0.0.1:1"]'),
    "error host-taken",
  ],
];
for (const [claim, text, ...codes] of dangers)
  test(`dangers: ${claim}`, () =>
    assert.deepEqual(
      check(text).problems.map((each) => `${each.severity} ${each.code}`),
      codes,
    ));

const days: readonly [claim: string, expires: string, ...codes: string[]][] = [
  ["a month and a day before", "2026-12-23T12:00:00Z"],
  ["a month before", "2026-12-22T12:00:00Z", "expires-within-30d"],
  ["a week before", "2026-11-29T12:00:00Z", "expires-within-7d"],
  ["a day before", "2026-11-23T12:00:00Z", "expires-within-1d"],
  ["on the moment", "2026-11-22T12:00:00Z", "expired"],
];
for (const [claim, expires, ...codes] of days)
  test(`time: ${claim}`, () => {
    const { register, problems } = check(
      upstream('upstreams: ["127.0.0.1:1"]').replace("from: web", `from: web, expires: ${expires}`),
    );
    assert.deepEqual(
      problems.map((each) => each.code),
      codes,
    );
    assert.ok(register, "time never refuses a register");
  });

const patterns: readonly [outer: string, inner: string, covered: boolean][] = [
  ["/a/**", "/a", true],
  ["/a/**", "/a/b/c", true],
  ["/a/**", "/a/:id/**", true],
  ["/a/:id", "/a/7", true],
  ["/a/:id", "/a/:other", true],
  ["/**", "/", true],
  ["/a/:id", "/a", false],
  ["/a/:id", "/a/", false],
  ["/a/:id", "/a/7/b", false],
  ["/a/7", "/a/:id", false],
  ["/a", "/a/**", false],
  ["/a/:id", "/a/**", false],
  ["/a", "/A", false],
  ["/a", "/a/", false],
  ["/ab/**", "/a", false],
];
for (const [outer, inner, covered] of patterns)
  test(`${outer} ${covered ? "covers" : "does not cover"} ${inner}`, () =>
    assert.equal(patternCovers(outer, inner), covered));
