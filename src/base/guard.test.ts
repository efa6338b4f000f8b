import assert from "node:assert/strict";
import { createServer } from "node:net";
import { test } from "node:test";
import {
  admitsFrom,
  assertBound,
  type BindRequest,
  type BindWorld,
  type Endpoint,
  followBinds,
  type LocalAddress,
  resolveBind,
} from "./guard.ts";

const now = Date.UTC(2026, 5, 1);
const stands = { why: "behind the load balancer", expiresMs: now + 1 };
const expired = { why: "it was only for a week", expiresMs: now };

const local = (address: string, cidr?: string): LocalAddress => ({
  address,
  family: address.includes(":") ? "IPv6" : "IPv4",
  internal: address.startsWith("127.") || address === "::1",
  cidr: cidr ?? null,
});

const interfaces = [
  local("127.0.0.1", "127.0.0.1/8"),
  local("::1", "::1/128"),
  local("10.20.0.5", "10.20.0.5/16"),
  local("fd00:20::5", "fd00:20::5/64"),
  local("192.168.7.7", "192.168.7.7/24"),
  local("100.64.0.9", "100.64.0.9/10"),
  local("203.0.114.5"),
  local("fe80::5%eth0"),
];

const world: BindWorld = {
  networks: {
    mesh: ["10.20.0.0/16", "fd00:20::/48"],
    nowhere: ["10.99.0.0/16"],
    tailnet: ["100.64.0.0/10"],
    wide: ["10.0.0.0/7"],
    wide6: ["fc00::/7"],
    internet: ["0.0.0.0/0", "::/0"],
    someones: ["203.0.114.0/24"],
    wire: ["fe80::/10"],
    broken: ["10.20.0.0/33"],
    empty: [],
  },
  interfaces: () => interfaces,
  resolve: async (host) => {
    const known: Record<string, string[]> = {
      localhost: ["127.0.0.1", "::1"],
      both: ["10.20.0.5", "203.0.114.5"],
      mine: ["10.20.0.5", "fd00:20::5"],
      elsewhere: ["10.20.0.77"],
      anywhere: ["0.0.0.0"],
      mapped: ["::ffff:203.0.114.5"],
      "0x7f.1": ["127.0.0.1"],
    };
    const found = known[host];
    if (!found) throw new Error("ENOTFOUND");
    return found;
  },
  nowMs: now,
};

function bindOf(kind: BindRequest["kind"], host: string, unsafeBind?: BindRequest["unsafeBind"]) {
  const text = `${host}:7443`;
  return { text, host, kind, port: 7443, ...(unsafeBind && { unsafeBind }) };
}

type Row = readonly [
  claim: string,
  kind: BindRequest["kind"],
  host: string,
  excuse: BindRequest["unsafeBind"],
  hosts: readonly string[],
  codes: readonly string[],
];

const none = undefined;
const rows: readonly Row[] = [
  ["loopback is free", "address", "127.0.0.1", none, ["127.0.0.1"], []],
  ["loopback of IPv6 is free", "address", "::1", none, ["::1"], []],
  ["mapped loopback is loopback", "address", "::ffff:127.0.0.1", none, ["127.0.0.1"], []],
  ["a private address is free", "address", "10.20.0.5", none, ["10.20.0.5"], []],
  ["a unique local address is free", "address", "fd00:20::5", none, ["fd00:20::5"], []],
  ["a wildcard is refused", "address", "0.0.0.0", none, [], ["bind-wildcard"]],
  ["the wildcard of IPv6 is refused", "address", "::", none, [], ["bind-wildcard"]],
  ["a mapped wildcard is refused", "address", "::ffff:0.0.0.0", none, [], ["bind-wildcard"]],
  ["an empty host is refused", "address", "", none, [], ["bind-wildcard"]],
  ["an empty host name is refused", "hostname", "", none, [], ["bind-wildcard"]],
  ["0 is refused", "hostname", "0", none, [], ["bind-wildcard"]],
  ["0x0.0 is refused", "hostname", "0x0.0", none, [], ["bind-wildcard"]],
  ["0 is refused whatever excuses it", "hostname", "0", stands, [], ["bind-wildcard"]],
  ["an excused wildcard warns", "address", "0.0.0.0", stands, ["0.0.0.0"], ["unsafe-bind"]],
  ["an expired excuse closes", "address", "0.0.0.0", expired, [], ["unsafe-bind-expired"]],
  ["an expired excuse harms nobody safe", "address", "127.0.0.1", expired, ["127.0.0.1"], []],
  ["a public address is refused", "address", "203.0.114.5", none, [], ["bind-public"]],
  ["so is a mapped one", "address", "::ffff:203.0.114.5", none, [], ["bind-public"]],
  ["so is link-local", "address", "fe80::5%eth0", none, [], ["bind-link-local"]],
  ["so is multicast", "address", "224.0.0.1", none, [], ["bind-multicast"]],
  ["so is metadata", "address", "169.254.169.254", none, [], ["bind-metadata"]],
  ["so is 6to4 around loopback", "address", "2002:7f00:1::", none, [], ["bind-reserved"]],
  ["a name posing as an address", "address", "localhost", none, [], ["bind-not-an-address"]],
  ["an octal spelling", "address", "0127.0.0.1", none, [], ["bind-not-an-address"]],
  ["shared space inside a network", "address", "100.64.0.9", none, ["100.64.0.9"], []],
  ["a network is all its addresses here", "network", "mesh", none, ["10.20.0.5", "fd00:20::5"], []],
  ["shared space by name", "network", "tailnet", none, ["100.64.0.9"], []],
  ["no address here", "network", "nowhere", none, [], ["bind-nothing-here"]],
  ["an empty network", "network", "empty", none, [], ["bind-nothing-here"]],
  ["an unknown network", "network", "mash", none, [], ["bind-unknown-network"]],
  ["a name every object has", "network", "constructor", none, [], ["bind-unknown-network"]],
  [
    "a range that is none",
    "network",
    "broken",
    none,
    [],
    ["bind-bad-network", "bind-nothing-here"],
  ],
  ["too wide", "network", "wide", none, [], ["bind-too-wide"]],
  ["too wide for IPv6", "network", "wide6", none, [], ["bind-too-wide"]],
  [
    "a network with public space",
    "network",
    "someones",
    none,
    [],
    ["bind-holds-public", "bind-public"],
  ],
  [
    "an expired excuse for it",
    "network",
    "someones",
    expired,
    [],
    ["unsafe-bind-expired", "unsafe-bind-expired"],
  ],
  [
    "an excuse for it",
    "network",
    "someones",
    stands,
    ["203.0.114.5"],
    ["unsafe-bind", "unsafe-bind"],
  ],
  ["a link-local network", "network", "wire", none, [], ["bind-too-wide", "bind-link-local"]],
  ["a host name of this machine", "hostname", "mine", none, ["10.20.0.5", "fd00:20::5"], []],
  ["localhost", "hostname", "localhost", none, ["127.0.0.1", "::1"], []],
  ["a name that is public as well", "hostname", "both", none, [], ["bind-public"]],
  ["a name for a mapped public address", "hostname", "mapped", none, [], ["bind-public"]],
  ["a name for every address", "hostname", "anywhere", none, [], ["bind-wildcard"]],
  ["a name for another machine", "hostname", "elsewhere", none, [], ["bind-not-here"]],
  ["a name nobody knows", "hostname", "gone", none, [], ["bind-unresolved"]],
  [
    "that, and its time is over",
    "hostname",
    "gone",
    expired,
    [],
    ["bind-unresolved", "unsafe-bind-expired"],
  ],
  ["a number is judged as what it resolves to", "hostname", "0x7f.1", none, ["127.0.0.1"], []],
];

for (const [claim, kind, host, excuse, hosts, codes] of rows) {
  test(`${claim} (${kind} ${JSON.stringify(host)})`, async () => {
    const { addresses, problems } = await resolveBind(bindOf(kind, host, excuse), world);
    assert.deepEqual(
      addresses,
      hosts.map((one) => ({ host: one, port: 7443 })),
    );
    assert.deepEqual(
      problems.map((problem) => problem.code),
      codes,
    );
    for (const problem of problems) assert.match(problem.message, /:7443: /);
  });
}

test("shared space outside every narrow network is refused, also when the internet has a name", async () => {
  const { addresses, problems } = await resolveBind(bindOf("address", "100.64.0.9"), {
    ...world,
    networks: { internet: ["0.0.0.0/0"], mesh: ["10.20.0.0/16"] },
  });
  assert.deepEqual(addresses, []);
  assert.equal(problems[0]?.code, "bind-shared");
});

test("an expiry that is no number closes the door", async () => {
  const excuse = { why: "?", expiresMs: Number.NaN };
  const { addresses } = await resolveBind(bindOf("address", "0.0.0.0", excuse), world);
  assert.deepEqual(addresses, []);
});

test("localhost is 127.0.0.1 alone where there is no IPv6", async () => {
  const { addresses } = await resolveBind(bindOf("hostname", "localhost"), {
    ...world,
    interfaces: () => [local("127.0.0.1")],
  });
  assert.deepEqual(addresses, [{ host: "127.0.0.1", port: 7443 }]);
});

test("a port that is none is refused", async () => {
  for (const port of [-1, 65_536, 1.5, Number.NaN]) {
    const bind = { ...bindOf("address", "127.0.0.1"), port };
    const { addresses } = await resolveBind(bind, world);
    assert.deepEqual(addresses, [], String(port));
  }
});

const bound: readonly (readonly [
  claim: string,
  actual: { address: string; port: number } | string | null,
  allowed: readonly Endpoint[],
  passes: boolean,
])[] = [
  [
    "the address asked for",
    { address: "127.0.0.1", port: 7443 },
    [{ host: "127.0.0.1", port: 7443 }],
    true,
  ],
  ["any port for port 0", { address: "::1", port: 40_123 }, [{ host: "::1", port: 0 }], true],
  [
    "mapped is the same",
    { address: "::ffff:127.0.0.1", port: 1 },
    [{ host: "127.0.0.1", port: 1 }],
    true,
  ],
  [
    "a zone left out by the kernel",
    { address: "fe80::5", port: 1 },
    [{ host: "fe80::5%eth0", port: 1 }],
    true,
  ],
  [
    "another zone",
    { address: "fe80::5%eth1", port: 1 },
    [{ host: "fe80::5%eth0", port: 1 }],
    false,
  ],
  [
    "another port",
    { address: "127.0.0.1", port: 7444 },
    [{ host: "127.0.0.1", port: 7443 }],
    false,
  ],
  [
    "everywhere instead",
    { address: "0.0.0.0", port: 7443 },
    [{ host: "127.0.0.1", port: 7443 }],
    false,
  ],
  [
    "everywhere in IPv6 instead",
    { address: "::", port: 7443 },
    [{ host: "::1", port: 7443 }],
    false,
  ],
  ["no port was bound", { address: "127.0.0.1", port: 0 }, [{ host: "127.0.0.1", port: 0 }], false],
  ["nothing was allowed", { address: "127.0.0.1", port: 7443 }, [], false],
  ["not listening", null, [{ host: "127.0.0.1", port: 0 }], false],
  ["a pipe", "/run/somewhere.sock", [{ host: "127.0.0.1", port: 0 }], false],
];

for (const [claim, actual, allowed, passes] of bound) {
  test(`assertBound ${passes ? "passes" : "throws on"} ${claim}`, () => {
    if (passes) assertBound(actual, allowed);
    else assert.throws(() => assertBound(actual, allowed), /the door stays closed/);
  });
}

test("assertBound holds a real listener to its word", async (t) => {
  const server = createServer();
  t.after(() => server.close());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  assertBound(server.address(), [{ host: "127.0.0.1", port: 0 }]);
  assert.throws(() => assertBound(server.address(), [{ host: "127.0.0.2", port: 0 }]));
});

test("following binds opens what came, closes what went, keeps what stayed", () => {
  const [a, b, c] = ["10.20.0.5", "10.20.0.6", "fd00:20::5"].map((host) => ({ host, port: 7443 }));
  assert.ok(a && b && c);
  assert.deepEqual(followBinds([a, b], { addresses: [b, c], problems: [] }), {
    open: [c],
    close: [a],
  });
});

test("a resolver that is down closes nothing, an expired excuse does", async () => {
  const before = [{ host: "203.0.114.5", port: 7443 }];
  const unresolved = await resolveBind(bindOf("hostname", "gone", stands), world);
  assert.deepEqual(followBinds(before, unresolved), { open: [], close: [] });
  const over = await resolveBind(bindOf("hostname", "gone", expired), world);
  assert.deepEqual(followBinds(before, over), { open: [], close: before });
  const left = await resolveBind(bindOf("network", "nowhere"), world);
  assert.deepEqual(followBinds(before, left), { open: [], close: before });
});

const peers: readonly (readonly [
  claim: string,
  from: readonly string[],
  listener: { readonly bind: BindRequest; readonly host: string },
  peer: string,
  admitted: boolean,
])[] = [
  [
    "loopback on loopback",
    [],
    { bind: bindOf("address", "127.0.0.1"), host: "127.0.0.1" },
    "127.0.0.9",
    true,
  ],
  [
    "mapped loopback on loopback",
    [],
    { bind: bindOf("address", "::1"), host: "::1" },
    "::ffff:127.0.0.1",
    true,
  ],
  [
    "a neighbour on loopback",
    [],
    { bind: bindOf("address", "127.0.0.1"), host: "127.0.0.1" },
    "10.20.0.5",
    false,
  ],
  [
    "a member on the network's bind",
    [],
    { bind: bindOf("network", "mesh"), host: "10.20.0.5" },
    "10.20.9.9",
    true,
  ],
  [
    "the other family of the network",
    [],
    { bind: bindOf("network", "mesh"), host: "10.20.0.5" },
    "fd00:20::9",
    true,
  ],
  [
    "a stranger on the network's bind",
    [],
    { bind: bindOf("network", "mesh"), host: "10.20.0.5" },
    "10.21.0.1",
    false,
  ],
  [
    "loopback on the network's bind",
    [],
    { bind: bindOf("network", "mesh"), host: "10.20.0.5" },
    "127.0.0.1",
    false,
  ],
  [
    "the network around an address",
    [],
    { bind: bindOf("address", "10.20.0.5"), host: "10.20.0.5" },
    "10.20.1.1",
    true,
  ],
  [
    "beyond the network around it",
    [],
    { bind: bindOf("address", "10.20.0.5"), host: "10.20.0.5" },
    "8.8.8.8",
    false,
  ],
  [
    "the subnet where no network is named",
    [],
    { bind: bindOf("address", "192.168.7.7"), host: "192.168.7.7" },
    "192.168.7.9",
    true,
  ],
  [
    "beyond the subnet",
    [],
    { bind: bindOf("address", "192.168.7.7"), host: "192.168.7.7" },
    "192.168.8.9",
    false,
  ],
  [
    "itself, where nothing is known",
    [],
    { bind: bindOf("address", "172.16.0.1"), host: "172.16.0.1" },
    "172.16.0.2",
    false,
  ],
  [
    "anybody, where that is spelled out",
    [],
    { bind: bindOf("address", "0.0.0.0", stands), host: "0.0.0.0" },
    "8.8.8.8",
    true,
  ],
  [
    "no text that is no address, even there",
    [],
    { bind: bindOf("address", "0.0.0.0", stands), host: "0.0.0.0" },
    "8.8.8",
    false,
  ],
  [
    "nobody, where it is not",
    [],
    { bind: bindOf("address", "0.0.0.0"), host: "0.0.0.0" },
    "127.0.0.1",
    false,
  ],
  [
    "who is listed",
    ["mesh"],
    { bind: bindOf("address", "0.0.0.0", stands), host: "0.0.0.0" },
    "10.20.3.3",
    true,
  ],
  [
    "who is not listed",
    ["mesh"],
    { bind: bindOf("address", "0.0.0.0", stands), host: "0.0.0.0" },
    "10.30.3.3",
    false,
  ],
  [
    "a range",
    ["192.168.7.0/24"],
    { bind: bindOf("network", "mesh"), host: "10.20.0.5" },
    "192.168.7.1",
    true,
  ],
  [
    "only the list, when there is one",
    ["192.168.7.0/24"],
    { bind: bindOf("network", "mesh"), host: "10.20.0.5" },
    "10.20.0.6",
    false,
  ],
  ["an empty address", ["mesh"], { bind: bindOf("network", "mesh"), host: "10.20.0.5" }, "", false],
];

for (const [claim, from, listener, peer, admitted] of peers) {
  test(`${admitted ? "admits" : "keeps out"} ${claim}`, () => {
    assert.equal(admitsFrom(from, listener, world)(peer), admitted);
  });
}

test("a from that is no network is a mistake, not an empty list", () => {
  const listener = { bind: bindOf("network", "mesh"), host: "10.20.0.5" };
  assert.throws(() => admitsFrom(["mash"], listener, world), TypeError);
});
