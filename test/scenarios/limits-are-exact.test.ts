import assert from "node:assert/strict";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { bounds } from "../../src/proxy/bounds.ts";
import { HandClock } from "../harness/hand-clock.ts";
import { fieldValue, statusOf } from "../harness/http-text.ts";
import { startOneService } from "../harness/one-service.ts";
import { until } from "../harness/until.ts";

const get = (fields = ""): string => `GET /a HTTP/1.1\r\nHost: orders\r\n${fields}\r\n`;

test("a limit admits its burst at once, then exactly one an interval", async (t) => {
  const clock = new HandClock(10_000);
  const { dial, upstream, world } = await startOneService(t, {
    allow: "[{ id: web-orders, from: web, limit: { rate: 10/s, burst: 5 } }]",
    plane: { monotonic: clock.read },
  });
  const client = await dial();
  const ask = async (): Promise<number> => {
    client.send(get());
    return statusOf(await client.response());
  };
  for (let turn = 0; turn < 5; turn++) assert.equal(await ask(), 200);
  client.send(get());
  const refused = await client.response();
  assert.equal(statusOf(refused), 429);
  assert.equal(fieldValue(refused, "retry-after"), "1");
  assert.equal(fieldValue(refused, "ratelimit-limit"), "10");
  assert.equal(fieldValue(refused, "ratelimit-remaining"), "0");
  assert.deepEqual(
    [world.hits.at(-1)?.code, world.hits.at(-1)?.rule],
    ["rate_limited", "web-orders"],
  );
  clock.now += 99;
  assert.equal(await ask(), 429, "99 ms are not 100");
  clock.now += 1;
  assert.equal(await ask(), 200);
  assert.equal(await ask(), 429);
  clock.now += 1_000_000;
  for (let turn = 0; turn < 5; turn++)
    assert.equal(await ask(), 200, "a long rest saves up no more than the burst");
  assert.equal(await ask(), 429);
  assert.equal(upstream.requests.length, 11);
});

test("a limit counts for each caller by itself, and over all its connections", async (t) => {
  const { dial, world } = await startOneService(t, {
    allow: "[{ id: all, from: [web, blog], limit: { rate: 1/h, burst: 2 } }]",
    services: "  blog: { owner: press }",
    plane: { monotonic: () => 1_000 },
  });
  const blog = await world.issue("blog");
  const statuses: number[] = [];
  for (const who of [undefined, undefined, undefined, blog, blog, blog]) {
    const client = await dial(who);
    client.send(get());
    statuses.push(statusOf(await client.response()));
    client.close();
  }
  assert.deepEqual(statuses, [200, 200, 429, 200, 200, 429]);
});

test("what a rule refuses costs nothing of the limit", async (t) => {
  const { dial } = await startOneService(t, {
    allow: '[{ id: web-orders, from: web, paths: ["/a"], limit: { rate: 1/h, burst: 1 } }]',
    plane: { monotonic: () => 1_000 },
  });
  const client = await dial();
  client.send(get().replace("/a", "/b").repeat(3));
  for (let turn = 0; turn < 3; turn++) assert.equal(statusOf(await client.response()), 403);
  client.send(get());
  assert.equal(statusOf(await client.response()), 200);
});

test("two threads that share the table admit together what one would", async () => {
  const limits = new Int32Array(new SharedArrayBuffer(8));
  const limit = { count: 1_000, perMs: 3_600_000, burst: 300_000 };
  const source = `
    const { parentPort, workerData } = await import("node:worker_threads");
    const { admit } = await import(workerData.gcra);
    Atomics.add(workerData.gate, 0, 1);
    while (Atomics.load(workerData.gate, 0) < 2);
    let admitted = 0;
    for (let turn = 0; turn < 300000; turn++) if (admit(workerData.limits, 0, workerData.limit, 5000) === 0) admitted++;
    parentPort.postMessage(admitted);
  `;
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const gcra = new URL("../../src/proxy/limit/gcra.ts", import.meta.url).href;
  const counts = await Promise.all(
    [1, 2].map(
      () =>
        new Promise<number>((done, failed) => {
          const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), {
            workerData: { limits, limit, gate, gcra },
          });
          worker.once("message", done);
          worker.once("error", failed);
        }),
    ),
  );
  assert.equal((counts[0] ?? 0) + (counts[1] ?? 0), 300_000, `${counts}`);
});

test("a head has its size, its fields and its time", async (t) => {
  const clock = new HandClock(10_000);
  const { dial, upstream } = await startOneService(t, { plane: { monotonic: clock.read } });
  for (const [claim, bytes] of [
    ["one long field", get(`X: ${"a".repeat(40_000)}\r\n`)],
    ["many fields", get("X: 1\r\n".repeat(101))],
    ["a long target", get().replace("/a", `/${"a".repeat(40_000)}`)],
  ] as const) {
    const client = await dial();
    client.send(bytes);
    const response = await client.response();
    assert.equal(statusOf(response), 431, claim);
    assert.equal(fieldValue(response, "sallyport-refusal"), "head_too_large", claim);
    await client.ended;
  }
  const slow = await dial();
  slow.send("GET /a HTTP/1.1\r\nHo");
  await clock.wasRead(1);
  clock.now += 9_999;
  slow.send("st: or");
  await clock.wasRead(2);
  assert.ok(!slow.isEnded && slow.rest.length === 0);
  clock.now += 2;
  assert.equal(fieldValue(await slow.response(), "sallyport-refusal"), "head_timeout");
  await slow.ended;
  assert.ok(slow.isCleanEnd);
  // Also the head behind an answer, allowed or refused.
  for (const [path, status] of [
    ["/a", 200],
    ["/..", 400],
  ] as const) {
    const next = await dial();
    next.send(`GET ${path} HTTP/1.1\r\nHost: orders\r\n\r\nGET`);
    assert.equal(statusOf(await next.response()), status);
    clock.now += 10_001;
    assert.equal(statusOf(await next.response()), 408, path);
  }
  assert.equal(upstream.requests.length, 1);
});

test("a connection on which nothing happens is closed after a minute, not before", async (t) => {
  const clock = new HandClock(10_000);
  const { dial } = await startOneService(t, { plane: { monotonic: clock.read } });
  const client = await dial();
  client.send(get());
  await client.response();
  clock.now += bounds.idleMs - 1;
  await clock.wasRead(2);
  assert.ok(!client.isEnded);
  clock.now += 2;
  await client.ended;
  assert.ok(client.isCleanEnd && client.rest.length === 0);
});

test("a caller has a number of connections; one more is cut, and leaves a hit", async (t) => {
  const usual = bounds.connectionsPerCaller;
  t.after(() => Object.assign(bounds, { connectionsPerCaller: usual }));
  Object.assign(bounds, { connectionsPerCaller: 3 });
  const { dial, world } = await startOneService(t, { services: "  blog: { owner: press }" });
  const clients = [await dial(), await dial(), await dial()];
  for (const client of clients) {
    client.send(get());
    await client.response();
  }
  const fourth = await dial();
  await fourth.ended;
  const hit = await until("its hit", () => world.hits.find(({ kind }) => kind === "connection"));
  assert.deepEqual([hit.code, hit.caller], ["too_many_connections", "service/web"]);
  const blog = await dial(await world.issue("blog"));
  blog.send(get());
  assert.equal(statusOf(await blog.response()), 403, "another caller is let in");
  clients[0]?.close();
  await until("room again", () => world.plane.counters().connections === 3);
  const fifth = await dial();
  fifth.send(get());
  assert.equal(statusOf(await fifth.response()), 200);
});
