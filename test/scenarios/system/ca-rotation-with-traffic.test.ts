import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { connect } from "node:tls";
import { certificatesIn } from "../../../src/base/secure-context.ts";
import { renew } from "../../../src/identity/renew/renew.ts";
import { callerOf, startLoad, startSystemWorld, until } from "../../harness/system-world.ts";

test("both authorities are rotated under traffic, and nobody who should notice does not", async (t) => {
  const world = await startSystemWorld(t);
  const web = await world.enrol("web");
  const old = await world.enrol("intern");
  let held = web as Parameters<typeof callerOf>[1];
  const caller = callerOf(world, held, { port: world.ports.data });
  const load = startLoad(world, caller, { everyMs: 5 });
  const gate = join(world.stateDir, "gates", "local");
  const rootsOf = (...parts: string[]): string[] =>
    certificatesIn(readFileSync(join(gate, ...parts), "utf8"));
  const first = rootsOf("data", "bundle.pem")[0];
  await until("the names of the gate are there", async () =>
    /DNS:orders/.test(await namesShown(world.ports.data, held)),
  );

  const step = async (name: "prepare" | "activate" | "retire"): Promise<void> => {
    const before = ["control", "data"].map((plane) =>
      readFileSync(join(gate, plane, "chain.pem"), "utf8"),
    );
    const done = await world.cli("ca", "rotate", `--${name}`, "--force");
    assert.equal(done.code, 0, done.stderr);
    // Callers renew when they will; here, at once. Gates are told.
    held = await renew({ dir: web.dir, clock: Date.now });
    if (name === "prepare") caller.use(held);
    await until(
      `the gate has renewed after ${name}`,
      () =>
        ["control", "data"].every(
          (plane, i) => readFileSync(join(gate, plane, "chain.pem"), "utf8") !== before[i],
        ),
      15_000,
    );
    caller.use(held);
    const seen = load.answers.length;
    await until("traffic flows", () => load.answers.length > seen + 20);
    await until(
      "control and gate are together",
      async () => (await world.metrics()).control_connected === 1,
    );
  };

  await step("prepare");
  assert.equal(new Set(rootsOf("data", "bundle.pem")).size, 4, "two roots, each with its issuer");
  await step("activate");
  await step("retire");
  await load.stop();
  assert.deepEqual(load.failures, [], "no request went without an answer");
  assert.deepEqual(
    load.answers.filter(({ status }) => status !== 200),
    [],
    "and none was refused",
  );
  const now = rootsOf("data", "bundle.pem");
  assert.equal(now.length, 2, "one root is left, with its issuer");
  assert.ok(!now.includes(first as string));
  assert.equal((await world.cli("status")).code, 0, "the operator was renewed too");

  // Who was not renewed is a stranger now; it sees the gate with the new bundle, or it would be the one to refuse.
  const stranger = callerOf(
    world,
    { ...old, bundlePem: held.bundlePem },
    { port: world.ports.data },
  );
  const refused = await stranger.call("/orders/1");
  assert.deepEqual([refused.status, refused.code], [401, "unknown_issuer"]);
  await assert.rejects(callerOf(world, old, { port: world.ports.data }).call("/orders/1"));

  await t.test("TLS 1.2 is refused still", async () => {
    await assert.rejects(
      new Promise((resolve, reject) => {
        const socket = connect({
          ...tlsOf(world.ports.data, held),
          maxVersion: "TLSv1.2",
        });
        socket.once("error", reject);
        socket.once("secureConnect", () => {
          socket.destroy();
          resolve(undefined);
        });
      }),
    );
  });

  await t.test("nothing resumes", async () => {
    const session = join(world.dir, "session.pem");
    const ask = (...args: string[]): Promise<string> =>
      new Promise((resolve) => {
        const child = execFile(
          "openssl",
          [
            "s_client",
            "-connect",
            `127.0.0.1:${world.ports.data}`,
            "-cert",
            join(web.dir, "chain.pem"),
          ]
            .concat("-key", join(web.dir, "key.pem"), "-CAfile", join(web.dir, "bundle.pem"))
            .concat("-servername", "orders", "-ign_eof", ...args),
          (_, stdout, stderr) => resolve(stdout + stderr),
        );
        child.stdin?.end("GET /orders/1 HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n");
      });
    const fresh = await ask("-sess_out", session);
    assert.match(fresh, /200 OK/);
    assert.match(fresh, /New, TLSv1\.3/);
    const again = await ask("-sess_in", session);
    assert.match(again, /New, TLSv1\.3|unable to load session|can't open session/i);
    assert.doesNotMatch(again, /Reused, TLSv1\.3/);
  });
});

function tlsOf(port: number, held: Parameters<typeof callerOf>[1]) {
  return {
    host: "127.0.0.1",
    port,
    servername: "orders",
    key: held.keyPem,
    cert: held.chainPem,
    ca: held.bundlePem,
    checkServerIdentity: () => undefined,
  };
}

function namesShown(port: number, held: Parameters<typeof callerOf>[1]): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(tlsOf(port, held));
    socket.once("error", reject);
    socket.once("secureConnect", () => {
      const names = socket.getPeerX509Certificate()?.subjectAltName ?? "";
      socket.destroy();
      resolve(names);
    });
  });
}
