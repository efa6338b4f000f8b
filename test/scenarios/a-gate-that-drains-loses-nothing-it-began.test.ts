import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { test } from "node:test";
import { fieldValue, statusOf } from "../harness/http-text.ts";
import { startOneService } from "../harness/one-service.ts";
import { ok } from "../harness/scripted-upstream.ts";
import { until } from "../harness/until.ts";

const get = "GET /a HTTP/1.1\r\nHost: orders\r\n\r\n";

test("what is under way is finished, what rests is closed, and nobody new is let in", async (t) => {
  let answer = (_text: string): void => undefined;
  const { dial, world, upstream } = await startOneService(t, {
    answer: ({ message }) =>
      message.start.includes("/slow") ? new Promise((done) => (answer = done)) : ok(),
  });
  const resting = await dial();
  resting.send(get);
  await resting.response();
  const busy = await dial();
  busy.send(get.replace("/a", "/slow"));
  await until("the service was asked", () => upstream.requests.length === 2);
  const handshaking = connect(world.port, "127.0.0.1");
  t.after(() => handshaking.destroy());
  handshaking.on("error", () => undefined);
  await once(handshaking, "connect");

  const drained = world.plane.drain(10_000);
  await until("it ends", () => resting.isEnded);
  assert.ok(resting.isCleanEnd && resting.rest.length === 0);
  const late = connect(world.port, "127.0.0.1");
  const [error] = (await once(late, "error")) as [NodeJS.ErrnoException];
  assert.equal(error.code, "ECONNREFUSED");
  assert.ok(!busy.isEnded);

  answer(ok("finished"));
  const response = await busy.response();
  assert.equal(response.body.toString(), "finished");
  assert.equal(fieldValue(response, "connection"), "close");
  await until("it ends, long before the drain is over", () => busy.isEnded);
  busy.close();
  resting.close();
  await drained;
  await until("the service's connections are closed", () => upstream.open.size === 0);
  assert.deepEqual(
    world.hits.map(({ kind, code }) => [kind, code]),
    [
      ["request", undefined],
      ["request", undefined],
    ],
  );
});

test("an answer whose head went out before the drain ends its connection with its last byte", async (t) => {
  const { dial, world, upstream } = await startOneService(t, {
    answer: () => "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf",
  });
  const client = await dial();
  client.send(get);
  await until("half", () => client.rest.includes("half"));
  const drained = world.plane.drain(10_000);
  for (const socket of upstream.open) socket.write("done");
  assert.equal((await client.response()).body.toString(), "halfdone");
  await until("it ends, long before the drain is over", () => client.isEnded);
  assert.ok(client.isCleanEnd);
  client.close();
  await drained;
});

test("what takes longer than the drain is cut, and the record says so", async (t) => {
  const { dial, world } = await startOneService(t, {
    answer: () => "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf",
  });
  const client = await dial();
  client.send(get);
  await until("half", () => client.rest.includes("half"));
  await world.plane.drain(50);
  await until("it ends, long before the drain is over", () => client.isEnded);
  assert.deepEqual([world.hits.at(-1)?.kind, world.hits.at(-1)?.code], ["close", "draining"]);
});

test("requests that wait behind each other are not begun any more", async (t) => {
  let answer = (_text: string): void => undefined;
  const { dial, world, upstream } = await startOneService(t, {
    answer: () => new Promise((done) => (answer = done)),
  });
  const client = await dial();
  client.send(get + get);
  await until("the first was asked", () => upstream.requests.length === 1);
  const drained = world.plane.drain(10_000);
  answer(ok());
  assert.equal(statusOf(await client.response()), 200);
  await until("it ends, long before the drain is over", () => client.isEnded);
  client.close();
  await drained;
  assert.equal(upstream.requests.length, 1);
});
