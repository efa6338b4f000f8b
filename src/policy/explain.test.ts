import assert from "node:assert/strict";
import { test } from "node:test";
import type { Port, Register, Rule, Service } from "../model/register.ts";
import { explain } from "./explain.ts";

const noon = Date.UTC(2026, 10, 18, 12); // a Wednesday

function port(name: string, via: Port["via"] = "gate"): Port {
  return {
    name,
    protocol: "http",
    via,
    exposure: "internal",
    upstreams: [],
    timeouts: { connectMs: 1, responseHeadMs: 1, idleMs: 1 },
  };
}

function service(
  name: string,
  ports: readonly Port[],
  rules: readonly Partial<Rule>[] = [],
): Service {
  const whole = rules.map(
    (rule): Rule => ({ id: "r", effect: "allow", from: ["*"], ports: ["http"], ...rule }),
  );
  return {
    name,
    owner: "o",
    hosts: [],
    ports: Object.fromEntries(ports.map((p) => [p.name, p])),
    allow: whole.filter((rule) => rule.effect === "allow"),
    deny: whole.filter((rule) => rule.effect === "deny"),
    audit: "required",
    accept: { encodedSlash: false, underscoreHeaders: false, userHeaders: false },
  };
}

const office = { days: [1, 2, 3, 4, 5], startMinute: 480, endMinute: 1080, zone: "UTC" };
const door = { binds: [], from: [] };
const register: Register = {
  version: 1,
  trustDomain: "shop.internal",
  networks: {},
  planes: { control: door, join: door, ops: door, data: door, decoys: [] },
  lifetimes: {},
  services: {
    web: service("web", []),
    billing: service("billing", [port("a"), port("b")]),
    metrics: service("metrics", [port("http", "direct")]),
    orders: service(
      "orders",
      [port("http"), port("admin")],
      [
        { id: "web-reads", from: ["web"], methods: ["GET"], paths: ["/orders/**"] },
        { id: "billing-all", from: ["billing"], hours: office, expiresMs: Date.UTC(2027, 2, 1) },
        { id: "admin", from: ["web"], ports: ["admin"] },
        { id: "no-debug", effect: "deny", paths: ["/debug/**"] },
      ],
    ),
  },
};

const ask = (caller: string, method: string, target: string, nowMs = noon) =>
  explain(register, { caller, method, target, nowMs });

type Row = readonly [claim: string, asked: Parameters<typeof ask>, code: string, rule?: string];
const rows: readonly Row[] = [
  ["a path", ["web", "GET", "orders/orders/7"], "allowed", "web-reads"],
  ["a URL", ["web", "GET", "http://Orders:7443/orders/7?x=1"], "allowed", "web-reads"],
  ["another port", ["web", "PUT", "admin.orders/x"], "allowed", "admin"],
  [
    "a path that has to be made canonical",
    ["web", "GET", "orders//orders/./7"],
    "allowed",
    "web-reads",
  ],
  ["another method", ["web", "POST", "orders/orders/7"], "not_authorized"],
  ["the root", ["web", "GET", "orders"], "not_authorized"],
  ["deny wins", ["billing", "GET", "orders/debug/vars"], "denied", "no-debug"],
  ["outside hours", ["billing", "GET", "orders/x", noon + 7 * 3_600_000], "not_authorized"],
  ["after expiry", ["billing", "GET", "orders/x", Date.UTC(2027, 2, 1, 12)], "not_authorized"],
  ["a path trick", ["web", "GET", "orders/orders/..%2fadmin"], "bad_path"],
  ["out of the root", ["web", "GET", "orders/../x"], "bad_path"],
  ["an unknown caller", ["wbe", "GET", "orders/orders/7"], "not_registered"],
  [
    "every object's names are no callers",
    ["constructor", "GET", "orders/orders/7"],
    "not_registered",
  ],
  ["an unknown service", ["web", "GET", "order/orders/7"], "unknown_service"],
  ["a service without ports", ["billing", "GET", "web/"], "unknown_service"],
  ["a port no gate serves", ["web", "GET", "metrics/"], "unknown_service"],
  ["one of several ports", ["web", "GET", "billing/"], "unknown_service"],
  ["no service", ["web", "GET", "/orders/7"], "bad_host"],
  ["user information", ["web", "GET", "http://x@orders/orders/7"], "bad_host"],
  ["another scheme", ["web", "GET", "ftp://orders/orders/7"], "bad_host"],
];
for (const [claim, asked, code, rule] of rows)
  test(`explain: ${claim}`, () => {
    const answer = ask(...asked);
    assert.equal(answer.code ?? "allowed", code);
    assert.equal(answer.allowed, code === "allowed");
    assert.equal(answer.rule, rule);
    assert.notEqual(answer.hint, "");
  });

const reasons: readonly (readonly [
  asked: Parameters<typeof ask>,
  rule: string,
  because: string,
])[] = [
  [["web", "GET", "orders/orders/7"], "web-reads", "it allows this"],
  [["web", "GET", "orders/x"], "web-reads", "path /x is not under /orders/**"],
  [["web", "POST", "orders/orders"], "web-reads", "only GET, not POST"],
  [["billing", "GET", "orders/orders"], "web-reads", "for web only, not billing"],
  [
    ["metrics", "PUT", "orders/x"],
    "web-reads",
    "for web only, not metrics; only GET, not PUT; path /x is not under /orders/**",
  ],
  [["web", "GET", "orders/orders"], "billing-all", "for billing only, not web"],
  [
    ["billing", "GET", "orders/x", noon + 7 * 3_600_000],
    "billing-all",
    "outside mon-fri 08:00–18:00 UTC at 2026-11-18 19:00 UTC",
  ],
  [
    ["billing", "GET", "orders/x", Date.UTC(2027, 2, 1, 12)],
    "billing-all",
    "expired on 2027-03-01 00:00 UTC",
  ],
  [["web", "GET", "orders/orders/7"], "no-debug", "path /orders/7 is not under /debug/**"],
  [["billing", "GET", "orders/debug/x"], "no-debug", "it refuses this"],
  [["billing", "GET", "orders/debug/x"], "billing-all", "it matches, but no-debug decides"],
];
for (const [asked, rule, because] of reasons)
  test(`${rule} says: ${because}`, () => {
    const found = ask(...asked).considered.find((one) => one.rule === rule);
    assert.equal(found?.because, because);
  });

test("a caller that a rule names is told that it is the request, one that none names which rule to add", () => {
  assert.match(
    ask("web", "POST", "orders/orders").hint,
    /: web-reads of orders lets web in, but not with this request/,
  );
  assert.match(
    ask("metrics", "GET", "orders/orders").hint,
    /: add an allow rule with from: metrics/,
  );
});

test("denials come first, and rules of other ports do not come at all", () => {
  const { considered } = ask("web", "GET", "orders/orders/7");
  assert.deepEqual(
    considered.map(({ rule }) => rule),
    ["no-debug", "web-reads", "billing-all"],
  );
});
