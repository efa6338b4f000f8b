import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Register, Rule, Service } from "../model/register.ts";
import { ask, routeOf } from "./ask.ts";
import { assembleView, compileService } from "./compile.ts";
import { explain } from "./explain.ts";
import { lenientReadings } from "./path.ts";
import type { CompiledPort } from "./view.ts";

const noon = Date.UTC(2026, 10, 18, 12); // a Wednesday
const names = ["web", "billing", "orders"];

function service(rules: readonly Partial<Rule>[]): Service {
  const whole = rules.map(
    (rule, i): Rule => ({ id: `r${i}`, effect: "allow", from: ["*"], ports: ["http"], ...rule }),
  );
  return {
    name: "orders",
    owner: "commerce",
    hosts: [],
    ports: {
      http: {
        name: "http",
        protocol: "http",
        via: "gate",
        exposure: "internal",
        upstreams: [],
        timeouts: { connectMs: 1, responseHeadMs: 1, idleMs: 1 },
      },
    },
    allow: whole.filter((rule) => rule.effect === "allow"),
    deny: whole.filter((rule) => rule.effect === "deny"),
    audit: "required",
    accept: { encodedSlash: false, underscoreHeaders: false, userHeaders: false },
  };
}

function portWith(rules: readonly Partial<Rule>[]): CompiledPort {
  const port = compileService(service(rules), names, () => 0).ports.get("http");
  assert.ok(port);
  return port;
}

type Row = readonly [claim: string, rules: readonly Partial<Rule>[], expected: string | undefined];
const asWeb = (rules: readonly Partial<Rule>[], path = "/orders/7", method = "GET", at = noon) =>
  ask(portWith(rules), "web", method, path, at)?.id;

const rows: readonly Row[] = [
  ["no rule, no permit", [], undefined],
  ["a named caller is let in", [{ from: ["web"] }], "r0"],
  ["a longer name is another caller", [{ from: ["web-2"] }], undefined],
  ["a shorter name is another caller", [{ from: ["we"] }], undefined],
  ["every registered service is let in", [{ from: ["*"] }], "r0"],
  ["a rule for another port says nothing", [{ ports: ["admin"] }], undefined],
  ["another method is not", [{ methods: ["POST"] }], undefined],
  ["the first that matches wins", [{ methods: ["POST"] }, { from: ["web"] }, {}], "r1"],
  ["the first in the register, not the first for the caller", [{}, { from: ["web"] }], "r0"],
  ["deny wins over an earlier allow", [{ from: ["web"] }, { effect: "deny" }], "r1"],
  ["deny for another caller denies nothing", [{}, { effect: "deny", from: ["billing"] }], "r0"],
  ["deny by path", [{}, { effect: "deny", paths: ["/orders/**"] }], "r1"],
  ["deny elsewhere", [{}, { effect: "deny", paths: ["/debug/**"] }], "r0"],
  ["deny alone allows nothing elsewhere", [{ effect: "deny", paths: ["/debug/**"] }], undefined],
  ["an expired rule admits nobody", [{ expiresMs: noon }], undefined],
  ["a rule holds until it expires", [{ expiresMs: noon + 1 }], "r0"],
  ["an expired denial denies nobody", [{}, { effect: "deny", expiresMs: noon }], "r0"],
  ["a denial holds until it expires", [{}, { effect: "deny", expiresMs: noon + 1 }], "r1"],
];
for (const [claim, rules, expected] of rows)
  test(claim, () => assert.equal(asWeb(rules), expected));

const patterns: readonly (readonly [pattern: string, path: string, matches: boolean])[] = [
  ["/orders/**", "/orders", true],
  ["/orders/**", "/orders/", true],
  ["/orders/**", "/orders/7/items", true],
  ["/orders/**", "/ordersx", false],
  ["/orders/**", "/", false],
  ["/orders/**", "/Orders", false],
  ["/orders/**", "/x/orders", false],
  ["/**", "/", true],
  ["/**", "/a/b", true],
  ["/", "/", true],
  ["/", "/a", false],
  ["/orders", "/orders", true],
  ["/orders", "/orders/", false],
  ["/orders", "/orders/7", false],
  ["/orders/", "/orders/", true],
  ["/orders/", "/orders", false],
  ["/orders/:id", "/orders/7", true],
  ["/orders/:id", "/orders/", false],
  ["/orders/:id", "/orders", false],
  ["/orders/:id", "/orders/7/", false],
  ["/orders/:id", "/orders/7/8", false],
  ["/orders/:id/items", "/orders/7/items", true],
  ["/orders/:id/items", "/orders/items", false],
  ["/orders/:id/**", "/orders/7", true],
  ["/orders/:id/**", "/orders/7/8/9", true],
  ["/orders/:id/**", "/orders", false],
  ["/orders/:id/**", "/orders/", false],
  ["/a%2Fb", "/a/b", false],
];
for (const [pattern, path, matches] of patterns)
  test(`${pattern} ${matches ? "matches" : "does not match"} ${path}`, () =>
    assert.equal(asWeb([{ paths: [pattern] }], path), matches ? "r0" : undefined));

test("GET includes HEAD, HEAD does not include GET", () => {
  assert.equal(asWeb([{ methods: ["GET"] }], "/", "HEAD"), "r0");
  assert.equal(asWeb([{ methods: ["HEAD"] }], "/", "GET"), undefined);
  assert.equal(asWeb([{ methods: ["GET"] }], "/", "get"), undefined);
});

test("a literal and a variable at one place are both tried", () => {
  const rules = [{ paths: ["/orders/new/x"] }, { paths: ["/orders/:id"] }];
  assert.equal(asWeb(rules, "/orders/new"), "r1");
  assert.equal(asWeb(rules, "/orders/new/x"), "r0");
});

test("a denial also holds for servers that drop parameters; a permission does not", () => {
  const rules: Partial<Rule>[] = [{}, { effect: "deny", paths: ["/debug/**"] }];
  assert.equal(asWeb(rules, "/debug;x=1/vars"), "r1");
  assert.equal(asWeb(rules, "/;/debug"), "r1");
  assert.equal(asWeb(rules, "/debugger;x"), "r0");
  assert.equal(asWeb([{ paths: ["/orders"] }], "/orders;x"), undefined);
});

test("without a clock or a path nothing is allowed", () => {
  for (const at of [Number.NaN, 0, -1]) assert.equal(asWeb([{}], "/", "GET", at), undefined);
  for (const path of ["", "*", "orders"]) assert.equal(asWeb([{}], path), undefined);
});

test("names that every object has are not callers, routes or segments", () => {
  for (const name of ["__proto__", "constructor", "toString"]) {
    assert.equal(ask(portWith([{ from: ["web"] }]), name, "GET", "/", noon), undefined);
    assert.equal(asWeb([{ paths: ["/a"] }], `/${name}`), undefined);
  }
  const header = { epoch: 1, version: 1, at: 0, trustDomain: "t", revocations: [] };
  assert.equal(routeOf(assembleView(header, []), "constructor"), undefined);
});

const minute = (clock: string) => Number(clock.slice(0, 2)) * 60 + Number(clock.slice(3));
const hours = (days: readonly number[], start: string, end: string, zone: string) => ({
  days,
  startMinute: minute(start),
  endMinute: minute(end),
  zone,
});
const weekdays = [1, 2, 3, 4, 5];
const office = hours(weekdays, "08:00", "18:00", "UTC");
const night = hours([5], "22:00", "06:00", "Europe/Berlin");
const early = hours([0, 1, 2, 3, 4, 5, 6], "02:00", "03:00", "Europe/Berlin");
const times: readonly (readonly [string, ReturnType<typeof hours>, string, boolean])[] = [
  ["the first minute is in", office, "2026-11-18T08:00:00Z", true],
  ["the last second is in", office, "2026-11-18T17:59:59Z", true],
  ["the end is out", office, "2026-11-18T18:00:00Z", false],
  ["the minute before is out", office, "2026-11-18T07:59:59Z", false],
  ["Saturday is out", office, "2026-11-21T12:00:00Z", false],
  ["the zone's day counts, not UTC's", night, "2026-11-20T21:00:00Z", true],
  ["before a night begins", night, "2026-11-20T20:59:00Z", false],
  ["the morning after belongs to the night before", night, "2026-11-21T04:59:00Z", true],
  ["and ends", night, "2026-11-21T05:00:00Z", false],
  ["the morning before does not", night, "2026-11-20T04:00:00Z", false],
  ["in summer the clock is an hour further", early, "2026-07-01T00:30:00Z", true],
  ["than in winter", early, "2026-12-01T00:30:00Z", false],
  ["an hour that summer time skips: before", early, "2026-03-29T00:59:00Z", false],
  ["an hour that summer time skips: after", early, "2026-03-29T01:00:00Z", false],
  ["an hour that comes twice: first", early, "2026-10-25T00:30:00Z", true],
  ["an hour that comes twice: second", early, "2026-10-25T01:30:00Z", true],
  ["and then is over", early, "2026-10-25T02:00:00Z", false],
];
for (const [claim, window, at, inside] of times)
  test(`hours: ${claim}`, () =>
    assert.equal(
      asWeb([{ hours: window }], "/", "GET", Date.parse(at)),
      inside ? "r0" : undefined,
    ));

// The oracle: every rule one by one, patterns as regular expressions. Slow, and different from the tables in every line.
function oracle(rules: readonly Rule[], caller: string, method: string, path: string, at: number) {
  const matches = (rule: Rule, read: string): boolean =>
    rule.ports.includes("http") &&
    (rule.from.includes("*") || rule.from.includes(caller)) &&
    (!rule.methods ||
      rule.methods.includes(method) ||
      (method === "HEAD" && rule.methods.includes("GET"))) &&
    (!rule.paths || rule.paths.some((pattern) => regExpOf(pattern).test(read))) &&
    (rule.expiresMs === undefined || at < rule.expiresMs);
  // Which of several denials is named: the first for the path as it stands, then for each laxer reading.
  for (const read of [path, ...lenientReadings(path)]) {
    const denial = rules.find((rule) => rule.effect === "deny" && matches(rule, read));
    if (denial) return denial;
  }
  return rules.find((rule) => rule.effect === "allow" && matches(rule, path));
}

function regExpOf(pattern: string): RegExp {
  const tree = pattern.endsWith("/**");
  const source = (tree ? pattern.slice(0, -3) : pattern).replaceAll(/:[a-z]+/g, "[^/]+");
  return new RegExp(`^${source}${tree ? "(/.*)?" : ""}$`);
}

const segment = fc.constantFrom("a", "b", "ab", ":id");
const pattern = fc
  .tuple(fc.array(segment, { maxLength: 3 }), fc.constantFrom("", "/", "/**"))
  .map(([parts, tail]) => (parts.length === 0 ? tail || "/" : `/${parts.join("/")}${tail}`));
const anyRule = fc.record(
  {
    effect: fc.constantFrom("allow", "allow", "deny"),
    from: fc.uniqueArray(fc.constantFrom("web", "billing", "*"), { minLength: 1, maxLength: 2 }),
    ports: fc.constantFrom(["http"], ["http", "admin"], ["admin"]),
    methods: fc.uniqueArray(fc.constantFrom("GET", "POST", "HEAD"), { minLength: 1 }),
    paths: fc.array(pattern, { minLength: 1, maxLength: 3 }),
    expiresMs: fc.constantFrom(noon - 1, noon, noon + 1),
  },
  { requiredKeys: ["effect", "from", "ports"] },
);
const anyRules = fc.array(anyRule, { maxLength: 8 }) as fc.Arbitrary<Partial<Rule>[]>;
const anyPath = fc
  .tuple(fc.array(fc.constantFrom("a", "b", "ab", "a;b", "c"), { maxLength: 4 }), fc.boolean())
  .map(([parts, folder]) => (parts.length === 0 ? "/" : `/${parts.join("/")}${folder ? "/" : ""}`));
const anyCaller = fc.constantFrom("web", "billing", "orders");
const anyMethod = fc.constantFrom("GET", "HEAD", "POST", "PUT");

test("the tables and the oracle give the same answer, and explain gives it too", () => {
  fc.assert(
    fc.property(anyRules, anyCaller, anyMethod, anyPath, (rules, caller, method, path) => {
      const orders = service(rules);
      // In the order of the register: denials have their own list there.
      const whole = [...orders.deny, ...orders.allow];
      const expected = oracle(whole, caller, method, path, noon);
      const found = ask(portWith(rules), caller, method, path, noon);
      assert.equal(found?.id, expected?.id);
      const answer = explain(registerOf(orders), {
        caller,
        method,
        target: `orders${path}`,
        nowMs: noon,
      });
      assert.equal(answer.allowed, found?.effect === "allow");
      assert.equal(answer.rule, found?.id);
      assert.equal(answer.considered.length, whole.filter((r) => r.ports.includes("http")).length);
      for (const { rule, matched, because } of answer.considered) {
        const one = whole.filter(({ id }) => id === rule);
        assert.equal(matched, oracle(one, caller, method, path, noon) !== undefined);
        assert.notEqual(because, "");
      }
    }),
    { numRuns: 1500 },
  );
});

function registerOf(orders: Service): Register {
  const door = { binds: [], from: [] };
  const caller = (name: string): Service => ({ ...service([]), name, ports: {} });
  return {
    version: 1,
    trustDomain: "shop.internal",
    networks: {},
    planes: { control: door, join: door, ops: door, data: door, decoys: [] },
    lifetimes: {},
    services: { web: caller("web"), billing: caller("billing"), orders },
  };
}
