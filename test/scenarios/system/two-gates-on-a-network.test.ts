import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import {
  makeNetwork,
  mayMakeNetworks,
  type Network,
  type Started,
} from "../../harness/system-network.ts";
import { mainFile, until } from "../../harness/system-world.ts";

const register = `version: 1
trustDomain: shop.test
networks:
  mesh: ["10.77.0.0/24"]
planes:
  control: { bind: "127.0.0.1:7440" }
  join:    { bind: "mesh:7442" }
  ops:     { bind: "127.0.0.1:7441" }
  data:    { bind: "mesh:7443" }
services:
  web:    { owner: storefront }
  intern: { owner: storefront }
  orders:
    owner: commerce
    ports:
      http: { protocol: http, upstreams: ["127.0.0.1:9001"] }
    allow:
      - { id: readers, from: [web, intern], methods: [GET], paths: ["/orders/**"] }
`;

const upstream = `require("node:http").createServer((q, s) => s.end("order")).listen(9001, "127.0.0.1")`;

const canMake = mayMakeNetworks();
if (!canMake && process.env.CI)
  test("network namespaces can be made in CI", () =>
    assert.fail("this job must run as root on Linux: it proves what happens between machines"));

/** Starts one of our programs on a machine and waits for what it says when it is up. */
async function up(
  net: Network,
  machine: string,
  says: RegExp,
  ...args: string[]
): Promise<Started> {
  const one = net.start(machine, process.execPath, mainFile, ...args);
  await until(
    `${machine} is up`,
    () => {
      if (one.process.exitCode !== null) throw new Error(`${machine} ended: ${one.said()}`);
      return says.test(one.said());
    },
    20_000,
  );
  return one;
}

test("control and two gates, each on a machine of its own", {
  skip: canMake ? false : "needs root and Linux: it makes network namespaces",
}, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "sallyport-network-"));
  t.after(() => rmSync(dir, { recursive: true, force: true, maxRetries: 5 }));
  const at = (...parts: string[]): string => join(dir, ...parts);
  const net = makeNetwork(t, ["control", "east", "west", "shop"]);
  writeFileSync(at("sallyport.yaml"), register);
  for (const gate of ["east", "west"]) net.start(gate, process.execPath, "-e", upstream);

  const operate = async (...args: string[]) =>
    net.sallyport("control", ...args, "--context", at("admin"));
  const ask = async (who: string, gate: string, from = "shop"): Promise<string> => {
    const { stdout, code } = await net.run(
      from,
      "curl",
      ...["-s", "-m", "3", "-w", " %{http_code}", "--cacert", at(who, "bundle.pem")],
      ...["--cert", at(who, "chain.pem"), "--key", at(who, "key.pem")],
      ...["--connect-to", `orders:443:${net.address(gate)}:7443`, "https://orders/orders/7"],
    );
    return code === 0
      ? `${/"code":"(\w+)"/.exec(stdout)?.[1] ?? ""}${stdout.slice(-4)}`.trim()
      : `curl ${code}`;
  };
  const startControl = (...more: string[]) =>
    up(net, "control", /"control":/, "control", "--state", at("control"), "--json", ...more);
  const startGate = (name: string, ...more: string[]) =>
    up(net, name, /"data":/, "gate", "--name", name, "--state", at(name), "--json", ...more);

  // First start: the administrator's token is in a file, gates and callers enrol over the network.
  let control = await startControl(
    "--register",
    at("sallyport.yaml"),
    "--init-admin",
    at("admin.token"),
  );
  const enrolled = await net.sallyport(
    "control",
    "enroll",
    "--token-file",
    at("admin.token"),
    "--out",
    at("admin"),
  );
  assert.equal(enrolled.code, 0, enrolled.stderr);
  const first = await operate("status", "--api", "https://127.0.0.1:7440");
  assert.notEqual(first.code, 3, first.stderr);
  for (const [kind, name] of [
    ["--gate", "east"],
    ["--gate", "west"],
    ["--service", "web"],
    ["--service", "intern"],
  ] as const) {
    const made = await operate("token", "create", kind, name, "--out", at(`${name}.token`));
    assert.equal(made.code, 0, made.stderr);
  }
  let [east, west] = await Promise.all(
    ["east", "west"].map((name) => startGate(name, "--join-token-file", at(`${name}.token`))),
  );
  assert.ok(east && west);
  for (const name of ["web", "intern"]) {
    const made = await net.sallyport(
      "shop",
      "enroll",
      "--token-file",
      at(`${name}.token`),
      "--out",
      at(name),
    );
    assert.equal(made.code, 0, made.stderr);
  }
  await until("both gates have a name to show", async () => {
    const asked = await Promise.all([ask("web", "east"), ask("web", "west")]);
    return asked.every((answer) => answer === "200");
  });
  await until("all is well", async () => (await operate("status")).code === 0);

  await t.test("nothing listens on a wildcard, and what should be on the mesh is", () => {
    for (const [machine, doors] of [
      ["control", ["127.0.0.1:7440", `${net.address("control")}:7442`]],
      ["east", ["127.0.0.1:7441", `${net.address("east")}:7443`, "127.0.0.1:9001"]],
      ["west", ["127.0.0.1:7441", `${net.address("west")}:7443`, "127.0.0.1:9001"]],
    ] as const)
      assert.deepEqual([...new Set(net.listening(machine))].sort(), [...doors].sort(), machine);
  });

  // A backup as backups are made: while control stands still, which nobody who calls notices.
  assert.equal(await control.stop("SIGTERM"), 0);
  assert.equal(await ask("web", "east"), "200");
  const home = at("control", "control");
  const backUp = (from: string, to: string): void => {
    mkdirSync(to, { recursive: true });
    for (const file of readdirSync(to)) if (file.startsWith("store.sqlite")) rmSync(join(to, file));
    for (const file of readdirSync(from))
      if (file.startsWith("store.sqlite")) copyFileSync(join(from, file), join(to, file));
  };
  backUp(home, at("backup"));
  control = await startControl();
  await until("all is well again", async () => (await operate("status")).code === 0, 15_000);

  await t.test(
    "a published register decides at both, and a revocation is confirmed by both",
    async () => {
      writeFileSync(at("sallyport.yaml"), register.replace("/orders/**", "/nothing/**"));
      assert.equal((await operate("apply", at("sallyport.yaml"), "--yes")).code, 0);
      assert.deepEqual(
        [await ask("web", "east"), await ask("web", "west")],
        ["not_authorized 403", "not_authorized 403"],
      );
      writeFileSync(at("sallyport.yaml"), register);
      assert.equal((await operate("apply", at("sallyport.yaml"), "--yes")).code, 0);
      assert.deepEqual([await ask("web", "east"), await ask("web", "west")], ["200", "200"]);
      const revoked = await operate("revoke", "service/web", "--wait", "--json");
      assert.equal(revoked.code, 0, revoked.stderr);
      assert.deepEqual(JSON.parse(revoked.stdout).confirmed, ["east", "west"]);
      assert.deepEqual(
        [await ask("web", "east"), await ask("web", "west")],
        ["revoked 403", "revoked 403"],
      );
    },
  );

  await t.test(
    "a gate that is cut off is named, serves on, and learns of it first of all when it is back",
    async () => {
      net.cable("west", "down");
      const revoked = await operate("revoke", "service/intern", "--wait", "1s", "--json");
      assert.equal(revoked.code, 1, "revoke --wait fails");
      assert.match(revoked.stderr, /not confirmed by west/);
      assert.deepEqual(JSON.parse(revoked.stdout).missing, ["west"]);
      assert.equal(await ask("intern", "east"), "revoked 403");
      assert.equal(await ask("intern", "west", "west"), "200", "it serves what it last knew");
      net.cable("west", "up");
      await until(
        "it refuses",
        async () => (await ask("intern", "west")) === "revoked 403",
        20_000,
      );
      await until("all is well", async () => (await operate("status")).code === 0, 15_000);
    },
  );

  await t.test(
    "an address that comes into the mesh is served within ten seconds, and one that goes is not",
    async () => {
      net.ip("east", "addr", "add", "10.77.0.99/24", "dev", "eth0");
      const took = await until(
        "the door is open there",
        () => net.listening("east").includes("10.77.0.99:7443"),
        10_000,
      );
      t.diagnostic(`open after ${Math.round(took)} ms`);
      net.ip("east", "addr", "del", "10.77.0.99/24", "dev", "eth0");
      await until(
        "the door there is shut",
        () => !net.listening("east").includes("10.77.0.99:7443"),
        10_000,
      );
    },
  );

  // A new identity for the rest, made while control is still there.
  assert.equal(
    (await operate("token", "create", "--service", "web", "--out", at("again.token"))).code,
    0,
  );
  const again = await net.sallyport(
    "shop",
    "enroll",
    "--token-file",
    at("again.token"),
    "--out",
    at("again"),
  );
  assert.equal(again.code, 0, again.stderr);
  assert.equal(await ask("again", "east"), "200");

  await t.test("a gate that starts without control serves its last good snapshot", async () => {
    await control.stop("SIGKILL");
    assert.equal(await east?.stop("SIGTERM"), 0);
    east = await startGate("east");
    assert.equal(await ask("again", "east"), "200");
    assert.equal(await ask("intern", "east"), "revoked 403", "and every revocation it knew");
  });

  await t.test("a store from a backup is refused until it says that it is one", async () => {
    backUp(at("backup"), home);
    control = await startControl();
    await until(
      "the gates refuse what is older",
      async () => {
        const { code, stdout } = await operate("status", "--json");
        if (code === 3) return false;
        const { gates } = JSON.parse(stdout) as { gates: { problem?: { code: string } }[] };
        return gates.length === 2 && gates.every(({ problem }) => problem?.code === "older");
      },
      20_000,
    );
    assert.equal(await ask("intern", "east"), "revoked 403", "what was served stands");
    assert.equal(await control.stop("SIGTERM"), 0);
    control = await startControl("--restore");
    await until(
      "a new epoch is followed",
      async () => (await operate("status")).code === 0,
      20_000,
    );
    const { snapshot } = JSON.parse((await operate("status", "--json")).stdout);
    assert.doesNotMatch(snapshot.name, /^1\./);
  });

  assert.deepEqual(
    await Promise.all([east?.stop("SIGTERM"), west?.stop("SIGTERM"), control.stop("SIGTERM")]),
    [0, 0, 0],
  );
  west = undefined;
});
