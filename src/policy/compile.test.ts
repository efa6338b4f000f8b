import assert from "node:assert/strict";
import { test } from "node:test";
import type { Port, Rule, Service } from "../model/register.ts";
import { routeOf } from "./ask.ts";
import { applyPatch, assembleView, compileService, diffServices } from "./compile.ts";
import { packPatch, unpackPatch } from "./pack.ts";

const header = { epoch: 1, version: 1, at: 5, trustDomain: "t", revocations: [] };

function port(name: string, more: Partial<Port> = {}): Port {
  return {
    name,
    protocol: "http",
    via: "gate",
    exposure: "internal",
    upstreams: [],
    timeouts: { connectMs: 1, responseHeadMs: 1, idleMs: 1 },
    ...more,
  };
}

function service(name: string, more: Partial<Service> = {}): Service {
  return {
    name,
    owner: "o",
    hosts: [],
    ports: { http: port("http") },
    allow: [],
    deny: [],
    audit: "required",
    accept: { encodedSlash: false, underscoreHeaders: false, userHeaders: false },
    ...more,
  };
}

const rule: Rule = { id: "r", effect: "allow", from: ["web"], ports: ["http"] };
const compile = (source: Service, callers: readonly string[] = []) =>
  compileService(source, callers, () => 0);

test("names lead to gated ports, and to nothing else", () => {
  const ports = { http: port("http"), admin: port("admin"), raw: port("raw", { via: "direct" }) };
  const compiled = compile(service("orders", { ports, hosts: ["Shop.example"] }));
  const view = assembleView(header, [compiled]);
  const rows: readonly (readonly [string, string | undefined])[] = [
    ["orders", "http"],
    ["http.orders", "http"],
    ["admin.orders", "admin"],
    ["shop.example", "http"],
    ["raw.orders", undefined],
    ["raw", undefined],
    ["Orders", undefined],
    ["billing", undefined],
  ];
  for (const [host, expected] of rows) assert.equal(routeOf(view, host)?.port, expected, host);
});

test("without a main port the bare name leads nowhere", () => {
  const ports = { a: port("a"), b: port("b") };
  const view = assembleView(header, [compile(service("orders", { ports }))]);
  assert.equal(routeOf(view, "orders"), undefined);
  assert.equal(routeOf(view, "a.orders")?.port, "a");
});

test("a host that two services claim leads nowhere, whoever comes first; nobody takes another's name", () => {
  const a = compile(service("a", { hosts: ["shop.example", "b"] }));
  const b = compile(service("b", { hosts: ["shop.example"] }));
  const c = compile(service("c", { hosts: ["shop.example"] }));
  for (const order of [
    [a, b, c],
    [c, b, a],
    [b, c, a],
  ]) {
    const view = assembleView(header, order);
    assert.equal(routeOf(view, "shop.example"), undefined);
    assert.equal(routeOf(view, "b")?.service, "b");
  }
});

const changes: readonly (readonly [claim: string, more: Partial<Service>, same: boolean])[] = [
  ["another owner", { owner: "x" }, true],
  ["another why", { why: "x" }, true],
  ["a rule's why", { allow: [{ ...rule, why: "x" }] }, true],
  ["a rule", { allow: [] }, false],
  ["a rule's caller", { allow: [{ ...rule, from: ["web2"] }] }, false],
  ["a rule's expiry", { allow: [{ ...rule, expiresMs: 1 }] }, false],
  ["another host", { hosts: ["x"] }, false],
  [
    "an upstream",
    { ports: { http: port("http", { upstreams: [{ kind: "unix", path: "/s" }] }) } },
    false,
  ],
  [
    "what is accepted",
    { accept: { encodedSlash: true, underscoreHeaders: false, userHeaders: false } },
    false,
  ],
  ["audit", { audit: "bestEffort" }, false],
];
for (const [claim, more, same] of changes)
  test(`${claim} ${same ? "moves no worker" : "changes the digest"}`, () => {
    const base = compile(service("orders", { allow: [rule] }));
    const next = compile(service("orders", { allow: [rule], ...more }));
    assert.equal(base.digest === next.digest, same);
  });

test("a new service changes those that limit everybody, and no other", () => {
  const limit = { count: 1, perMs: 1, burst: 1 };
  const everybody = service("orders", { allow: [{ ...rule, from: ["*"], limit }] });
  assert.notEqual(compile(everybody, ["a"]).digest, compile(everybody, ["a", "b"]).digest);
  const some = service("orders", { allow: [rule] });
  assert.equal(compile(some, ["a"]).digest, compile(some, ["a", "b"]).digest);
});

test("a patch carries what changed, and the rest is shared", () => {
  const [a, b, c] = [compile(service("a")), compile(service("b")), compile(service("c"))];
  const old = applyPatch(undefined, { ...header, changed: [a, b], removed: [] });
  const b2 = compile(service("b", { allow: [rule] }));
  const diff = diffServices(old.services, [compile(service("a")), b2, c]);
  assert.deepEqual(diff, { changed: [b2, c], removed: [] });
  const next = applyPatch(old, { ...header, version: 2, ...structuredClone(diff) });
  assert.equal(next.services.get("a"), a);
  assert.deepEqual(next.services.get("b"), b2);
  assert.deepEqual(diffServices(next.services, [a, b2]), { changed: [], removed: ["c"] });
  const last = applyPatch(next, { ...header, version: 3, changed: [], removed: ["b", "c"] });
  assert.deepEqual([...last.routes.keys()], ["http.a", "a"]);
  assert.equal(old.services.size, 2, "the old view stays as it was");
});

test("a packed patch unpacks to the same, a piece at a time", async () => {
  const hours = { days: [1], startMinute: 0, endMinute: 60, zone: "UTC" };
  const limit = { count: 1, perMs: 1, burst: 1 };
  const many = Array.from(
    { length: 500 },
    (_, i): Rule => ({
      ...rule,
      id: `r${i}`,
      from: [`c${i % 50}`, "web"],
      paths: [`/a/${i}/:id/**`, "/"],
    }),
  );
  const services = [
    compile(service("web", { ports: {} })),
    compile(
      service("orders", {
        allow: [...many, { ...rule, id: "w", methods: ["GET"], hours, expiresMs: 9, limit }],
        deny: [{ ...rule, id: "d", effect: "deny", from: ["*"], paths: ["/debug/**"] }],
        audit: "bestEffort",
      }),
    ),
  ];
  const patch = { ...header, changed: services, removed: ["gone"] };
  const packed = structuredClone(packPatch(patch));
  let pauses = 0;
  const unpacked = await unpackPatch(packed, async () => pauses++);
  assert.deepEqual(unpacked, patch);
  assert.ok(pauses > 5 && Math.max(...packed.pieces.map((piece) => piece.length)) < 65_536);
  const own = unpacked.changed[1]?.ports.get("http")?.allow.byCaller;
  assert.equal(own?.get("c1"), own?.get("c1"));
});

test("large tables are cut too", async () => {
  const callers = Array.from({ length: 3000 }, (_, i) => `c${i}`);
  const paths = callers.map((name) => `/a/${name}`);
  const allow = [{ ...rule, id: "p", from: ["x"], paths }];
  for (const caller of callers) allow.push({ ...rule, id: caller, from: [caller], paths: ["/b"] });
  const patch = { ...header, changed: [compile(service("orders", { allow }))], removed: [] };
  const packed = packPatch(patch);
  assert.ok(Math.max(...packed.pieces.map((piece) => piece.length)) < 65_536);
  assert.deepEqual(await unpackPatch(packed, async () => {}), patch);
});

test("a change of rules leaves names as they are, and leads them to the new ports", () => {
  const a = compile(service("a", { hosts: ["shop.example", "x.example"] }));
  const b = compile(service("b", { hosts: ["shop.example"] }));
  const old = applyPatch(undefined, { ...header, changed: [a, b], removed: [] });
  const a2 = compile(service("a", { hosts: ["shop.example", "x.example"], allow: [rule] }));
  const next = applyPatch(old, { ...header, changed: [a2], removed: [] });
  assert.deepEqual(next, assembleView(header, [a2, b]));
  assert.equal(routeOf(next, "x.example"), a2.ports.get("http"));
  assert.equal(routeOf(next, "shop.example"), undefined);
});

const unfit: readonly (readonly [claim: string, more: Partial<Service>])[] = [
  ["a star in the middle", { deny: [{ ...rule, paths: ["/debug/*"] }] }],
  ["two stars in the middle", { deny: [{ ...rule, paths: ["/**/debug"] }] }],
  ["a pattern without a slash", { deny: [{ ...rule, paths: ["debug"] }] }],
  ["a pattern that is not canonical", { deny: [{ ...rule, paths: ["/a/../debug"] }] }],
  ["an escaped letter", { deny: [{ ...rule, paths: ["/%64ebug"] }] }],
  ["a query", { deny: [{ ...rule, paths: ["/debug?x"] }] }],
  [
    "a zone that is none",
    { allow: [{ ...rule, hours: { days: [1], startMinute: 0, endMinute: 1, zone: "Mars" } }] },
  ],
  ["a host that is none", { hosts: ["a b"] }],
];
for (const [claim, more] of unfit)
  test(`${claim} is not compiled`, () => {
    assert.throws(() => compile(service("orders", more)));
  });
