import assert from "node:assert/strict";
import { test } from "node:test";
import {
  callerOf,
  isAlive,
  shopRegister,
  startLoad,
  startSystemWorld,
  until,
} from "../../harness/system-world.ts";

test("control dies and traffic goes on; what it says after its return reaches the gate", async (t) => {
  const world = await startSystemWorld(t);
  const { supervisor, ports } = world;
  const [web, intern] = [await world.enrol("web"), await world.enrol("intern")];
  const caller = callerOf(world, web, { port: ports.data });
  const other = callerOf(world, intern, { port: ports.data });
  assert.equal((await caller.call("/orders/7")).status, 200);
  assert.equal((await world.cli("status")).code, 0, "all is well before");

  const load = startLoad(world, caller, { lanes: 4 });
  await until("load flows", () => load.answers.length > 50);
  const pid = supervisor.pids().control as number;
  // Held down by killing each successor, as a machine that cannot start it would.
  let killed = 0;
  const kill = () => {
    const now = supervisor.pids().control;
    if (now === undefined || !isAlive(now)) return;
    process.kill(now, "SIGKILL");
    killed++;
  };
  kill();
  const holding = setInterval(kill, 20);
  t.after(() => clearInterval(holding));
  await until("control is gone", () => !isAlive(pid));
  const during = load.answers.length;
  const status = await world.cli("status");
  assert.equal(status.code, 3, status.stderr);
  assert.match(status.stderr, /no control plane answers/);
  await until("the gate has noticed", async () => (await world.metrics()).control_connected === 0);
  await until("traffic goes on", () => load.answers.length > during + 200);
  assert.equal(
    (await callerOf(world, intern, { port: ports.data }).call("/orders/7")).status,
    200,
    "a new caller",
  );
  clearInterval(holding);

  await until("all is well again", async () => (await world.cli("status")).code === 0, 20_000);
  assert.ok(killed >= 1);
  // An apply after the restart decides at the gate.
  await world.apply(
    shopRegister(ports, {
      rules:
        '      - { id: web-reads, from: [web, intern], methods: [GET], paths: ["/orders/**", "/new/**"] }',
    }),
  );
  assert.equal((await caller.call("/new/7")).status, 200, "the applied rule decides");
  // And so does a revocation.
  assert.equal((await other.call("/orders/7")).status, 200);
  const revoked = await world.cli("revoke", "service/intern", "--wait");
  assert.equal(revoked.code, 0, revoked.stderr);
  await until(
    "the revoked caller is refused",
    async () => (await other.call("/orders/7").catch(() => undefined))?.code === "revoked",
    1_000,
  );
  await load.stop();
  assert.deepEqual(load.failures, [], "no request went without an answer");
  const refused = load.answers.filter(({ status }) => status !== 200);
  assert.deepEqual(refused, [], "no request was refused");
});
