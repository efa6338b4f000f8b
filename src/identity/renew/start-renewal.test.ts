import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { type TestContext, test } from "node:test";
import { putExpiredLeaf } from "../../../test/harness/expired-leaf.ts";
import {
  controlLeaf,
  type IssuanceWorld,
  startIssuanceWorld,
  startTestDoor,
} from "../../../test/harness/issuance-world.ts";
import { serverOptions } from "../../base/secure-context.ts";
import {
  CredentialsUnusable,
  readCredentials,
  writeCredentials,
} from "../credentials/credential-directory.ts";
import { enroll, enrollGate } from "../enroll/enroll.ts";
import { JoinRefused, JoinUnreachable } from "../enroll/join-request.ts";
import { makeCsr, makeKey } from "../enroll/make-csr.ts";
import { renew } from "./renew.ts";
import { type RenewalOptions, startRenewal } from "./start-renewal.ts";

const minuteMs = 60_000;

async function startWeb(t: TestContext) {
  const world = await startIssuanceWorld(t);
  const door = await startTestDoor(world);
  const { token } = await world.issuance.createToken({
    principal: world.principal("service", "web"),
    createdBy: "admin/first",
  });
  const dir = join(world.dir, "web");
  const { credentials } = await enroll({ token, out: dir, clock: Date.now });
  return { world, door, dir, first: credentials };
}

/** Starts renewal with clocks of the test's, and collects what it says; closed after the test. */
async function start(world: IssuanceWorld, dir: string, more: Partial<RenewalOptions> = {}) {
  const said: string[] = [];
  const renewed: string[] = [];
  const failed: unknown[] = [];
  let wake = () => {};
  const note = (fields: object, message: string) => {
    said.push(`${message} ${JSON.stringify(fields)}`);
    wake();
  };
  const renewal = await startRenewal({
    dir,
    clock: () => world.clock.now,
    monotonic: () => performance.now(),
    random: () => 0,
    log: { info: note, warn: note, error: note },
    onRenewed: (next) => {
      renewed.push(next.identity?.serial ?? "");
      wake();
    },
    onFailed: (cause) => void failed.push(cause),
    ...more,
  });
  world.atEnd(() => renewal.close());
  /** Waits for a condition; the clock of the test's patience is the runner's. */
  const until = async (holds: () => boolean) => {
    while (!holds()) await new Promise<void>((resolve) => (wake = resolve));
  };
  return { renewal, said, renewed, failed, until };
}

test("at two thirds of life there is a new leaf with a new key, and not before", {
  timeout: 20_000,
}, async (t) => {
  const { world, dir, first, door } = await startWeb(t);
  const early = await start(world, dir);
  await early.renewal.close();
  assert.deepEqual(door.requests, ["POST /join/v1/enrol"], "nothing to do yet");
  world.clock.now += 41 * minuteMs;
  const { renewed, until } = await start(world, dir);
  await until(() => renewed.length === 1);
  const held = await readCredentials(dir);
  assert.notEqual(held.keyPem, first.keyPem);
  assert.equal(held.identity?.serial, renewed[0]);
  assert.equal(world.leaves.at(-1)?.predecessor, first.identity?.serial);
});

test("a lost answer, a restart and another lost answer end in one line without a fork", {
  timeout: 20_000,
}, async (t) => {
  const { world, dir, door } = await startWeb(t);
  door.loseAnswers = 2;
  for (let i = 0; i < 2; i++)
    await assert.rejects(renew({ dir, clock: Date.now }), JoinUnreachable);
  await renew({ dir, clock: Date.now });
  await renew({ dir, clock: Date.now });
  assert.equal(world.events.includes("fork"), false);
  assert.deepEqual(
    world.leaves.slice(1).map((leaf) => leaf.via),
    ["token", "renewal", "renewal"],
  );
});

test("whoever stole a leaf and its key cannot go on unseen", { timeout: 20_000 }, async (t) => {
  const { world, dir, first } = await startWeb(t);
  const stolen = join(world.dir, "stolen");
  await writeCredentials(stolen, first);
  await renew({ dir, clock: Date.now });
  await assert.rejects(
    renew({ dir: stolen, clock: Date.now }),
    (cause) => cause instanceof JoinRefused && cause.code === "fork",
  );
  assert.ok(world.events.includes("fork"));
});

test("once both clocks say that it is over, whoever wants to know is told, and nothing more is asked", {
  timeout: 20_000,
}, async (t) => {
  const { world, dir, door } = await startWeb(t);
  await putExpiredLeaf(world, dir);
  const over: JoinRefused[] = [];
  const asked = () => door.requests.filter((line) => line.includes("renew")).length;
  const { said, until, renewal } = await start(world, dir, { onOver: (cause) => over.push(cause) });
  await until(() => said.length === 1);
  assert.equal(over[0]?.code, "expired");
  assert.doesNotMatch(said[0] ?? "", /"again"/);
  renewal.soon();
  await renewal.close();
  assert.equal(asked(), 1, "not even when hurried");
});

test("where control alone says that it is over, its clock may be wrong: attempts go on", {
  timeout: 20_000,
}, async (t) => {
  const { world, dir } = await startWeb(t);
  await putExpiredLeaf(world, dir);
  const over: unknown[] = [];
  const { said, until } = await start(world, dir, {
    clock: () => Date.now() - 70 * minuteMs,
    onOver: (cause) => over.push(cause),
  });
  await until(() => said.length > 0);
  assert.match(said.join(), /could not be renewed: .*"again":"\d+ s"/);
  assert.deepEqual(over, []);
});

test("an expired leaf is shown all the same, and renewed where the service has grace", {
  timeout: 20_000,
}, async (t) => {
  const { world, dir } = await startWeb(t);
  await putExpiredLeaf(world, dir);
  await assert.rejects(
    renew({ dir, clock: Date.now }),
    (cause) => cause instanceof JoinRefused && cause.code === "expired",
  );
  world.grace.set("service/web", 24 * 60 * minuteMs);
  const next = await renew({ dir, clock: Date.now });
  assert.ok(Date.parse(new X509Certificate(next.chainPem).validTo) > Date.now());
  assert.equal(world.leaves.at(-1)?.via, "grace");
});

test("a refusal and an outage leave the old leaf in use, and are told", {
  timeout: 20_000,
}, async (t) => {
  const { world, dir, first } = await startWeb(t);
  world.clock.now += 41 * minuteMs;
  world.revoked.set("service/web", world.clock.now);
  const { failed, said, until } = await start(world, dir);
  await until(() => said.length > 0);
  assert.ok(failed[0] instanceof JoinRefused && failed[0].code === "revoked");
  assert.match(said[0] ?? "", /could not be renewed: .*"again":"[12] s"/);
  assert.equal((await readCredentials(dir)).keyPem, first.keyPem);
  assert.ok(!said.some((line) => line.includes("PRIVATE")));
});

test("a gate renews both of its leaves, and orders that come together are one", {
  timeout: 20_000,
}, async (t) => {
  const world = await startIssuanceWorld(t);
  await startTestDoor(world);
  const { token } = await world.issuance.createToken({
    principal: world.principal("gate", "g1"),
    createdBy: "admin/first",
  });
  const dataOut = join(world.dir, "g1", "data");
  await enrollGate({
    token,
    controlOut: join(world.dir, "g1", "control"),
    dataOut,
    clock: Date.now,
  });
  const { renewal, renewed, until } = await start(world, dataOut);
  renewal.soon();
  renewal.soon();
  await until(() => renewed.length === 1);
  const held = await readCredentials(dataOut);
  assert.equal(held.identity?.plane, "data");
  const control = await renew({ dir: join(world.dir, "g1", "control"), clock: Date.now });
  assert.equal(control.identity?.plane, "control");
});

test("answers that are not ours are not installed", { timeout: 20_000 }, async (t) => {
  const { world, dir, first } = await startWeb(t);
  const own = await controlLeaf(world);
  let says: (csr: string) => Promise<object> = async () => ({});
  const server = createServer(
    serverOptions({
      ...own,
      bundlePem: world.authorities.control.bundlePem() + world.authorities.data.bundlePem(),
    }),
    async (request, answer) => {
      let body = "";
      for await (const piece of request) body += piece;
      answer.end(JSON.stringify(await says(JSON.parse(body).csr)));
    },
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  assert.ok(first.identity);
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  await writeCredentials(dir, { ...first, identity: { ...first.identity, join: address } });
  const { token } = await world.issuance.createToken({
    principal: world.principal("service", "orders"),
    createdBy: "admin/first",
  });
  const controlBundle = world.authorities.control.bundlePem();
  const bundle = world.authorities.data.bundlePem();
  const rows: [claim: string, (csr: string) => Promise<object>][] = [
    ["nothing", async () => ({})],
    ["numbers", async () => ({ chain: 1, bundle: 2, controlBundle: 3 })],
    ["our own old chain", async () => ({ chain: first.chainPem, bundle, controlBundle })],
    [
      "another's leaf for our key",
      async (csr) => {
        const other = await world.issuance.enrol({ token, csr, peerAddress: "" });
        return { ...other.leaves.data, controlBundle };
      },
    ],
    [
      "our name for another key",
      async () => {
        const leaf = new X509Certificate(first.chainPem);
        const csr = await makeCsr(await makeKey());
        return world.issuance.renew({ leaf, plane: "data", csr, peerAddress: "" });
      },
    ],
    [
      "a bundle that the chain does not lead to",
      async () => ({ chain: first.chainPem, bundle: controlBundle, controlBundle }),
    ],
    ["no control roots", async () => ({ chain: first.chainPem, bundle, controlBundle: "" })],
  ];
  for (const [claim, answer] of rows) {
    says = answer;
    await assert.rejects(renew({ dir, clock: Date.now }), JoinUnreachable, claim);
    assert.equal((await readCredentials(dir)).keyPem, first.keyPem, claim);
  }
});

test("the hook runs after a renewal, with whose and where, and again when it fails", {
  timeout: 30_000,
}, async (t) => {
  const { world, dir } = await startWeb(t);
  const note = join(world.dir, "hook.txt");
  world.clock.now += 41 * minuteMs;
  let skewMs = 0;
  const command = `echo "$SALLYPORT_PRINCIPAL $SALLYPORT_DIR \${SECRET-none}" >> ${note}; test $(wc -l < ${note}) -ge 2`;
  const { said, renewal, until } = await start(world, dir, {
    monotonic: () => performance.now() + skewMs,
    hook: { command, env: { PATH: process.env.PATH } },
  });
  await until(() => said.some((line) => line.includes("the hook failed and will run again")));
  skewMs += 30_000;
  renewal.soon();
  await until(() => said.some((line) => line.startsWith("the hook ran")));
  const lines = (await readFile(note, "utf8")).trim().split("\n");
  assert.equal(lines.length >= 2, true);
  assert.equal(lines[0], `spiffe://shop.internal/service/web ${dir} none`);
});

test("closing ends a request in flight and a hook that hangs", { timeout: 20_000 }, async (t) => {
  const { world, dir } = await startWeb(t);
  world.clock.now += 41 * minuteMs;
  const { renewal, renewed, until } = await start(world, dir, {
    hook: { command: "sleep 600", env: { PATH: process.env.PATH } },
  });
  await until(() => renewed.length === 1);
  const began = performance.now();
  await renewal.close();
  await renewal.close();
  assert.ok(performance.now() - began < 5_000);
});

test("a directory with nothing to renew is refused at once", async (t) => {
  const { world, dir, first } = await startWeb(t);
  const { identity: _, ...bare } = first;
  await writeCredentials(dir, bare);
  await assert.rejects(start(world, dir), CredentialsUnusable);
  await assert.rejects(start(world, join(world.dir, "nothing")), CredentialsUnusable);
});
