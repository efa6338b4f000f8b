import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { bounds } from "../../src/proxy/bounds.ts";
import { statusOf } from "../harness/http-text.ts";
import { startOneService } from "../harness/one-service.ts";
import { until } from "../harness/until.ts";

async function quietly(t: TestContext, port: number, options: object = {}): Promise<Socket> {
  const socket = connect({ host: "127.0.0.1", port, ...options });
  socket.on("error", () => undefined);
  t.after(() => socket.destroy());
  await once(socket, "connect");
  return socket;
}

test("more silent connections than one address may have do not keep a caller of that address out", async (t) => {
  const service = await startOneService(t);
  const crowd: Promise<Socket>[] = [];
  for (let which = 0; which < bounds.handshakesPerSource + 50; which++)
    crowd.push(quietly(t, service.world.port));
  await Promise.all(crowd);
  // They count as silent a moment after they came, and count until their time is up.
  await until("a silent one had to go", () =>
    service.world.hits.some(({ code }) => code === "too_many_handshakes"),
  );
  const client = await service.dial();
  client.send("GET / HTTP/1.1\r\nHost: orders\r\n\r\n");
  assert.equal(statusOf(await client.response()), 200);
});

test("resetting and coming again from one port does not use up an address's places", async (t) => {
  const service = await startOneService(t);
  // An address that nobody else here uses: its ports are taken by nobody in between.
  const localAddress = "127.44.3.2";
  const first = await quietly(t, service.world.port, { localAddress });
  const { localPort } = first;
  first.resetAndDestroy();
  await once(first, "close");
  for (let round = 0; round < bounds.handshakesPerSource + 50; round++) {
    const { port } = service.world;
    const socket = connect({ host: "127.0.0.1", port, localAddress, localPort });
    socket.on("error", () => undefined);
    await once(socket, "connect");
    socket.write("\x16");
    socket.resetAndDestroy();
    await once(socket, "close");
  }
  await until(
    "every one is recorded",
    () => service.world.hits.length > bounds.handshakesPerSource,
  );
  const client = await service.dial();
  client.send("GET / HTTP/1.1\r\nHost: orders\r\n\r\n");
  assert.equal(statusOf(await client.response()), 200);
});

test("a hello in thousands of records, byte after byte, costs the gate next to nothing", async (t) => {
  const service = await startOneService(t);
  const stranger = await quietly(t, service.world.port, { noDelay: true });
  const flood = Buffer.alloc(2_700 * 6);
  for (let at = 0; at < flood.length; at += 6) flood.set([22, 3, 3, 0, 1, 0], at);
  flood.set([22, 3, 3, 0, 1, 1, 22, 3, 3, 0, 1, 0, 22, 3, 3, 0, 1, 62], 0);
  const cpu = process.cpuUsage();
  stranger.write(flood.subarray(0, 300));
  for (let at = 300; at < 700 && !stranger.destroyed; at++) {
    stranger.write(flood.subarray(at, at + 1));
    await new Promise(setImmediate);
  }
  await until("it is refused", () =>
    service.world.hits.some(({ code }) => code === "handshake_failed"),
  );
  const { user } = process.cpuUsage(cpu);
  assert.ok(user < 2_000_000, `${user} µs`);
});
