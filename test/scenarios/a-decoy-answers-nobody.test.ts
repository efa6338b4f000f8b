import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { test } from "node:test";
import { startOneService } from "../harness/one-service.ts";
import { boundDescriptor } from "../harness/plane-world.ts";
import { until } from "../harness/until.ts";

test("whoever touches a decoy gets no byte, and leaves a hit with its first bytes", async (t) => {
  const { world, upstream } = await startOneService(t);
  const { fd, port } = boundDescriptor("127.0.0.1");
  await world.plane.open({
    fd,
    allowed: { host: "127.0.0.1", port },
    door: "decoy",
    admits: () => true,
  });
  const touches: readonly (readonly [sends: string | undefined, detail: RegExp | undefined])[] = [
    ["\x00\x01PING\\\r\n", /first bytes: \\x00\\x01PING\\x5c\\x0d\\x0a/],
    ["GET / HTTP/1.1\r\nHost: orders\r\n\r\n", /first bytes: GET \/ HTTP\/1\.1\\x0d\\x0a/],
    [undefined, undefined],
  ];
  for (const [which, [sends, detail]] of touches.entries()) {
    const socket = connect(port, "127.0.0.1");
    t.after(() => socket.destroy());
    let got = 0;
    socket.on("data", (chunk) => {
      got += chunk.length;
    });
    socket.on("error", () => undefined);
    const closed = once(socket, "close");
    if (sends === undefined) socket.end();
    else socket.write(sends, "latin1");
    await closed;
    assert.equal(got, 0);
    const hit = await until("its hit", () => world.hits[which]);
    assert.deepEqual(
      [hit.plane, hit.code, hit.decision, hit.status],
      ["decoy", "decoy", "refused", 0],
    );
    assert.ok(hit.caller === undefined && hit.peer?.startsWith("127.0.0.1:"));
    if (detail) assert.match(hit.detail ?? "", detail);
  }
  assert.equal(world.hits.length, touches.length);
  await world.plane.shut("decoy", { host: "127.0.0.1", port });
  const late = connect(port, "127.0.0.1");
  await once(late, "error");
  assert.equal(upstream.bytes, 0);
});
