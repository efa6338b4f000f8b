import assert from "node:assert/strict";
import { test } from "node:test";
import type { Credentials } from "../../../src/base/credentials.ts";
import { faultEnv, faultInWorker } from "../../harness/system-fault.ts";
import {
  assertRecorded,
  type Caller,
  callerOf,
  chainOf,
  type Load,
  type SystemWorld,
  shopRegister,
  startLoad,
  startSystemWorld,
  until,
} from "../../harness/system-world.ts";

/** Two seconds are what is promised on an idle machine; the suite shares two cores with everything else that is tested. */
const backWithinMs = 4_000;

/** Callers of one connection each, by the worker that holds it. */
async function lanesByWorker(
  world: SystemWorld,
  web: Credentials,
): Promise<Map<string, { caller: Caller; localPort: number; load: Load }[]>> {
  const lanes = new Map<string, { caller: Caller; localPort: number; load: Load }[]>();
  for (let i = 0; i < 8 || lanes.size < 2; i++) {
    const caller = callerOf(world, web, { port: world.ports.data, connections: 1 });
    const answer = await caller.call("/orders/1");
    const load = startLoad(world, caller, { lanes: 1, everyMs: 4 });
    const lane = { caller, localPort: answer.localPort, load };
    lanes.set(chainOf(answer), [...(lanes.get(chainOf(answer)) ?? []), lane]);
  }
  return lanes;
}

for (const [how, statement] of [
  ["throws", 'setTimeout(() => { throw new Error("planted by a test"); })'],
  ["is terminated", "process.exit(7)"],
] as const)
  test(`a worker ${how}: the others go on, and it is back within two seconds`, async (t) => {
    const world = await startSystemWorld(t, { env: faultEnv, workers: 2 });
    const web = await world.enrol("web");
    const pid = world.supervisor.pids().local as number;
    const lanes = await lanesByWorker(world, web);
    const all = [...lanes.values()].flat();
    assert.equal(lanes.size, 2, "two workers hold the connections");
    await until("load flows", () => all.every(({ load }) => load.answers.length > 20));
    await faultInWorker({ pid, said: world.said }, 0, statement);
    await until("a worker died", () => world.said.some((line) => line.includes("worker died")));
    const took = await until(
      "a new worker answers",
      async () => {
        const fresh = callerOf(world, web, { port: world.ports.data });
        const answer = await fresh.call("/orders/2").catch(() => undefined);
        fresh.close();
        return answer?.status === 200 && !lanes.has(chainOf(answer));
      },
      backWithinMs,
    );
    t.diagnostic(`back after ${Math.round(took)} ms`);
    for (const { load } of all) await load.stop();
    // By connection, not by failures: who was between two requests when the worker died just goes on over a new one.
    const undisturbed: string[] = [];
    for (const [chain, of] of lanes) {
      const now = await Promise.all(of.map(({ caller }) => caller.call("/orders/3")));
      const kept = now.filter((answer, i) => answer.localPort === of[i]?.localPort);
      assert.ok([0, of.length].includes(kept.length), "a worker's connections share its fate");
      if (kept.length === 0) continue;
      undisturbed.push(chain);
      assert.deepEqual(
        of.flatMap(({ load }) => load.failures),
        [],
        "its callers noticed nothing",
      );
    }
    assert.equal(undisturbed.length, 1, "the other worker's connections survived");
    for (const { caller } of all) assert.equal((await caller.call("/orders/4")).status, 200);
    assert.equal(world.supervisor.pids().local, pid, "the process went on");
    await assertRecorded(
      world,
      all.flatMap(({ load }) => load.answers),
    );
    const deaths = await world.hits({ kind: "process" });
    assert.ok(
      deaths.some(({ action }) => action === "worker_died"),
      "its death is a hit",
    );
    // A revocation and a new view reach the newcomer too.
    const revoked = await world.cli("revoke", "service/web", "--wait");
    assert.equal(revoked.code, 0, revoked.stderr);
  });

test("what is applied or revoked while a worker's place is empty is not held up by it", async (t) => {
  const world = await startSystemWorld(t, { env: faultEnv, workers: 2 });
  const [web, intern] = [await world.enrol("web"), await world.enrol("intern")];
  const pid = world.supervisor.pids().local as number;
  const deaths = () => world.said.filter((line) => line.includes("worker died")).length;
  const api = await world.api();
  // Each death of a minute leaves the place empty for a little longer: the third for half a second.
  for (let death = 1; death <= 3; death++) {
    await until("both places are taken", async () => (await answeringChains(world, web)).size >= 2);
    await faultInWorker({ pid, said: world.said }, 0, "process.exit(7)");
    await until("a worker died", () => deaths() === death);
  }
  const [applied, revoked] = await Promise.all([
    api.call("PUT", "/v1/register", {
      query: { force: true, waitMs: 5_000 },
      body: {
        files: [{ name: "a.yaml", text: shopRegister(world.ports).replace("/orders/**", "/**") }],
      },
    }),
    api.call("POST", "/v1/revocations", {
      body: { principal: "service/intern" },
      query: { waitMs: 5_000 },
    }),
  ]);
  for (const { body } of [applied, revoked])
    assert.deepEqual((body as { missing: string[] }).missing, []);
  // Both workers, the newcomer too, decide by what was said meanwhile.
  await until("both places are taken", async () => (await answeringChains(world, web)).size >= 2);
  for (let i = 0; i < 12; i++) {
    const of = callerOf(world, intern, { port: world.ports.data });
    assert.equal((await of.call("/orders/1")).code, "revoked");
    of.close();
    const other = callerOf(world, web, { port: world.ports.data });
    assert.equal((await other.call("/new/1")).status, 200);
    other.close();
  }
});

/** The chains of those workers that answer new connections now. */
async function answeringChains(world: SystemWorld, web: Credentials): Promise<Set<string>> {
  const chains = new Set<string>();
  for (let i = 0; i < 6; i++) {
    const caller = callerOf(world, web, { port: world.ports.data });
    const answer = await caller.call("/orders/1").catch(() => undefined);
    caller.close();
    if (answer) chains.add(chainOf(answer));
  }
  return chains;
}

test("the gate is killed: it is back within two seconds, and every answer seen is in the log", async (t) => {
  const world = await startSystemWorld(t, { workers: 2 });
  const web = await world.enrol("web");
  const caller = callerOf(world, web, { port: world.ports.data, connections: 16 });
  const load = startLoad(world, caller, { lanes: 16, everyMs: 5 });
  for (let round = 0; round < 2; round++) {
    const seen = load.answers.length;
    await until("load flows", () => load.answers.length > seen + 300);
    const pid = world.supervisor.pids().local as number;
    const chains = new Set(load.answers.map(chainOf));
    process.kill(pid, "SIGKILL");
    const took = await until(
      "it answers again",
      () => load.answers.slice(seen).some((answer) => !chains.has(chainOf(answer))),
      backWithinMs + round * 1_000, // the supervisor waits a little longer each time
    );
    t.diagnostic(`back after ${Math.round(took)} ms`);
  }
  await load.stop();
  assert.ok(load.answers.every(({ status }) => status === 200));
  await assertRecorded(world, load.answers);
  await until("control notices", async () => (await world.metrics()).control_connected === 1);
  const deaths = await world.hits({ kind: "process" });
  assert.equal(deaths.filter(({ action }) => action === "process_died").length, 2);
});
