import assert from "node:assert/strict";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { Duplex } from "node:stream";
import { type TestContext, test } from "node:test";
import { connect, createServer, type TLSSocket } from "node:tls";
import { forge } from "../../../test/harness/forge.ts";
import { until } from "../../../test/harness/until.ts";
import { isLent, lentBytes, readLent } from "./lent-reads.ts";

/** Both ends of some TLS connections: what each server end brought is in `heard`. */
async function tlsPairs(t: TestContext, count: number) {
  const { keyPem, chainPem } = await forge({ uris: ["spiffe://test.internal/service/web"] });
  const server = createServer({ key: keyPem, cert: chainPem, allowHalfOpen: true });
  t.after(() => server.close());
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const pairs: { client: TLSSocket; served: TLSSocket; heard: Buffer[] }[] = [];
  for (let i = 0; i < count; i++) {
    const heard: Buffer[] = [];
    const accepted = once(server, "secureConnection");
    // Read from the first moment on, as a session does: bytes may come with the end of the handshake.
    server.once("secureConnection", (socket) =>
      readLent(socket, (bytes) => heard.push(Buffer.from(bytes))),
    );
    const client = connect({ port, host: "127.0.0.1", rejectUnauthorized: false });
    client.write("with the handshake ");
    const [served] = (await accepted) as [TLSSocket];
    t.after(() => {
      client.destroy();
      served.destroy();
    });
    pairs.push({ client, served, heard });
  }
  return pairs;
}

const text = (heard: readonly Buffer[]): string => Buffer.concat(heard).toString("latin1");

test("a TLS socket that was accepted is read into the lent bytes, on this Node", async (t) => {
  const [pair] = await tlsPairs(t, 1);
  assert.ok(
    pair && isLent(pair.served),
    "if Node moved it, the gate got dearer: find out where to",
  );
  pair.served.removeAllListeners("data");
  let lent: Buffer | undefined;
  readLent(pair.served, (bytes) => {
    lent = bytes;
  });
  pair.client.write("more");
  const bytes = await until("it came", () => lent);
  assert.equal(bytes.buffer, lentBytes.buffer);
});

test("each socket brings its own bytes, in order, whoever else is read", async (t) => {
  const pairs = await tlsPairs(t, 8);
  const parts = Array.from({ length: 400 }, (_, i) => `${i} `.repeat((i * 37) % 911));
  for (const part of parts)
    for (const [i, { client }] of pairs.entries()) client.write(`${i}:${part}`);
  for (const [i, { heard }] of pairs.entries()) {
    const whole = `with the handshake ${parts.map((part) => `${i}:${part}`).join("")}`;
    await until("all came", () => text(heard).length === whole.length);
    assert.equal(text(heard), whole);
  }
});

test("a paused socket stops its peer, and goes on where it was", async (t) => {
  const [pair] = await tlsPairs(t, 1);
  assert.ok(pair);
  await until("the first bytes came", () => pair.heard.length > 0);
  pair.served.pause();
  const sent = Buffer.alloc(20 * 1024 * 1024, "0123456789abcdef");
  pair.client.write(sent);
  await until(
    "the peer waits",
    () => pair.client.bytesWritten > 0 && pair.client.writableNeedDrain,
  );
  const early = Buffer.concat(pair.heard).length;
  assert.ok(early < 200_000, `${early} bytes came while it was paused`);
  pair.served.resume();
  await until("all came", () => Buffer.concat(pair.heard).length === sent.length + 19);
  assert.ok(Buffer.concat(pair.heard).subarray(19).equals(sent));
});

test("the next to read hears everything from then on, and the end is told", async (t) => {
  const [pair] = await tlsPairs(t, 1);
  assert.ok(pair);
  await until("the first bytes came", () => pair.heard.length > 0);
  const second: Buffer[] = [];
  readLent(pair.served, (bytes) => second.push(Buffer.from(bytes)));
  const ended = once(pair.served, "end");
  pair.client.end("the rest");
  await ended;
  assert.equal(text(pair.heard), "with the handshake ");
  assert.equal(text(second), "the rest");
  assert.ok(!pair.served.destroyed, "half-closed is not closed");
});

test("a socket without a handle of its own is heard as usual", async () => {
  const stream = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() });
  const heard: string[] = [];
  const first: string[] = [];
  readLent(stream as never, (bytes) => first.push(bytes.toString()));
  readLent(stream as never, (bytes) => heard.push(bytes.toString()));
  assert.ok(!isLent(stream as never));
  stream.push("hello");
  await until("it came", () => heard.length > 0);
  assert.deepEqual([first, heard], [[], ["hello"]]);
});
