import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "node:tls";
import { shopRegister, startSystemWorld, until } from "../../harness/system-world.ts";

const services = 600;

test("a gate has a certificate for every name of a large register, and says so until then", async (t) => {
  const world = await startSystemWorld(t, { workers: 2 });
  const web = await world.enrol("web");
  await until("the first names are there", async () => (await world.metrics()).names_missing === 0);
  const serialBefore = (await shown("orders")).serialNumber;
  const many = Array.from(
    { length: services },
    (_, i) =>
      `  s${i}: { owner: t, upstreams: ["127.0.0.1:${10_000 + i}"], allow: [{ id: r0, from: web }] }\n`,
  );
  const startMs = performance.now();
  await world.apply(`${shopRegister(world.ports)}${many.join("")}`);
  const early = (await world.metrics()).names_missing ?? 0;
  if (early > 0) {
    const status = await world.cli("status");
    t.diagnostic(`${early} missing at first, then status exits ${status.code}`);
  }
  await until(
    "every name is there",
    async () => (await world.metrics()).names_missing === 0,
    60_000,
  );
  t.diagnostic(`${2 * services} names after ${Math.round(performance.now() - startMs)} ms`);
  for (const name of ["s0", "http.s0", "s511", "s512", "s599", "http.s599"])
    assert.equal((await shown(name)).checkHost(name), name, name);
  assert.equal(
    (await shown("orders")).serialNumber,
    serialBefore,
    "only what is lacking is asked for",
  );
  // What the gate says of itself is a second old at most.
  await until("status says so", async () => (await world.cli("status")).code === 0);

  /** The leaf that the gate shows for a name. */
  function shown(name: string) {
    const { keyPem, chainPem, bundlePem } = web;
    return new Promise<import("node:crypto").X509Certificate>((resolve, reject) => {
      const socket = connect({
        host: "127.0.0.1",
        port: world.ports.data,
        servername: name,
        key: keyPem,
        cert: chainPem,
        ca: bundlePem,
        checkServerIdentity: () => undefined,
      });
      socket.once("error", reject);
      socket.once("secureConnect", () => {
        const leaf = socket.getPeerX509Certificate();
        socket.destroy();
        if (leaf) resolve(leaf);
        else reject(new Error("no certificate"));
      });
    });
  }
});
