import assert from "node:assert/strict";
import { createPrivateKey, generateKeyPairSync, sign as signBytes } from "node:crypto";
import { readFile, stat, writeFile } from "node:fs/promises";
import { request } from "node:https";
import type { Socket } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { registerOf, startFeedWorld, until } from "../../test/harness/feed-world.ts";
import type { Credentials } from "../base/credentials.ts";
import { silentLog } from "../base/log.ts";
import { clientContext } from "../base/secure-context.ts";
import { keyId } from "../base/signature.ts";
import type { Hit } from "../model/hit.ts";
import type { SignedSnapshot } from "../model/snapshot.ts";
import { encode, type Hello, lineBytesMax } from "./protocol.ts";
import { announceSuccessor } from "./succession.ts";

test("a snapshot reaches the gate, is kept 0600, and is acknowledged", async (t) => {
  const world = await startFeedWorld(t);
  const control = await world.startControl({ latest: world.sign(1) });
  const gate = await world.startGate(control.address);
  await until(() => gate.subscription.lastGood()?.version === 1, "version 1");
  control.publish(world.sign(2));
  assert.deepEqual(await control.publisher.confirmed({ epoch: 1, version: 2 }, 2_000), {
    confirmed: ["front"],
    missing: [],
  });
  const [status] = control.publisher.gates();
  assert.equal(status?.connected, true);
  assert.equal(status?.running?.version, 2);
  assert.deepEqual(status?.addresses, ["127.0.0.1:7443"]);
  assert.equal(gate.subscription.state().problem, undefined);
  for (const file of ["snapshot.json", "feed.json"])
    assert.equal((await stat(join(gate.dir, file))).mode & 0o777, 0o600, file);
});

const elsewhere = generateKeyPairSync("ed25519");
const stranger = (payload: string): SignedSnapshot => ({
  payload,
  signature: signBytes(null, Buffer.from(payload), elsewhere.privateKey).toString("base64url"),
  key: keyId(elsewhere.publicKey.export({ format: "pem", type: "spki" }).toString()),
});

test("a bad snapshot leaves the old one in force and is visible to control", async (t) => {
  const world = await startFeedWorld(t);
  const control = await world.startControl({ latest: world.sign(5) });
  const gate = await world.startGate(control.address, {
    with: {
      onSnapshot: (snapshot) => (snapshot.version === 40 ? "rule 7 cannot be compiled" : undefined),
    },
  });
  await until(() => gate.subscription.lastGood()?.version === 5, "version 5");
  const other = registerOf({ networks: { mesh: ["10.0.0.0/8"] } });
  const unknownKey = { ...registerOf(), onlyOnSundays: true };
  const rows: [claim: string, signed: SignedSnapshot, code: string][] = [
    ["signed by a stranger", stranger(world.sign(6).payload), "bad_signature"],
    [
      "signed by a stranger who names our key",
      { ...stranger(world.sign(6).payload), key: world.snapshotKey.id },
      "bad_signature",
    ],
    [
      "one byte changed after signing",
      { ...world.sign(6), payload: world.sign(6).payload.replace('"version":6', '"version":7') },
      "bad_signature",
    ],
    ["not JSON", world.snapshotKey.signSnapshot("register!"), "bad_shape"],
    ["no register", world.snapshotKey.signSnapshot('{"epoch":1,"version":6}'), "bad_shape"],
    [
      "a register with a condition this gate does not know",
      world.sign(6, { register: unknownKey }),
      "bad_shape",
    ],
    ["a digest of something else", world.sign(6, { digest: "0".repeat(64) }), "bad_digest"],
    ["an older version", world.sign(4), "older"],
    ["a version of an older epoch", world.sign(9, { epoch: 0 }), "older"],
    [
      "another register under the version in force",
      world.sign(5, { register: other }),
      "conflicting",
    ],
    ["what cannot be compiled", world.sign(40), "not_served"],
  ];
  for (const [claim, signed, code] of rows) {
    control.publish(signed);
    await until(() => control.publisher.gates()[0]?.problem?.code === code, `${claim}: ${code}`);
    assert.equal(gate.subscription.lastGood()?.version, 5, claim);
    assert.equal(control.publisher.gates()[0]?.running?.version, 5, claim);
    assert.notEqual(gate.subscription.state().problem, undefined, claim);
    const kept = JSON.parse(await readFile(join(gate.dir, "snapshot.json"), "utf8"));
    assert.equal(JSON.parse(kept.payload).version, 5, claim);
  }
  control.publish(world.sign(41));
  await until(() => control.publisher.gates()[0]?.running?.version === 41, "a good one again");
  assert.equal(control.publisher.gates()[0]?.problem, undefined);
  assert.equal(gate.subscription.state().problem, undefined);
});

test("a gate starts from disk without its control plane, and never below what it served", async (t) => {
  const world = await startFeedWorld(t);
  const control = await world.startControl({ latest: world.sign(7) });
  const gate = await world.startGate(control.address);
  await control.publisher.confirmed({ epoch: 1, version: 7 }, 2_000);
  await gate.subscription.close();
  await control.close();

  const again = await world.startGate(control.address);
  assert.equal(again.subscription.lastGood()?.version, 7, "served before anything was reached");
  assert.equal(again.subscription.state().connected, false);
  await again.subscription.close();

  // Control comes back from an old backup, without a new epoch.
  const restored = await world.startControl({ port: control.port, latest: world.sign(6) });
  const third = await world.startGate(restored.address);
  await until(() => restored.publisher.gates()[0]?.problem?.code === "older", "refused");
  assert.equal(third.subscription.lastGood()?.version, 7);
  restored.publish(world.sign(1, { epoch: 2 }));
  await until(() => third.subscription.lastGood()?.epoch === 2, "a new epoch is newer");
});

test("a snapshot on disk that was tampered with is not served; neither is any when the memory is damaged", async (t) => {
  const world = await startFeedWorld(t);
  const control = await world.startControl({ latest: world.sign(7) });
  const gate = await world.startGate(control.address);
  await control.publisher.confirmed({ epoch: 1, version: 7 }, 2_000);
  await gate.subscription.close();
  await control.close();
  const file = join(gate.dir, "snapshot.json");
  const good = await readFile(file, "utf8");

  await writeFile(file, good.replace("orders", "0rders"));
  const second = await world.startGate(control.address);
  assert.equal(second.subscription.lastGood(), undefined);
  await second.subscription.close();

  await writeFile(file, good);
  await writeFile(join(gate.dir, "feed.json"), "{");
  const third = await world.startGate(control.address);
  assert.equal(third.subscription.lastGood(), undefined);
  assert.match(String(third.subscription.state().problem), /not connected|nothing on disk/);

  // What it served is still the floor.
  const restored = await world.startControl({ port: control.port, latest: world.sign(6) });
  await until(() => restored.publisher.gates()[0]?.problem?.code === "older", "refused");
});

test("a gate that was killed while taking a snapshot into service starts with it", async (t) => {
  const world = await startFeedWorld(t);
  const control = await world.startControl({ latest: world.sign(1) });
  const gate = await world.startGate(control.address);
  await control.publisher.confirmed({ epoch: 1, version: 1 }, 2_000);
  await gate.subscription.close();
  await control.close();
  await writeFile(join(gate.dir, "snapshot.next.json"), JSON.stringify(world.sign(2)));
  const again = await world.startGate(control.address);
  assert.equal(again.subscription.lastGood()?.version, 2);
});

test("control killed and back on the same port: the gate returns and catches up", async (t) => {
  const world = await startFeedWorld(t);
  const first = await world.startControl({ latest: world.sign(1) });
  const gate = await world.startGate(first.address);
  await first.publisher.confirmed({ epoch: 1, version: 1 }, 2_000);
  await first.close();
  await until(() => !gate.subscription.state().connected, "it noticed");
  assert.equal(gate.subscription.lastGood()?.version, 1);
  const second = await world.startControl({ port: first.port, latest: world.sign(2) });
  await second.publisher.confirmed({ epoch: 1, version: 2 }, 3_000);
  assert.equal(gate.subscription.lastGood()?.version, 2);
  await second.close();
  const third = await world.startControl({ port: first.port, latest: world.sign(3) });
  assert.deepEqual((await third.publisher.confirmed({ epoch: 1, version: 3 }, 5_000)).missing, []);
});

test("a revocation is confirmed within a second by those who are there, and the absent are named", async (t) => {
  const world = await startFeedWorld(t);
  const control = await world.startControl({
    latest: world.sign(1),
    enrolled: ["away", "back", "front"],
  });
  const front = await world.startGate(control.address);
  const back = await world.startGate(control.address, { name: "back" });
  await until(() => control.publisher.gates().filter((gate) => gate.running).length === 2, "both");
  const at = Date.now();
  const { confirmed } = control.publisher.revoke({ principal: "service/web", at });
  await until(() => front.revoked.length === 1 && back.revoked.length === 1, "applied", 1_000);
  assert.deepEqual(await confirmed(300), { confirmed: ["back", "front"], missing: ["away"] });
  // A gate that comes later is told what it missed, although no snapshot lists it yet.
  const away = await world.startGate(control.address, { name: "away" });
  assert.deepEqual((await confirmed(2_000)).missing, []);
  assert.equal(away.revoked[0]?.principal, "service/web");
});

test("a revocation once heard is in every later view, whatever comes and however often the gate starts", async (t) => {
  const world = await startFeedWorld(t);
  const control = await world.startControl({ latest: world.sign(1) });
  const gate = await world.startGate(control.address);
  await control.publisher.confirmed({ epoch: 1, version: 1 }, 2_000);
  const revocation = { principal: "service/web", serial: "0a", at: Date.now() };
  assert.deepEqual((await control.publisher.revoke(revocation).confirmed(2_000)).missing, []);
  control.publish(world.sign(2, { at: Date.now() - 1_000 }));
  await until(() => gate.subscription.lastGood()?.version === 2, "version 2");
  assert.deepEqual(gate.served.at(-1)?.revocations, [revocation]);
  await gate.subscription.close();
  await control.close();
  const again = await world.startGate(control.address);
  assert.deepEqual(again.subscription.lastGood()?.revocations, [revocation]);
});

test("a revocation that arrives while a snapshot is being compiled is in it when it is served", async (t) => {
  const world = await startFeedWorld(t);
  const control = await world.startControl({ latest: world.sign(1) });
  const seen: number[] = [];
  let proceed = (): void => {};
  const gate = await world.startGate(control.address, {
    with: {
      onSnapshot(snapshot) {
        seen.push(snapshot.revocations.length);
        if (snapshot.version !== 2 || seen.length > 2) return undefined;
        return new Promise((resolve) => {
          proceed = () => resolve(undefined);
        });
      },
    },
  });
  await control.publisher.confirmed({ epoch: 1, version: 1 }, 2_000);
  control.publish(world.sign(2));
  await until(() => seen.length === 2, "compiling");
  const { missing } = await control.publisher
    .revoke({ principal: "service/web", at: Date.now() })
    .confirmed(2_000);
  assert.deepEqual(missing, [], "the revocation does not wait for the snapshot");
  proceed();
  await until(() => gate.subscription.lastGood()?.version === 2, "version 2");
  assert.equal(seen.at(-1), 1);
});

test("a revoked gate is disconnected, and not waited for", async (t) => {
  const world = await startFeedWorld(t);
  const revoked = new Set<string>();
  const control = await world.startControl({
    latest: world.sign(1),
    door: {
      standing: async (caller) => (revoked.has(caller.principal.name) ? "revoked" : undefined),
    },
  });
  const gate = await world.startGate(control.address);
  await control.publisher.confirmed({ epoch: 1, version: 1 }, 2_000);
  revoked.add("front");
  const { confirmed } = control.publisher.revoke({ principal: "gate/front", at: Date.now() });
  assert.deepEqual((await confirmed(1_000)).missing, []);
  await until(() => /refused: revoked/.test(gate.subscription.state().problem ?? ""), "kept out");
  assert.equal(control.publisher.gates()[0]?.connected, false);
});

test("a gate that reads slowly gets the latest snapshot, and costs no more than what is under way", async (t) => {
  const world = await startFeedWorld(t);
  const big = (version: number): SignedSnapshot =>
    world.sign(version, {
      author: "a",
      register: registerOf({ networks: { [`n${version}`]: Array(40_000).fill("10.0.0.0/8") } }),
    });
  const control = await world.startControl();
  const slow = await dialFeed(control.port, await world.leaf("control", "gate", "front"));
  slow.socket.pause();
  slow.socket.write(encode(helloOf("front")));
  await until(() => control.publisher.gates()[0]?.connected, "hello");
  for (let version = 1; version <= 30; version += 1) control.publish(big(version));
  const started = Date.now();
  slow.socket.resume();
  const versions = (): number[] =>
    slow
      .lines()
      .filter((line) => line.startsWith('{"type":"snapshot"'))
      .map((line) => JSON.parse(JSON.parse(line).signed.payload).version);
  await until(() => versions().includes(30), "the latest");
  assert.ok(versions().length <= 3, `only ${versions()} were sent`);
  assert.ok(Date.now() - started < 5_000);
  slow.socket.destroy();
});

test("what is not the protocol ends the connection: of a gate", async (t) => {
  const world = await startFeedWorld(t);
  const control = await world.startControl({ timings: { helloMs: 300 } });
  const credentials = await world.leaf("control", "gate", "front");
  const hello = encode(helloOf("front"));
  const rows: [claim: string, bytes: string | Buffer][] = [
    ["garbage", "hello\n"],
    ["no hello first", encode({ type: "pong", sequence: 1 })],
    ["another gate's name", encode(helloOf("back"))],
    ["another protocol", hello.replace("sallyport-feed/1", "sallyport-feed/2")],
    ["an unknown member", hello.replace('"boot"', '"admin":true,"boot"')],
    ["two hellos", hello + hello],
    ["an unknown message", `${hello}{"type":"apply"}\n`],
    ["a message of the other direction", hello + encode({ type: "bye", reason: "closing" })],
    ["bytes that are not UTF-8", Buffer.from([0x22, 0xff, 0x22, 0x0a])],
    ["a line without end", hello + "x".repeat(lineBytesMax.up + 1)],
    ["nothing at all", ""],
  ];
  for (const [claim, bytes] of rows) {
    const feed = await dialFeed(control.port, credentials);
    if (bytes.length > 0) feed.socket.write(bytes);
    await until(() => feed.socket.closed, claim);
  }
  await until(() => control.publisher.gates()[0]?.connected === false, "none is connected");
});

test("what is not the protocol ends the connection: of control, and the old snapshot stays", async (t) => {
  const world = await startFeedWorld(t);
  const good = encode({ type: "snapshot", signed: world.sign(1) });
  const rows: [claim: string, bytes: string][] = [
    ["garbage", "\u0000\u0001\n"],
    ["a truncated line", encode({ type: "snapshot", signed: world.sign(2) }).slice(0, -20)],
    ["an unknown message", '{"type":"run","command":"id"}\n'],
    ["a message of the other direction", encode({ type: "pong", sequence: 1 })],
    ["a line that is too long", "x".repeat(lineBytesMax.down + 1)],
  ];
  let say = good;
  let feeds = 0;
  const { address } = await world.startDoor({
    with: {
      onFeed(socket) {
        feeds += 1;
        socket.on("error", () => {});
        socket.resume();
        socket.end(say);
      },
    },
  });
  const gate = await world.startGate(address);
  await until(() => gate.subscription.lastGood()?.version === 1, "version 1");
  for (const [claim, bytes] of rows) {
    say = bytes;
    const before = feeds;
    // Twice more: the connection that said it was ended, and the gate came back.
    await until(() => feeds > before + 1, claim, 10_000);
    assert.equal(gate.subscription.lastGood()?.version, 1, claim);
  }
});

test("two publishers do not share a gate: a newer connection of the same gate replaces the older", async (t) => {
  const world = await startFeedWorld(t);
  const control = await world.startControl();
  const credentials = await world.leaf("control", "gate", "front");
  const first = await dialFeed(control.port, credentials);
  first.socket.write(encode(helloOf("front")));
  await until(() => control.publisher.gates()[0]?.connected, "first");
  const second = await dialFeed(control.port, credentials);
  second.socket.write(encode({ ...helloOf("front"), boot: "second" }));
  await until(() => first.socket.closed, "the first is closed");
  assert.match(first.lines().join(), /"replaced"/);
  assert.equal(control.publisher.gates()[0]?.boot, "second");
  second.socket.destroy();
});

test("two processes with one gate's leaf are a warning, a gate that came back is none", async (t) => {
  const world = await startFeedWorld(t);
  const control = await world.startControl();
  const credentials = await world.leaf("control", "gate", "front");
  for (let times = 0; times <= 4; times += 1) {
    assert.deepEqual(control.warnings, [], `replaced ${times - 1} times`);
    const { socket } = await dialFeed(control.port, credentials);
    t.after(() => socket.destroy());
    socket.write(encode({ ...helloOf("front"), boot: `boot-${times}` }));
    await until(() => control.publisher.gates()[0]?.boot === `boot-${times}`, "hello");
  }
  const [[gate, warning] = []] = control.warnings as [string, { detector: string; says: string }][];
  assert.equal(gate, "front");
  assert.equal(warning?.detector, "gate-twice");
  assert.match(warning?.says ?? "", /two processes hold its certificate/);
  assert.equal(control.warnings.length, 1);
});

test("silence is noticed from both ends", async (t) => {
  const world = await startFeedWorld(t);
  const control = await world.startControl({ timings: { pingMs: 50, silenceMs: 200 } });
  const mute = await dialFeed(control.port, await world.leaf("control", "gate", "front"));
  mute.socket.write(encode(helloOf("front")));
  await until(() => mute.socket.closed, "control gave up on the gate", 2_000);
  assert.ok(mute.lines().some((line) => line.includes('"ping"')));
  assert.equal(control.publisher.gates()[0]?.connected, false);

  let feeds = 0;
  const deaf = await world.startDoor({
    with: {
      onFeed(socket) {
        feeds += 1;
        socket.resume().on("error", () => {});
      },
    },
  });
  await world.startGate(deaf.address, { timings: { silenceMs: 150 } });
  await until(() => feeds > 1, "the gate gave up on control", 3_000);
});

test("a connection ends with the leaf that opened it; a renewed gate does not wait for that", async (t) => {
  const world = await startFeedWorld(t);
  const control = await world.startControl();
  const short = await dialFeed(
    control.port,
    await world.leaf("control", "gate", "front", { ttlMs: 1_500 }),
  );
  short.socket.write(encode(helloOf("front")));
  await until(() => short.socket.closed, "the end of the leaf", 4_000);
  assert.match(short.lines().join(), /"expired"/);

  let credentials = await world.leaf("control", "gate", "front", { ttlMs: 30_000 });
  const [said, warned]: [string[], string[]] = [[], []];
  const gate = await world.startGate(control.address, {
    with: {
      credentials: () => credentials,
      log: {
        ...silentLog,
        info: (_, message) => void said.push(message),
        warn: (_, message) => void warned.push(message),
      },
    },
  });
  await until(() => gate.subscription.state().connected, "connected");
  const { since } = gate.subscription.state();
  credentials = await world.leaf("control", "gate", "front");
  await until(
    () => gate.subscription.state().connected && gate.subscription.state().since > since,
    "again",
  );
  assert.match(said.join(), /feed connects anew: the gate's certificate was renewed/);
  assert.deepEqual(warned, [], "that is routine");
});

test("since when a gate serves a snapshot does not change with its connections", async (t) => {
  const world = await startFeedWorld(t);
  let credentials = await world.leaf("control", "gate", "front", { ttlMs: 30_000 });
  const latest = world.sign(1);
  const control = await world.startControl({ latest });
  await world.startGate(control.address, { with: { credentials: () => credentials } });
  const entry = () => control.publisher.gates()[0];
  await until(() => entry()?.running?.version === 1 && entry()?.connected === true, "version 1");
  const [first, connectedFirst] = [entry()?.runningSince, entry()?.connectedSince ?? 0];
  assert.ok(first !== undefined);
  credentials = await world.leaf("control", "gate", "front");
  await until(() => (entry()?.connectedSince ?? 0) > connectedFirst, "connected anew");
  // Control has sent its snapshot again by then, and was told that it is served.
  await until(() => entry()?.counters.snapshotSince !== undefined, "a status");
  assert.equal(entry()?.runningSince, first);

  await control.close();
  const restarted = Date.now();
  const anew = await world.startControl({ latest, port: control.port });
  const seen = () => anew.publisher.gates()[0];
  await until(() => seen()?.runningSince !== undefined, "a control that has just started is told");
  assert.ok((seen()?.runningSince ?? restarted) < restarted);

  anew.publish(world.sign(2));
  await until(() => seen()?.running?.version === 2, "version 2");
  assert.ok((seen()?.runningSince ?? 0) >= restarted, "and a newer one counts anew");
});

test("a new snapshot key is accepted under the old one alone, and then retires it", async (t) => {
  const world = await startFeedWorld(t);
  const next = generateKeyPairSync("ed25519");
  const current = createPrivateKey(await readFile(join(world.dir, "snapshot-key.pem"), "utf8"));
  const announcement = announceSuccessor(current, next.privateKey);
  const signedByNext = (version: number): SignedSnapshot => {
    const { payload } = world.sign(version);
    return {
      payload,
      signature: signBytes(null, Buffer.from(payload), next.privateKey).toString("base64url"),
      key: keyId(next.publicKey.export({ format: "pem", type: "spki" }).toString()),
    };
  };
  const forged = announceSuccessor(elsewhere.privateKey, next.publicKey);
  const control = await world.startControl({ latest: world.sign(1) });
  const gate = await world.startGate(control.address);
  const problem = (): string | undefined => control.publisher.gates()[0]?.problem?.code;
  await control.publisher.confirmed({ epoch: 1, version: 1 }, 2_000);
  control.publisher.announce({ ...forged, by: announcement.by });
  control.publish(signedByNext(2));
  await until(() => problem() === "bad_signature", "a forged announcement is nothing");
  control.publisher.announce(announcement);
  control.publish(signedByNext(3));
  await until(() => gate.subscription.lastGood()?.version === 3, "under the new key");
  control.publish(world.sign(4));
  await until(() => problem() === "bad_signature", "the old key is retired");
  await gate.subscription.close();
  await control.close();
  const again = await world.startGate(control.address);
  assert.equal(again.subscription.lastGood()?.version, 3, "the keys are remembered");
});

test("heads and warnings go up, control's heads come down", async (t) => {
  const world = await startFeedWorld(t);
  const head = { chain: "abc", sequence: 4, head: "0f" };
  const control = await world.startControl({
    timings: { headsMs: 50 },
    with: { heads: () => [{ ...head, chain: "control" }] },
  });
  const gate = await world.startGate(control.address, { with: { heads: () => [head] } });
  gate.subscription.warn({
    id: "decoy:10.0.0.7",
    at: 1,
    detector: "decoy",
    severity: "critical",
    says: "somebody is here",
    hits: [],
    count: 1,
    gate: "somebody-else",
  });
  await until(() => control.heads.length > 0 && control.warnings.length > 0, "up");
  await until(() => gate.controlHeads.length > 0, "down");
  assert.deepEqual(control.heads[0], ["front", [head]]);
  const [, warning] = control.warnings[0] as [string, { gate: string }];
  assert.equal(warning.gate, "front", "whose warning it is, the certificate says");
  await until(() => control.publisher.gates()[0]?.counters.requests === 1, "counters");
});

test("heads of chains that nobody continues are sent until control has stored them, whichever control that is", async (t) => {
  const world = await startFeedWorld(t);
  const living = { chain: "abc", sequence: 4, head: "0f" };
  const left = ["old", "older"].map((chain) => ({ chain, sequence: 7, head: "0a" }));
  const heads = () => [living];
  const kept: unknown[] = [];
  const forgetful = await world.startControl({ with: { heads } });
  await world.startGate(forgetful.address, {
    with: {
      heads,
      left: {
        heads: () => left.slice(0, 1),
        kept(list) {
          kept.push(...list);
          left.shift();
        },
      },
    },
  });
  await until(() => forgetful.heads.length > 0, "they are sent");
  assert.deepEqual(forgetful.heads[0], ["front", [living, left[0]]]);
  assert.deepEqual(kept, [], "what was only heard is not kept");
  await forgetful.close();

  const stored: unknown[] = [];
  await world.startControl({
    port: forgetful.port,
    with: {
      heads,
      onHeads(_gate, list, whenKept) {
        stored.push(list);
        whenKept?.();
      },
    },
  });
  await until(() => kept.length === 2, "both are kept");
  await until(() => stored.length === 3, "then only the living are sent");
  const [old, older] = kept;
  assert.deepEqual(stored, [[living, old], [living, older], [living]]);
});

test("hits of several gates are merged by time; those that cannot be asked are named", async (t) => {
  const world = await startFeedWorld(t);
  const control = await world.startControl({ enrolled: ["away", "back", "broken", "front"] });
  let isStopped = false;
  const log = (name: string, count: number, every: number) =>
    async function* (): AsyncGenerator<readonly Hit[]> {
      try {
        for (let i = 0; i < count; i += 100)
          yield Array.from(
            { length: 100 },
            (_, n): Hit => ({
              id: `${name}-${i + n}`,
              at: 1_000_000 - (i + n) * every,
              plane: "data",
              kind: "request",
              decision: "allowed",
              gate: "a lie",
            }),
          );
        if (name === "broken") throw new Error("segment 7 cannot be read");
      } finally {
        isStopped = true;
      }
    };
  await world.startGate(control.address, { with: { onQuery: log("f", 2_000, 2) } });
  await world.startGate(control.address, { name: "back", with: { onQuery: log("b", 2_000, 3) } });
  await world.startGate(control.address, {
    name: "broken",
    with: { onQuery: log("broken", 100, 1) },
  });
  await until(
    () => control.publisher.gates().filter((gate) => gate.connected).length === 3,
    "three",
  );
  const search = control.publisher.query({ limit: 1_200, decision: "allowed" });
  const hits: Hit[] = [];
  for await (const page of search.pages) hits.push(...page);
  assert.equal(hits.length, 1_200);
  assert.ok(
    hits.every((hit, i) => i === 0 || (hits[i - 1] as Hit).at >= hit.at),
    "by time",
  );
  assert.deepEqual(new Set(hits.map((hit) => hit.gate)), new Set(["front", "back", "broken"]));
  assert.deepEqual(
    search.absent().map(({ gate, why }) => [gate, why]),
    [
      ["away", "not connected"],
      ["broken", "segment 7 cannot be read"],
    ],
  );
  // Nobody wants more: the gates stop reading.
  isStopped = false;
  for await (const _ of control.publisher.query({}, ["front"]).pages) break;
  await until(() => isStopped, "stopped");
});

test("a gate that answers with nothing for ever, or says too much, is not listened to", async (t) => {
  const world = await startFeedWorld(t);
  const control = await world.startControl();
  const credentials = await world.leaf("control", "gate", "front");
  const feed = await dialFeed(control.port, credentials);
  feed.socket.write(encode(helloOf("front")));
  await until(() => control.publisher.gates()[0]?.connected, "connected");
  let asked = 0;
  let answer = '"hits":[],"done":false';
  feed.socket.on("data", (bytes: Buffer) => {
    for (const [, id] of bytes.toString().matchAll(/"type":"hits\.(?:query|more)","id":(\d+)/g)) {
      asked += 1;
      feed.socket.write(`{"type":"hits.page","id":${id},${answer}}\n`);
    }
  });
  const search = control.publisher.query({});
  for await (const page of search.pages) assert.fail(`${page.length} hits came`);
  assert.deepEqual(search.absent(), [{ gate: "front", why: "it answers with empty pages" }]);
  assert.equal(asked, 1);
  answer = '"hits":[{"id":"a","at":1}],"done":true';
  const hits: Hit[] = [];
  for await (const page of control.publisher.query({}).pages) hits.push(...page);
  assert.equal(hits.length, 1, "it is still asked");
  const warning = {
    at: 1,
    detector: "d",
    severity: "info",
    says: "s",
    hits: [],
    count: 1,
  } as const;
  for (let i = 0; i < 2_500; i++)
    feed.socket.write(encode({ type: "warning", warning: { ...warning, id: `${i}` } }));
  await until(() => feed.socket.closed, "closed");
  assert.ok(control.warnings.length <= 2_010, `${control.warnings.length} warnings were heard`);
});

test("a gate that drips its hits is given up, and named", async (t) => {
  const world = await startFeedWorld(t);
  const control = await world.startControl({ timings: { queryMs: 100 } });
  await world.startGate(control.address, {
    with: {
      onQuery: async function* () {
        for (let i = 0; i < 10_000; i++)
          yield [
            { id: `${i}`, at: -i, plane: "data", kind: "request", decision: "allowed" } as Hit,
          ];
      },
    },
  });
  await until(() => control.publisher.gates()[0]?.connected, "connected");
  const search = control.publisher.query({ limit: 10_000 });
  let hits = 0;
  for await (const page of search.pages) hits += page.length;
  assert.ok(hits < 10_000, `${hits} hits`);
  assert.deepEqual(search.absent(), [
    { gate: "front", why: "the gate took too long to answer in all" },
  ]);
});

test("a snapshot that cannot be saved is served, told, and saved when that works again", async (t) => {
  const world = await startFeedWorld(t);
  const control = await world.startControl({ latest: world.sign(1) });
  const gate = await world.startGate(control.address);
  await control.publisher.confirmed({ epoch: 1, version: 1 }, 2_000);
  // A directory where the draft is to be written: the disk says no, whoever asks.
  const { mkdir, rm } = await import("node:fs/promises");
  const block = join(gate.dir, "snapshot.next.json.draft", "x");
  await mkdir(block, { recursive: true });
  control.publish(world.sign(2));
  await until(() => control.publisher.gates()[0]?.problem?.code === "not_saved", "told");
  assert.equal(gate.subscription.lastGood()?.version, 2, "a removed rule does not wait for a disk");
  await rm(join(gate.dir, "snapshot.next.json.draft"), { recursive: true });
  await until(() => control.publisher.gates()[0]?.problem === undefined, "saved");
  const kept = JSON.parse(await readFile(join(gate.dir, "snapshot.json"), "utf8"));
  assert.equal(JSON.parse(kept.payload).version, 2);
});

function helloOf(gate: string): Hello {
  return {
    type: "hello",
    protocol: "sallyport-feed/1",
    gate,
    boot: "first",
    versions: { sallyport: "0.1.0", node: "24" },
    running: null,
    addresses: [],
    servedNames: [],
  };
}

/** A gate made of nothing but a socket, for saying what ours never says. */
function dialFeed(
  port: number,
  credentials: Credentials,
): Promise<{ readonly socket: Socket; lines(): string[] }> {
  return new Promise((resolve, reject) => {
    const asking = request({
      ...clientContext(credentials),
      host: "127.0.0.1",
      port,
      path: "/join/v1/feed",
      headers: { connection: "Upgrade", upgrade: "sallyport-feed/1" },
      agent: false,
      checkServerIdentity: () => undefined,
    });
    asking.on("error", reject);
    asking.on("response", (answer) => reject(new Error(`refused: ${answer.statusCode}`)));
    asking.on("upgrade", (_answer, socket, head) => {
      const chunks: Buffer[] = [head];
      socket.on("error", () => {});
      socket.on("data", (chunk: Buffer) => chunks.push(chunk));
      resolve({
        socket,
        lines: () => Buffer.concat(chunks).toString("utf8").split("\n").slice(0, -1),
      });
    });
    asking.end();
  });
}
