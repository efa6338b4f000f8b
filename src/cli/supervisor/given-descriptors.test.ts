import assert from "node:assert/strict";
import { type SpawnOptions, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { givenDescriptors } from "./given-descriptors.ts";

const mainFile = fileURLToPath(new URL("../main.ts", import.meta.url));

async function boundSocket(
  t: TestContext,
  host = "127.0.0.1",
): Promise<{ fd: number; port: number }> {
  const server: Server & { _handle?: { fd: number } } = createServer();
  t.after(() => server.close());
  server.listen({ host, port: 0, ipv6Only: false });
  await once(server, "listening");
  return { fd: server._handle?.fd ?? -1, port: (server.address() as AddressInfo).port };
}

/** Starts node as a service manager does: descriptors from 3 on, and variables that name the very process. */
async function activate(args: readonly string[], fds: readonly number[], meant = "$$") {
  const shell = `LISTEN_PID=${meant} LISTEN_FDS=${fds.length} exec "$0" "$@"`;
  const stdio: SpawnOptions["stdio"] = ["ignore", "pipe", "pipe", ...fds];
  const child = spawn("sh", ["-c", shell, process.execPath, ...args], { stdio });
  let [stdout, stderr] = ["", ""];
  child.stdout?.on("data", (chunk) => {
    stdout += chunk;
  });
  child.stderr?.on("data", (chunk) => {
    stderr += chunk;
  });
  const [code] = await once(child, "close");
  return { code, stdout, stderr };
}

function upIn(t: TestContext, bind: string): string[] {
  const dir = mkdtempSync(join(tmpdir(), "sallyport-given-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const register = join(dir, "sallyport.yaml");
  writeFileSync(
    register,
    `version: 1
trustDomain: shop.test
planes:
  control: { bind: "127.0.0.1:0" }
  join:    { bind: "127.0.0.1:0" }
  ops:     { bind: "127.0.0.1:0" }
  data:    { bind: "${bind}" }
services:
  web: { owner: a }
  orders:
    owner: a
    ports: { http: { protocol: http, upstreams: ["127.0.0.1:9"] } }
    allow: [{ id: web-reads, from: web, methods: [GET], paths: ["/**"] }]
`,
  );
  return [mainFile, "up", "--once", "--json", register];
}

test("a door that the service manager has bound is served through its socket", async (t) => {
  const { fd, port } = await boundSocket(t);
  const given = await activate(upIn(t, `127.0.0.1:${port}`), [fd]);
  assert.equal(given.code, 0, given.stderr);
  assert.equal(JSON.parse(given.stdout).doors.local.data, `127.0.0.1:${port}`);
  assert.doesNotMatch(given.stderr, /no door/);
});

test("one that is no door is warned about, and opens nothing", async (t) => {
  const { fd, port } = await boundSocket(t);
  const given = await activate(upIn(t, "127.0.0.1:0"), [fd]);
  assert.equal(given.code, 0, given.stderr);
  assert.match(given.stderr, new RegExp(`is no door.*127\\.0\\.0\\.1:${port}`));
  assert.doesNotMatch(given.stdout, new RegExp(`:${port}\\b`));
});

test("variables that mean another process are nobody's, and are not handed on", () => {
  const env = { LISTEN_FDS: "1", LISTEN_PID: "1", LISTEN_FDNAMES: "a", HOME: "/" };
  assert.deepEqual(givenDescriptors(env, process.pid), []);
  assert.deepEqual(env, { HOME: "/" });
  assert.deepEqual(givenDescriptors({}, process.pid), []);
  assert.throws(
    () => givenDescriptors({ LISTEN_FDS: "x", LISTEN_PID: String(process.pid) }, process.pid),
    /LISTEN_FDS is "x"/,
  );
});

test("what is no socket of one address stops the start, in a sentence", async (t) => {
  const everywhere = await boundSocket(t, "::");
  const rows: [claim: string, fd: number, says: RegExp][] = [
    ["a pipe", 1, /descriptor 3, .* is not a TCP socket/],
    ["both families at once", everywhere.fd, /descriptor 3, .* takes IPv4 as well/],
  ];
  for (const [claim, fd, says] of rows) {
    const refused = await activate(upIn(t, "127.0.0.1:0"), [fd]);
    assert.equal(refused.code, 2, claim);
    assert.match(refused.stderr, says, claim);
    assert.doesNotMatch(refused.stderr, /^ +at /m);
  }
});
