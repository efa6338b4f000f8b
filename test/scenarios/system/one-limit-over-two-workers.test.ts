import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import {
  callerOf,
  chainOf,
  shopRegister,
  startLoad,
  startSystemWorld,
  until,
} from "../../harness/system-world.ts";

const perSecond = 200;
const burst = 20;
const seconds = 10;

test("one limit is one limit, whatever the number of workers", async (t) => {
  const world = await startSystemWorld(t, {
    workers: 2,
    register: (ports) =>
      shopRegister(ports, {
        rules: `      - { id: web-reads, from: [web, intern], methods: [GET], paths: ["/orders/**"], limit: { rate: ${perSecond}/s, burst: ${burst} } }`,
      }),
  });
  const web = await world.enrol("web");
  // Connections until both workers have their share of them: the kernel deals them out as it likes.
  const byWorker = new Map<string, ReturnType<typeof callerOf>[]>();
  const perWorker = 4;
  await until("both workers hold connections", async () => {
    const caller = callerOf(world, web, { port: world.ports.data, connections: 1 });
    const chain = chainOf(await caller.call("/orders/1"));
    const held = byWorker.get(chain) ?? [];
    if (held.length >= perWorker) caller.close();
    else byWorker.set(chain, [...held, caller]);
    return byWorker.size === 2 && [...byWorker.values()].every((of) => of.length === perWorker);
  });
  const callers = [...byWorker.values()].flat();
  // What was asked so far has been forgotten: the burst is whole again.
  await pause((burst / perSecond) * 2_000);
  const load = callers.map((caller) => startLoad(world, caller, { lanes: 1, everyMs: 5 }));
  const startMs = performance.now();
  await until("ten seconds are over", () => performance.now() - startMs >= seconds * 1_000, 15_000);
  const tookMs = performance.now() - startMs;
  const answers = load.flatMap((one) => one.answers.slice());
  for (const one of load) await one.stop();
  const admitted = answers.filter(({ status }) => status === 200).length;
  const limited = answers.filter(({ code }) => code === "rate_limited").length;
  assert.equal(admitted + limited, answers.length, "nothing but yes and too many");
  const asked = (answers.length * 1_000) / tookMs;
  t.diagnostic(`${Math.round(asked)}/s asked, ${admitted} admitted in ${Math.round(tookMs)} ms`);
  assert.ok(asked > 2 * perSecond, `the load was no test: ${asked}/s`);
  for (const chain of byWorker.keys()) {
    const share = answers.filter((answer) => chainOf(answer) === chain).length / answers.length;
    assert.ok(share >= 0.3, `a worker took only ${Math.round(share * 100)} % of the requests`);
  }
  const sustained = ((admitted - burst) * 1_000) / tookMs;
  assert.ok(
    Math.abs(sustained / perSecond - 1) <= 0.02,
    `${sustained.toFixed(1)}/s were let in, of ${perSecond}/s`,
  );
});
