import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { connect } from "node:tls";
import { renew } from "../../../src/identity/renew/renew.ts";
import {
  type Called,
  callerOf,
  dataDoor,
  startLoad,
  startSystemWorld,
  until,
} from "../../harness/system-world.ts";

/** What a service's own TLS library sees: resolves with the time at which the connection ended. */
function holdOpen(
  credentials: { keyPem: string; chainPem: string; bundlePem: string },
  to: { host: string; port: number },
): Promise<{ ended: Promise<number>; ask(): void; answers: string[]; destroy(): void }> {
  return new Promise((resolve, reject) => {
    const socket = connect({
      ...to,
      key: credentials.keyPem,
      cert: credentials.chainPem,
      ca: credentials.bundlePem,
      checkServerIdentity: () => undefined,
    });
    const answers: string[] = [];
    const ended = new Promise<number>((end) => socket.once("close", () => end(performance.now())));
    socket.on("data", (bytes: Buffer) => answers.push(bytes.toString("latin1")));
    socket.on("error", reject);
    socket.once("secureConnect", () =>
      resolve({
        ended,
        answers,
        ask: () => void socket.write("GET /orders/1 HTTP/1.1\r\nHost: orders\r\n\r\n"),
        destroy: () => void socket.destroy(),
      }),
    );
  });
}

test("a revoked caller's open connections are cut within a second of the answer", async (t) => {
  const world = await startSystemWorld(t);
  const [web, intern] = [await world.enrol("web"), await world.enrol("intern")];
  const open = await Promise.all(
    Array.from({ length: 20 }, () => holdOpen(web, dataDoor(world.supervisor))),
  );
  for (const one of open) one.ask();
  await until("all were answered", () => open.every(({ answers }) => answers.length > 0));
  const bystander = callerOf(world, intern, { port: world.ports.data });
  const load = startLoad(world, bystander, { everyMs: 5 });
  const api = await world.api();
  const reply = await api.call("POST", "/v1/revocations", { body: { principal: "service/web" } });
  const answeredMs = performance.now();
  assert.deepEqual((reply.body as { missing: string[] }).missing, []);
  const cutMs = await Promise.all(open.map(({ ended }) => ended));
  const slowest = Math.max(...cutMs) - answeredMs;
  t.diagnostic(`the last was cut ${Math.round(slowest)} ms after the answer`);
  assert.ok(slowest < 1_000, `${slowest} ms`);
  const back = await callerOf(world, web, { port: world.ports.data }).call("/orders/1");
  assert.deepEqual([back.status, back.code], [403, "revoked"]);
  const again = await world.cli("revoke", "service/web", "--wait");
  assert.equal(again.code, 0, again.stderr);
  assert.match(again.stderr, /confirmed by local/);
  await load.stop();
  assert.deepEqual(load.failures, [], "nobody else was cut");
  assert.ok(load.answers.every(({ status }) => status === 200));
  const cuts = await world.hits({ code: "revoked" });
  assert.ok(cuts.length >= 21, `each cut is a hit (${cuts.length})`);
  // A new token lets it in again.
  const renewed = await world.enrol("web");
  const after = await callerOf(world, renewed, { port: world.ports.data }).call("/orders/1");
  assert.equal(after.status, 200, "enrolled again, in again");
});

test("revoking a serial takes what was renewed from it, and nothing else of the principal", async (t) => {
  const world = await startSystemWorld(t, { workers: 1 });
  const first = await world.enrol("web");
  const grand = await renew({ dir: first.dir, clock: Date.now });
  const { keyPem, chainPem } = grand;
  // A second line of the same principal, from a token of its own, in a directory of its own.
  const api = await world.api();
  const { body } = await api.call("POST", "/v1/tokens", { body: { service: "web" } });
  const { enroll } = await import("../../../src/identity/enroll/enroll.ts");
  const other = join(world.dir, "web-2");
  await enroll({ token: (body as { token: string }).token, out: other, clock: Date.now });
  const second = {
    keyPem: readFileSync(join(other, "key.pem"), "utf8"),
    chainPem: readFileSync(join(other, "chain.pem"), "utf8"),
    bundlePem: readFileSync(join(other, "bundle.pem"), "utf8"),
  };
  const ask = async (as: typeof second): Promise<Called> => {
    const caller = callerOf(world, as, { port: world.ports.data, connections: 1 });
    const answer = await caller.call("/orders/1");
    caller.close();
    return answer;
  };
  const descendant = { keyPem, chainPem, bundlePem: grand.bundlePem };
  for (const one of [first, descendant, second]) assert.equal((await ask(one)).status, 200);
  const done = await world.cli("revoke", "--serial", first.identity?.serial ?? "", "--wait");
  assert.equal(done.code, 0, done.stderr);
  assert.equal((await ask(first)).code, "revoked", "the certificate itself");
  assert.equal((await ask(descendant)).code, "revoked", "what was renewed from it");
  assert.equal((await ask(second)).status, 200, "another line of the same principal");
  await assert.rejects(renew({ dir: first.dir, clock: Date.now }), /revoked/);
});

test("a revoked gate is disconnected, and is told nothing any more", async (t) => {
  const world = await startSystemWorld(t, { workers: 1 });
  const web = await world.enrol("web");
  const caller = callerOf(world, web, { port: world.ports.data });
  assert.equal((await caller.call("/orders/1")).status, 200);
  const revoked = await world.cli("revoke", "gate/local");
  assert.equal(revoked.code, 0, revoked.stderr);
  await until("it is disconnected", async () => (await world.metrics()).control_connected === 0);
  const before = (await world.metrics()).snapshot_version;
  await world.apply(
    readFileSync(join(world.dir, "sallyport.yaml"), "utf8").replace("[GET]", "[GET, POST]"),
  );
  const refusals = await world.hits({ plane: "join", decision: "refused" });
  await until(
    "its return is refused and recorded",
    async () => (await world.hits({ plane: "join", decision: "refused" })).length > refusals.length,
  );
  assert.equal((await world.metrics()).snapshot_version, before, "it learns nothing new");
});
