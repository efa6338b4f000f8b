import assert from "node:assert/strict";
import { test } from "node:test";
import { startOneService } from "../harness/one-service.ts";
import { ok } from "../harness/scripted-upstream.ts";

const both = "[{ id: all, from: [web, app] }]";

test("a connection that carried one caller's body carries nobody else's requests", async (t) => {
  const { dial, upstream, world } = await startOneService(t, {
    allow: both,
    services: "  app: { owner: shop }",
  });
  const web = await dial();
  const app = await dial(await world.issue("app"));
  const ask = async (client: typeof web, text: string): Promise<number | undefined> => {
    client.send(text);
    await client.response();
    return upstream.requests.at(-1)?.connection;
  };
  const get = "GET / HTTP/1.1\r\nHost: orders\r\n\r\n";
  const post = "POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 1\r\n\r\nx";
  assert.equal(await ask(web, get), 1);
  assert.equal(await ask(app, get), 1, "without a body it is everybody's");
  assert.equal(await ask(web, post), 1);
  assert.equal(await ask(web, get), 1, "the caller's own goes on");
  assert.equal(await ask(app, get), 2);
  assert.equal(await ask(app, post), 2);
  assert.equal(await ask(web, post), 1);
  assert.equal(upstream.connections, 2);
});

test("a service that takes bodies for requests answers nobody but who sent them", async (t) => {
  // CL.0: it looks at no Content-Length, and answers the body as a request of its own, a little later.
  const { dial, world } = await startOneService(t, {
    allow: both,
    services: "  app: { owner: shop }",
    onHead(head, socket) {
      const reply = async (text: string): Promise<void> => {
        for (const [, path] of text.matchAll(/(?:GET|POST) (\S+) HTTP/g)) {
          socket.write(ok(`you asked for ${path}`), "latin1");
          await new Promise((done) => setTimeout(done, 3));
        }
      };
      let turn = reply(head);
      socket.on("data", (chunk: Buffer) => {
        turn = turn.then(() => reply(chunk.toString("latin1")));
      });
      return true;
    },
  });
  const attacker = await dial();
  const victim = await dial(await world.issue("app"));
  const smuggled = "GET /smuggled HTTP/1.1\r\nHost: orders\r\n\r\n";
  for (let round = 0; round < 20; round++) {
    attacker.send("GET /a HTTP/1.1\r\nHost: orders\r\n\r\n");
    attacker.send(
      `POST /a HTTP/1.1\r\nHost: orders\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`,
    );
    victim.send("GET /mine HTTP/1.1\r\nHost: orders\r\n\r\n");
    const response = await victim.response();
    assert.match(response.body.toString(), /^you asked for \/mine$/);
  }
});
