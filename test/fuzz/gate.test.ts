import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { startPlane } from "../harness/plane-world.ts";
import { dial } from "../harness/tls-client.ts";
import { until } from "../harness/until.ts";
import { type Conversation, converse } from "./gate-conversation.ts";
import { startFuzzUpstream } from "./gate-upstream.ts";
import { pick, seeded } from "./random.ts";

// Six seconds keep the suite quick; a night says FUZZ_SECONDS=28800, and FUZZ_SEED to start elsewhere.
const seconds = Number(process.env.FUZZ_SECONDS ?? 6);
const seed = Number(process.env.FUZZ_SEED ?? 1);
const clientsAtOnce = 32;

const register = (port: number) => `
version: 1
trustDomain: test.internal
services:
  web: { owner: shop }
  app: { owner: shop }
  orders:
    owner: shop
    upstreams: ["127.0.0.1:${port}"]
    timeouts: { connect: 5s, responseHead: 2s, idle: 2s }
    allow:
      - { id: shared, from: [web, app], paths: ["/s/**"] }
      - { id: web, from: web, paths: ["/web/**"] }
      - { id: app, from: app, paths: ["/app/**"] }
    deny: [{ id: secret, from: "*", paths: ["/s/secret/**"] }]
`;

test("whatever callers and services say, each caller gets the answers to its own requests and a service only what policy lets through", async (t) => {
  const collect = collector();
  const before = process.getActiveResourcesInfo().length;
  const upstream = await startFuzzUpstream(seeded(seed + 1));
  const world = await startPlane({ register: register(upstream.port) });
  const credentials = { web: await world.issue("web"), app: await world.issue("app") };
  const talks: Conversation[] = [];
  const end = performance.now() + seconds * 1_000;
  let heapBefore = 0;
  const client = async (which: number): Promise<void> => {
    const random = seeded(seed * 1_000 + which);
    while (performance.now() < end) {
      const caller = pick(random, ["web", "app"] as const);
      const raw = await dial({ port: world.port, credentials: credentials[caller] });
      talks.push(await converse(raw, caller, random));
      if (talks.length === 200) heapBefore = heapAfter(collect);
    }
  };
  try {
    await Promise.all(Array.from({ length: clientsAtOnce }, (_, which) => client(which)));
    const total = talks.reduce((sum, talk) => sum + talk.requests, 0);
    const refusals: Record<string, number> = {};
    for (const talk of talks)
      for (const [code, count] of Object.entries(talk.refusals))
        refusals[code] = (refusals[code] ?? 0) + count;
    t.diagnostic(
      `${total} requests on ${talks.length} connections from seed ${seed}; the service saw ${upstream.seen.length} on ${upstream.connections}; refused ${JSON.stringify(refusals)}`,
    );
    const complaints = talks.flatMap((talk) => talk.complaints).slice(0, 5);
    const explained = complaints.map((complaint) => {
      const token = /[wa]\d+x\d+z/.exec(complaint)?.[0] ?? "-";
      const hit = world.hits.find(({ path }) => path?.includes(token));
      return `${complaint} [${hit?.code} ${hit?.detail}]`;
    });
    assert.deepEqual(explained, [], "what callers read");
    assert.deepEqual(upstream.complaints.slice(0, 5), [], "what the service was sent");

    await until("every session ends", () => world.plane.counters().connections === 0, 15_000);
    await until("no upstream connection rests for ever", () => upstream.open.size === 0, 15_000);
    assert.deepEqual(world.errors.slice(0, 3), [], "faults");
    assert.equal(
      world.hits.find(({ code }) => code === "fault"),
      undefined,
    );

    // Everything the service saw is in the log as something that was let through to it.
    const recorded = new Map<string, number>();
    for (const hit of world.hits) {
      if (hit.kind !== "request" || hit.upstream === undefined) continue;
      const key = `spiffe://test.internal/${hit.caller} ${hit.path}`;
      recorded.set(key, (recorded.get(key) ?? 0) + 1);
    }
    for (const one of upstream.seen) {
      const key = one.replace(/\?.*$/, "");
      const left = recorded.get(key) ?? 0;
      assert.ok(left > 0, `the service saw what the log does not know: ${one}`);
      recorded.set(key, left - 1);
    }

    // What a caller was told is what the log says of the same hit.
    const byId = new Map(world.hits.map((hit) => [hit.id, hit]));
    const closing = new Map(
      world.hits.filter(({ kind }) => kind === "close").map((hit) => [hit.of, hit]),
    );
    for (const { answers, caller } of talks)
      for (const { hit, status } of answers) {
        const line = byId.get(hit ?? "");
        assert.ok(line, `no line ${hit}`);
        assert.equal(line.caller, `service/${caller}`);
        const last = (line.status ?? 0) < 200 ? closing.get(hit) : line;
        assert.equal(last?.status, status, `status of ${hit}`);
      }
    if (heapBefore > 0) {
      const perHit = 2_000; // the test itself keeps every hit and every token
      const grown = heapAfter(collect) - heapBefore - world.hits.length * perHit;
      assert.ok(grown < 64_000_000, `${grown} bytes more than at the start`);
    }
  } finally {
    await world.close();
    await upstream.close();
  }
  await until(
    "nothing is left open",
    () => process.getActiveResourcesInfo().length <= before + 1,
    5_000,
  );
});

function collector(): () => void {
  setFlagsFromString("--expose-gc");
  return runInNewContext("gc") as () => void;
}

function heapAfter(collect: () => void): number {
  collect();
  return process.memoryUsage().heapUsed;
}
