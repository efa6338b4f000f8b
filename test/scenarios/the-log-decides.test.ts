import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Recorder } from "../../src/audit/recorder.ts";
import { fieldValue, statusOf } from "../harness/http-text.ts";
import { startOneService } from "../harness/one-service.ts";
import { ok } from "../harness/scripted-upstream.ts";
import { until } from "../harness/until.ts";

const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: orders\r\n\r\n`;

/** A recorder that can be told to fail, and says when it flushes. */
function switchable(onFlush: (written: boolean) => void = () => undefined) {
  const state = { broken: false, flushes: 0 };
  const wrap = (real: Recorder): Recorder => ({
    ...real,
    add: (hit) => real.add(hit),
    addEssential: (hit) => real.addEssential(hit),
    flush() {
      state.flushes++;
      const written = !state.broken && real.flush();
      onFlush(written);
      return written;
    },
    get failing() {
      return state.broken || real.failing;
    },
    probe: () => !state.broken && real.probe(),
    tick: () => real.tick(),
    heads: () => real.heads(),
    close: () => real.close(),
  });
  return { state, wrap };
}

function linesOnDisk(dir: string): string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => readFileSync(join(entry.parentPath, entry.name), "latin1"))
    .join("\n")
    .split("\n");
}

test("while the log cannot be written nothing is asked of a service, and it is served again afterwards", async (t) => {
  const { state, wrap } = switchable();
  const { dial, upstream } = await startOneService(t, { plane: { recorder: wrap } });
  const first = await dial();
  first.send(get("/1"));
  assert.equal(statusOf(await first.response()), 200);
  const bytes = upstream.bytes;
  state.broken = true;
  first.send(get("/2"));
  const refused = await first.response();
  assert.equal(statusOf(refused), 503);
  assert.equal(fieldValue(refused, "sallyport-refusal"), "audit_unavailable");
  assert.equal(
    fieldValue(refused, "sallyport-hit"),
    undefined,
    "no id of a line that is not there",
  );
  assert.equal(upstream.bytes, bytes);
  state.broken = false;
  const next = await dial();
  next.send(get("/3"));
  assert.equal(statusOf(await next.response()), 200);
});

test("an answer whose record fails at the last moment is withheld", async (t) => {
  const { state, wrap } = switchable();
  const { dial, upstream } = await startOneService(t, {
    plane: { recorder: wrap },
    answer() {
      state.broken = true; // between the service's answer and its record
      return ok("the secret");
    },
  });
  const client = await dial();
  client.send(get("/1"));
  const response = await client.response();
  assert.equal(statusOf(response), 503);
  assert.equal(fieldValue(response, "sallyport-refusal"), "audit_unavailable");
  await client.ended;
  assert.ok(!response.raw.includes("secret") && client.rest.length === 0);
  assert.equal(upstream.requests.length, 1);
});

test("a long answer whose record fails is withheld from its first byte", async (t) => {
  const { state, wrap } = switchable();
  const { dial } = await startOneService(t, {
    plane: { recorder: wrap },
    answer() {
      state.broken = true;
      return "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nthe secret";
    },
  });
  const client = await dial();
  client.send(get("/1"));
  assert.equal(statusOf(await client.response()), 503);
  await client.ended;
});

test("a record that fails just as the answer breaks does not leave the caller hanging", async (t) => {
  const { state, wrap } = switchable();
  const { dial } = await startOneService(t, {
    plane: { recorder: wrap },
    answer() {
      state.broken = true;
      // All in one piece, so that it breaks before its record is due.
      return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nnot a size\r\n";
    },
  });
  const client = await dial();
  client.send(get("/1"));
  await client.ended;
  assert.ok(!client.rest.includes("half"));
});

test("a service that says bestEffort is served without a record", async (t) => {
  const { state, wrap } = switchable();
  const { dial } = await startOneService(t, {
    plane: { recorder: wrap },
    orders: "    audit: bestEffort",
  });
  const client = await dial();
  state.broken = true;
  for (let turn = 0; turn < 2; turn++) {
    client.send(get("/1"));
    const response = await client.response();
    assert.equal(statusOf(response), 200);
    assert.equal(fieldValue(response, "sallyport-hit"), undefined);
  }
  client.send("GET /1 HTTP/1.1\r\nHost: nowhere\r\n\r\n");
  assert.equal(fieldValue(await client.response(), "sallyport-refusal"), "audit_unavailable");
});

test("a stranger's refusal waits for its record too", async (t) => {
  const { state, wrap } = switchable();
  const { dial, world } = await startOneService(t, { plane: { recorder: wrap } });
  const ghost = await world.issue("ghost");
  state.broken = true;
  const client = await dial(ghost);
  await client.ended;
  assert.equal(client.rest.length, 0);
});

test("no byte of an answer or a refusal is sent before its record is written", async (t) => {
  const order: string[] = [];
  let onDisk = (): string[] => [];
  const { wrap } = switchable((written) => {
    order.push(`flushed ${written} with ${onDisk().length} lines`);
  });
  const { dial, world, upstream } = await startOneService(t, {
    plane: { recorder: wrap },
    allow: '[{ id: web-orders, from: web, paths: ["/orders/**"] }]',
    answer: ({ message }) => ok(message.start),
  });
  onDisk = () => linesOnDisk(world.hitsDir).filter((line) => line.includes('"request"'));
  const client = await dial();
  for (const [which, path] of [
    "/orders/1?token=hunter2",
    "/secret?token=hunter2",
    "/orders/2",
  ].entries()) {
    order.length = 0;
    client.socket.once("data", () => order.push("first byte"));
    client.send(get(path));
    const response = await client.response();
    const id = fieldValue(response, "sallyport-hit") ?? "none";
    assert.deepEqual(order, [`flushed true with ${which + 1} lines`, "first byte"]);
    const line = linesOnDisk(world.hitsDir).find((one) => one.includes(`"${id}"`));
    assert.ok(line !== undefined, `${id} is on disk`);
    assert.ok(line.includes(`"status":${statusOf(response)}`));
  }
  assert.equal(upstream.requests[0]?.message.start, "GET /orders/1?token=hunter2 HTTP/1.1");
  assert.ok(
    !linesOnDisk(world.hitsDir).some((line) => line.includes("hunter2")),
    "a query is never in the log",
  );
});

test("what a long answer came to is in a second line", async (t) => {
  let finish = (): void => undefined;
  const { dial, world } = await startOneService(t, {
    answer({ socket }) {
      socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
      finish = () => void socket.write("6\r\nsecond\r\n0\r\n\r\n");
      return undefined;
    },
  });
  const client = await dial();
  client.send("POST /a HTTP/1.1\r\nHost: orders\r\nContent-Length: 4\r\n\r\nbody");
  await until("the first part", () => client.rest.includes("first"));
  finish();
  const response = await client.response();
  const id = fieldValue(response, "sallyport-hit");
  const closed = await until("the second line", () => world.hits.find(({ of }) => of === id));
  assert.deepEqual(
    [closed.kind, closed.bytesIn, closed.bytesOut, closed.code],
    ["close", 4, 11, undefined],
  );
  assert.ok(linesOnDisk(world.hitsDir).some((line) => line.includes(`"of":"${id}"`)));
});

test("a caller that leaves in the middle is in the record", async (t) => {
  const { dial, world, upstream } = await startOneService(t, {
    answer: () => "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nhalf",
  });
  const client = await dial();
  client.send(get("/a"));
  await until("half", () => client.rest.includes("half"));
  client.close();
  const [service] = upstream.open;
  const closed = await until("its end", () => {
    service?.write("more");
    return world.hits[1];
  });
  assert.deepEqual([closed.kind, closed.code, closed.status], ["close", "client_gone", 200]);
  await until("the service is left too", () => upstream.open.size === 0);

  const early = await dial();
  early.send("POST /a HTTP/1.1\r\nHost: orders\r\nContent-Length: 9\r\n\r\nhalf");
  await until("the service has half", () => upstream.open.size === 1);
  early.close();
  const gone = await until("its line", () => world.hits[2]);
  assert.deepEqual([gone.kind, gone.code, gone.path], ["request", "bad_request", "/a"]);
  await until("the service is left again", () => upstream.open.size === 0);
});

test("one request that turns out malformed is one line", async (t) => {
  const { dial, world, upstream } = await startOneService(t, {
    allow: '[{ id: web-orders, from: web, paths: ["/orders/**"] }]',
  });
  for (const [path, code] of [
    ["/orders/1", "bad_chunk"],
    ["/secret", "not_authorized"],
  ] as const) {
    const before = world.hits.length;
    const client = await dial();
    client.send(
      `POST ${path} HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n`,
    );
    const response = await client.response();
    assert.equal(fieldValue(response, "sallyport-refusal"), code);
    await client.ended;
    assert.ok(client.isCleanEnd);
    assert.equal(client.rest.length, 0, "one answer");
    assert.deepEqual(
      world.hits.slice(before).map((hit) => [hit.code, hit.path]),
      [[code, path]],
    );
  }
  assert.equal(upstream.requests.length, 0);
});

test("a request that never had a canonical path is found by its service and by what it asked for", async (t) => {
  const { dial, world } = await startOneService(t, {
    services: `  billing:
    owner: shop
    upstreams: ["127.0.0.1:9"]
    allow: [{ id: web-billing, from: web }]`,
  });
  for (const [host, sni, path, code, service] of [
    ["orders", undefined, "/orders/..%2fadmin", "bad_path", "orders"],
    ["billing", "orders", "/invoices/1", "misdirected", "billing"],
    ["nobody", undefined, "/a", "unknown_service", undefined],
  ] as const) {
    const client = await dial(undefined, sni);
    client.send(`GET ${path}?token=secret HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
    assert.equal(fieldValue(await client.response(), "sallyport-refusal"), code);
    const hit = world.hits.at(-1);
    assert.deepEqual([hit?.code, hit?.service], [code, service]);
    assert.ok(hit?.path?.startsWith(path), hit?.path);
    client.close();
  }
});
