import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, cpSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { connect } from "node:tls";
import { readCredentials } from "../../../src/identity/credentials/credential-directory.ts";
import { enroll } from "../../../src/identity/enroll/enroll.ts";
import { renew } from "../../../src/identity/renew/renew.ts";
import {
  callerOf,
  mainFile,
  type Ports,
  type SystemWorld,
  shopRegister,
  startLoad,
  startSystemWorld,
  until,
} from "../../harness/system-world.ts";

const shortLived = (ports: Ports): string =>
  `${shopRegister(ports)}lifetimes: { leaf: 5m }
`;

/** A process whose wall clock is four minutes ahead: a leaf of five minutes looks due to it, and to nobody else. */
const aheadEnv = {
  NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(
    "const now = Date.now; Date.now = () => now() + 240_000;",
  )}`,
};

async function warnings(world: SystemWorld): Promise<string[]> {
  const { stdout } = await world.cli("status", "--json");
  return (JSON.parse(stdout).warnings as { detector: string }[]).map(({ detector }) => detector);
}

test("enroll --renew renews in time and runs its hook; traffic does not notice", async (t) => {
  const world = await startSystemWorld(t, { register: shortLived });
  const web = await world.enrol("web");
  const caller = callerOf(world, web, { port: world.ports.data });
  const load = startLoad(world, caller, { everyMs: 5 });
  const hookFile = join(world.dir, "hook-ran");
  const renewing = spawn(
    process.execPath,
    [mainFile, "enroll", "--renew", web.dir, "--hook", `echo "$SALLYPORT_PRINCIPAL" > ${hookFile}`],
    { env: { ...process.env, ...aheadEnv }, stdio: "ignore" },
  );
  world.beforeClose.push(() => void renewing.kill("SIGKILL"));
  const serial = async () => (await readCredentials(web.dir)).identity?.serial;
  await until("a new certificate is there", async () => (await serial()) !== web.identity?.serial);
  await until("the hook ran", () => {
    try {
      return readFileSync(hookFile, "utf8") === "spiffe://shop.test/service/web\n";
    } catch {
      return false;
    }
  });
  const before = load.answers.length;
  caller.use(await readCredentials(web.dir));
  await until("traffic flows with the new one", () => load.answers.length > before + 50);
  renewing.kill("SIGTERM");
  await once(renewing, "close");
  await load.stop();
  assert.deepEqual(load.failures, []);
  assert.ok(load.answers.every(({ status }) => status === 200));
  const old = await callerOf(world, web, { port: world.ports.data }).call("/orders/1");
  assert.equal(old.status, 200, "the old one is good until it ends");
});

/** Serial of the leaf that the gate shows for a name. */
function shownBy(
  world: SystemWorld,
  web: { keyPem: string; chainPem: string; bundlePem: string },
  name: string,
) {
  return new Promise<{ serial: string; names: string }>((resolve, reject) => {
    const socket = connect({
      host: "127.0.0.1",
      port: world.ports.data,
      servername: name,
      key: web.keyPem,
      cert: web.chainPem,
      ca: web.bundlePem,
      checkServerIdentity: () => undefined,
    });
    socket.once("error", reject);
    socket.once("secureConnect", () => {
      const leaf = socket.getPeerX509Certificate();
      socket.destroy();
      resolve({ serial: leaf?.serialNumber ?? "", names: leaf?.subjectAltName ?? "" });
    });
  });
}

test("a new name has a leaf of its own at once, while traffic flows and the others keep theirs", async (t) => {
  const world = await startSystemWorld(t);
  const web = await world.enrol("web");
  const caller = callerOf(world, web, { port: world.ports.data });
  const load = startLoad(world, caller, { everyMs: 5 });
  await until("the first names are there", async () =>
    /DNS:orders\b/.test((await shownBy(world, web, "orders")).names),
  );
  const before = await shownBy(world, web, "orders");
  assert.doesNotMatch((await shownBy(world, web, "stock")).names, /DNS:stock/);
  await world.apply(
    `${shopRegister(world.ports)}  stock:
    owner: warehouse
    ports: { http: { protocol: http, upstreams: ["127.0.0.1:9"] } }
    allow: [{ id: web-asks, from: web }]
`,
  );
  await until(
    "the new name has a leaf",
    async () => /DNS:stock\b/.test((await shownBy(world, web, "stock")).names),
    5_000,
  );
  assert.equal((await shownBy(world, web, "orders")).serial, before.serial, "only what is lacking");
  await load.stop();
  assert.deepEqual(load.failures, []);
  assert.ok(load.answers.every(({ status }) => status === 200));
});

test("a second renewal with another key is refused, and warned about", async (t) => {
  const world = await startSystemWorld(t, { workers: 1 });
  const web = await world.enrol("web");
  const copy = join(world.dir, "copied");
  cpSync(web.dir, copy, { recursive: true, verbatimSymlinks: true });
  chmodSync(copy, 0o700);
  await renew({ dir: web.dir, clock: Date.now });
  await assert.rejects(renew({ dir: copy, clock: Date.now }), { code: "fork" });
  assert.ok((await warnings(world)).includes("lineage-fork"));
  const good = await callerOf(world, await readCredentials(web.dir), {
    port: world.ports.data,
  }).call("/orders/1");
  assert.equal(good.status, 200, "whose it is decides a person");
});

test("a token that comes with a second key is refused, and what it bought is revoked", async (t) => {
  const world = await startSystemWorld(t, { workers: 1 });
  const api = await world.api();
  const { body } = await api.call("POST", "/v1/tokens", { body: { service: "web" } });
  const { token } = body as { token: string };
  const enrolInto = (name: string) =>
    enroll({ token, out: join(world.dir, name), clock: Date.now });
  const { credentials } = await enrolInto("first");
  const caller = callerOf(world, credentials, { port: world.ports.data });
  assert.equal((await caller.call("/orders/1")).status, 200);
  await assert.rejects(enrolInto("second"), { code: "token_spent" });
  await until(
    "the first is out",
    async () => (await caller.call("/orders/1").catch(() => undefined))?.code === "revoked",
    2_000,
  );
  assert.ok((await warnings(world)).includes("token-reuse"));
});
