import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { HandClock } from "../harness/hand-clock.ts";
import { fieldValue, statusOf } from "../harness/http-text.ts";
import { startOneService } from "../harness/one-service.ts";
import { until } from "../harness/until.ts";

const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: orders\r\n\r\n`;

/** A gate with an exchange in flight: half of its answer is out. */
async function startHalf(t: TestContext) {
  const one = await startOneService(t, {
    answer: () => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
    services: "  blog: { owner: press }",
    allow: "[{ id: web-orders, from: web }, { id: blog-orders, from: blog }]",
  });
  const client = await one.dial();
  client.send(get("/a"));
  await until("half of the answer", () => client.rest.includes("half"));
  const idle = await one.dial();
  const other = await one.dial(await one.world.issue("blog"));
  other.send(get("/b"));
  await until("the other's half", () => other.rest.includes("half"));
  return { ...one, client, idle, other };
}

test("a revocation cuts every connection of its principal within a second, and nobody else's", async (t) => {
  const { world, client, idle, other, upstream, web, dial } = await startHalf(t);
  const start = performance.now();
  world.revoke({ principal: "service/web", at: Date.now(), why: "lost" } as never);
  await Promise.all([client.ended, idle.ended]);
  const tookMs = performance.now() - start;
  assert.ok(tookMs < 1_000, `${tookMs} ms`);
  await until("the service's connection is cut too", () => upstream.open.size === 1);
  assert.ok(!other.isEnded);
  const cut = await until("both lines", () => {
    const lines = world.hits.filter(({ code }) => code === "revoked");
    return lines.length === 2 ? lines : undefined;
  });
  assert.deepEqual(cut.map(({ kind }) => kind).toSorted(), ["close", "connection"]);
  const again = await dial(web);
  assert.equal(fieldValue(await again.response(), "sallyport-refusal"), "revoked");
});

test("a revoked serial ends that leaf's connections alone", async (t) => {
  const { world, client, dial } = await startHalf(t);
  const second = await dial(await world.issue("web"));
  second.send(get("/c"));
  await until("its half", () => second.rest.includes("half"));
  const serial = world.hits[0]?.serial ?? "";
  world.revoke({ principal: "service/web", serial, at: Date.now(), why: "lost" } as never);
  await client.ended;
  assert.ok(!second.isEnded);
});

test("a rule that is removed takes its exchange with it, and the caller hears no at the next try", async (t) => {
  const { world, client, idle, other, register, upstream } = await startHalf(t);
  world.publish(register.replace("{ id: web-orders, from: web }, ", ""));
  await client.ended;
  assert.ok(!client.rest.includes("\r\n0\r\n"));
  await until("the service's half is cut", () => upstream.open.size === 1);
  const line = await until("the line of its end", () =>
    world.hits.find(({ code }) => code === "not_authorized"),
  );
  assert.deepEqual([line.kind, line.caller], ["close", "service/web"]);
  assert.ok(!other.isEnded, "another rule's exchange goes on");
  idle.send(get("/a"));
  assert.equal(statusOf(await idle.response()), 403);
});

test("a caller that leaves the register loses its connections", async (t) => {
  const { world, client, idle, register } = await startHalf(t);
  world.publish(
    register.replace("{ id: web-orders, from: web }, ", "").replace(/ {2}web: .*\n/, ""),
  );
  await Promise.all([client.ended, idle.ended]);
});

test("an unrelated change of the register disturbs nothing in flight", async (t) => {
  const { world, client, idle, other, register } = await startHalf(t);
  world.publish(register.replace("blog: { owner: press }", "blog: { owner: news }"));
  idle.send(get("/a"));
  await until("another half", () => idle.rest.includes("half"));
  assert.ok(!client.isEnded && !other.isEnded);
});

test("no connection outlives its leaf, and the last five minutes are announced", async (t) => {
  const clock = new HandClock(Date.now());
  let half = false;
  const { world, dial } = await startOneService(t, {
    answer: () =>
      half ? "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf" : "HTTP/1.1 204 No Content\r\n\r\n",
    plane: { clock: () => clock.now },
  });
  const leaf = await world.issue("web", { ttlMs: 3_600_000 });
  const notAfter = Math.floor(clock.now / 1_000) * 1_000 + 3_600_000;
  const client = await dial(leaf);
  clock.now = notAfter - 300_001;
  client.send(get("/a"));
  assert.equal(fieldValue(await client.response(), "connection"), undefined);
  clock.now = notAfter - 299_000;
  client.send(get("/a"));
  assert.equal(fieldValue(await client.response(), "connection"), "close");
  await client.ended;
  assert.ok(client.isCleanEnd);

  const idle = await dial(leaf);
  half = true;
  const busy = await dial(leaf);
  busy.send(get("/a"));
  await until("half of it", () => busy.rest.includes("half"));
  clock.now = notAfter;
  await Promise.all([idle.ended, busy.ended]);
  const lines = await until("both lines", () => {
    const found = world.hits.filter(({ code }) => code === "expired");
    return found.length >= 2 ? found : undefined;
  });
  // The first connection had ended in order: it has no line of its own.
  assert.deepEqual(lines.map(({ kind }) => kind).toSorted(), ["close", "connection"]);
});
