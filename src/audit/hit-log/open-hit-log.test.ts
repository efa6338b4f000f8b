import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type TestContext, test } from "node:test";
import { skipOutsideCi } from "../../../test/harness/skip-outside-ci.ts";
import { silentLog } from "../../base/log.ts";
import type { Hit } from "../../model/hit.ts";
import type { NewHit, Recorder } from "../recorder.ts";
import { type HitLogSettings, openHitLog } from "./open-hit-log.ts";
import { verifyLog } from "./verify.ts";

const request: NewHit = {
  at: 1_800_000_000_000,
  plane: "data",
  kind: "request",
  decision: "allowed",
  caller: "service/web",
  peer: "127.0.0.1:40001",
  service: "orders",
  method: "GET",
  path: "/orders/7",
  rule: "web-reads-orders",
  status: 200,
};
const refusal: NewHit = {
  at: 1_800_000_000_000,
  plane: "data",
  kind: "connection",
  decision: "refused",
  code: "no_certificate",
  peer: "10.0.0.7:50000",
};

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "hits-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

function open(dir: string, more: Partial<HitLogSettings> = {}): Recorder {
  return openHitLog({
    dir,
    writer: { process: "gate", name: "g1", boot: "b1" },
    clock: () => 1_800_000_000_000,
    randomBytes,
    log: silentLog,
    ...more,
  });
}

/** Every hit in the directory, by chain and sequence. */
function hitsIn(dir: string): Hit[] {
  return readdirSync(dir, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .flatMap(({ name }) =>
      readdirSync(join(dir, name))
        .filter((file) => file.endsWith(".jsonl"))
        .sort()
        .flatMap((file) => readFileSync(join(dir, name, file), "utf8").split("\n"))
        .filter((line) => line.startsWith('{"id"'))
        .map((line) => JSON.parse(line) as Hit),
    );
}

async function assertSound(dir: string, recorder?: Recorder): Promise<void> {
  const report = await verifyLog([dir], recorder?.heads());
  assert.deepEqual(report.problems, []);
}

test("what was flushed is in the file, under its id, in a private place", async (t) => {
  const dir = join(folder(t), "hits");
  const log = open(dir);
  const first = log.add(request);
  const second = log.add({ ...request, status: 404, tookMs: 1.23456 });
  const stranger = log.add(refusal);
  assert.equal(hitsIn(dir).length, 0, "nothing is written before the flush");
  assert.equal(log.flush(), true);
  const hits = hitsIn(dir);
  assert.deepEqual(new Set(hits.map(({ id }) => id)), new Set([first, second, stranger]));
  const found = hits.find(({ id }) => id === second);
  assert.equal(found?.status, 404);
  assert.equal(found?.tookMs, 1.235);
  assert.equal(found?.path, "/orders/7");
  assert.match(first, /^[a-z2-7]{10}-1$/);
  assert.notEqual(first.split("-")[0], stranger.split("-")[0], "strangers have their own chain");
  assert.equal(statSync(dir).mode & 0o777, 0o700);
  for (const chain of readdirSync(dir, { withFileTypes: true }).filter((e) => e.isDirectory())) {
    assert.equal(statSync(join(dir, chain.name)).mode & 0o777, 0o700);
    for (const file of readdirSync(join(dir, chain.name)))
      assert.equal(statSync(join(dir, chain.name, file)).mode & 0o777, 0o600);
  }
  assert.equal(log.heads().length, 2);
  await assertSound(dir, log);
  log.close();
  log.close();
  await assertSound(dir);
});

test("nothing a peer sends can break a line, reach a terminal or leave its query behind", async (t) => {
  const dir = folder(t);
  const log = open(dir);
  const rows: [claim: string, hit: Partial<NewHit>, expected: Partial<Hit>][] = [
    ["line breaks stay text", { path: "/a\n{}\r" }, { path: "/a\n{}\r" }],
    ["quotes and backslashes stay text", { path: '/"\\' }, { path: '/"\\' }],
    [
      "escape sequences stay text",
      { claimed: "\u001b[31m\u009b" },
      { claimed: "\u001b[31m\u009b" },
    ],
    ["half a surrogate pair is kept", { path: "/\ud800x" }, { path: "/\ud800x" }],
    ["other letters are kept", { path: "/é/漢/😀" }, { path: "/é/漢/😀" }],
    ["a query is cut from the path", { path: "/a?token=s" }, { path: "/a" }],
    [
      "a query is masked in a detail",
      { detail: "GET /a?t=s HTTP/1.1" },
      { detail: "GET /a?... HTTP/1.1" },
    ],
    ["NaN is 0", { tookMs: Number.NaN, bytesIn: Number.NaN }, { tookMs: 0, bytesIn: 0 }],
    ["infinity is 0", { bytesOut: Number.POSITIVE_INFINITY }, { bytesOut: 0 }],
    ["less than nothing is 0", { bytesOut: -1, tookMs: -1 }, { bytesOut: 0, tookMs: 0 }],
    [
      "large numbers are exact",
      { bytesOut: 9_007_199_254_740_991 },
      { bytesOut: 9_007_199_254_740_991 },
    ],
    ["a round number of ten digits", { bytesOut: 5_000_000_007 }, { bytesOut: 5_000_000_007 }],
    ["thousandths keep their zeros", { tookMs: 12_345.006 }, { tookMs: 12_345.006 }],
  ];
  const ids = rows.map(([, hit]) => log.add({ ...request, ...hit }));
  const long = log.add({ ...request, path: `/${"é".repeat(5000)}`, detail: "x".repeat(5000) });
  assert.equal(log.flush(), true);
  const hits = new Map(hitsIn(dir).map((hit) => [hit.id, hit]));
  for (const [i, [claim, , expected]] of rows.entries()) {
    const found = hits.get(ids[i] ?? "");
    for (const [key, value] of Object.entries(expected))
      assert.equal(found?.[key as keyof Hit], value, claim);
  }
  assert.equal(hits.get(long)?.path?.length, 1024);
  assert.equal(hits.get(long)?.detail?.length, 512);
  for (const chain of readdirSync(dir, { withFileTypes: true }).filter((e) => e.isDirectory()))
    for (const file of readdirSync(join(dir, chain.name)).filter((f) => f.endsWith(".jsonl")))
      assert.match(readFileSync(join(dir, chain.name, file), "latin1"), /^[\x20-\x7e\n]*$/);
  await assertSound(dir, log);
  log.close();
});

test("ten thousand refusals of one source: few lines, and the sums add up", async (t) => {
  const dir = folder(t);
  let now = 1_800_000_000_000;
  const log = open(dir, { clock: () => now });
  const ids = new Set<string>();
  for (let i = 0; i < 10_000; i++) {
    ids.add(log.add({ ...refusal, at: now, peer: `10.0.0.7:${10_000 + i}` }));
    if (i % 100 === 0) assert.equal(log.flush(), true);
    if (i % 4000 === 3999) {
      now += 1000;
      log.tick();
    }
  }
  now += 1000;
  log.tick();
  const hits = hitsIn(dir);
  const sums = hits.filter(({ kind }) => kind === "sum");
  assert.equal(
    hits.length - sums.length + sums.reduce((sum, { count }) => sum + (count ?? 0), 0),
    10_000,
  );
  assert.equal(hits.length, 3 * 22);
  const written = new Set(hits.map(({ id }) => id));
  assert.deepEqual(
    [...ids].filter((id) => !written.has(id)),
    [],
    "every id that was told is there",
  );
  assert.ok(sums.every(({ code, peer }) => code === "no_certificate" && peer === "10.0.0.7"));
  await assertSound(dir, log);
  log.close();
});

test("a crowd of sources is counted together, and the sums add up", async (t) => {
  const dir = folder(t);
  let now = 1_800_000_000_000;
  const log = open(dir, { clock: () => now });
  for (let i = 0; i < 20_000; i++)
    log.add({ ...refusal, peer: `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}:1` });
  assert.equal(log.flush(), true);
  now += 1000;
  log.tick();
  const hits = hitsIn(dir);
  const sums = hits.filter(({ kind }) => kind === "sum");
  assert.ok(hits.length <= 2022, `${hits.length} lines`);
  assert.equal(sums.at(-1)?.peer, "many");
  assert.equal(
    hits.length - sums.length + sums.reduce((sum, { count }) => sum + (count ?? 0), 0),
    20_000,
  );
  await assertSound(dir, log);
  log.close();
});

test("segments are rotated by size and continue each other", async (t) => {
  const dir = folder(t);
  const log = open(dir, { limits: { segmentBytes: 4096, reserveBytes: 0 } });
  for (let i = 0; i < 100; i++) {
    log.add(request);
    if (i % 3 === 0) assert.equal(log.flush(), true);
  }
  assert.equal(log.flush(), true);
  const [head] = log.heads();
  const names = readdirSync(join(dir, head?.chain ?? ""));
  assert.ok(names.length > 5);
  for (const name of names)
    assert.ok(statSync(join(dir, head?.chain ?? "", name)).size <= 4096 + 512);
  assert.equal(head?.sequence, 100);
  await assertSound(dir, log);
  log.close();
});

test("retention deletes the oldest, keeps to its budgets and leaves a log that verifies", async (t) => {
  const dir = folder(t);
  let now = Date.now();
  const limits = {
    segmentBytes: 8192,
    keepBytes: 40_000,
    strangersKeepBytes: 20_000,
    strangersPerSecond: 1_000_000,
    reserveBytes: 0,
  };
  const log = open(dir, { clock: () => now, limits });
  const first = log.add(request);
  for (let i = 0; i < 2000; i++) {
    log.add(request);
    log.add(refusal);
    if (i % 5 === 0) assert.equal(log.flush(), true);
    if (i % 100 === 0) {
      now += 10_001;
      log.tick();
    }
  }
  now += 10_001;
  log.tick();
  const bytes = (chain: string): number =>
    readdirSync(join(dir, chain)).reduce(
      (sum, file) => sum + statSync(join(dir, chain, file)).size,
      0,
    );
  const [known, strangers] = log.heads().map(({ chain }) => bytes(chain));
  assert.ok(known && known <= 40_000 + 8192, `${known}`);
  assert.ok(strangers && strangers <= 20_000 + 8192, `${strangers}`);
  assert.ok(!hitsIn(dir).some(({ id }) => id === first));
  assert.ok(hitsIn(dir).some(({ action }) => action === "log_pruned"));
  const report = await verifyLog([dir], log.heads());
  assert.deepEqual(report.problems, []);
  assert.ok(report.chains.some(({ pruned }) => pruned));
  log.close();

  // The next boot takes what is left of this one when its time has come, the chain with it.
  now += 91 * 86_400_000;
  const next = open(dir, {
    clock: () => now,
    limits,
    writer: { process: "gate", name: "g1", boot: "b2" },
  });
  next.add(request);
  assert.equal(next.flush(), true);
  next.tick();
  assert.equal(readdirSync(dir, { withFileTypes: true }).filter((e) => e.isDirectory()).length, 1);
  await assertSound(dir, next);
  next.close();
});

test("a directory that is gone at rotation is a failure, not a crash, and comes back", async (t) => {
  const dir = join(folder(t), "hits");
  const log = open(dir, { limits: { segmentBytes: 4096, reserveBytes: 0 } });
  log.add(request);
  assert.equal(log.flush(), true);
  rmSync(dir, { recursive: true });
  let isRefused = false;
  for (let i = 0; i < 50 && !isRefused; i++) {
    log.add(request);
    isRefused = !log.flush();
  }
  assert.ok(isRefused);
  assert.equal(log.failing, true);
  log.add(request);
  assert.equal(log.flush(), false);
  assert.equal(log.probe(), true);
  assert.equal(log.failing, false);
  const id = log.add(request);
  assert.equal(log.flush(), true);
  assert.ok(hitsIn(dir).some((hit) => hit.id === id));
  const report = await verifyLog([dir], log.heads());
  assert.deepEqual(
    report.problems.map(({ kind }) => kind),
    ["cut"],
    "what was deleted is missed",
  );
  log.close();
});

test("a segment that is deleted while it is written is noticed at the next tick", (t) => {
  const dir = join(folder(t), "hits");
  const log = open(dir);
  log.add(request);
  assert.equal(log.flush(), true);
  rmSync(dir, { recursive: true });
  log.tick();
  assert.equal(log.failing, true);
  log.add(request);
  assert.equal(log.flush(), false);
  log.tick();
  assert.equal(log.failing, false);
  log.add(request);
  log.add(request);
  assert.equal(log.flush(), true);
  log.close();
});

test("a place that cannot be written fails closed from the first flush on", (t) => {
  const dir = join(folder(t), "hits");
  writeFileSync(dir, "a file where the directory should be");
  const log = open(dir);
  const id = log.add(request);
  assert.match(id, /-1$/);
  assert.equal(log.flush(), false);
  assert.equal(log.failing, true);
  assert.equal(log.probe(), false);
  log.tick();
  assert.match(log.addEssential(request), /-\d+$/);
  rmSync(dir);
  assert.equal(log.probe(), true);
  log.add(request);
  assert.equal(log.flush(), true);
  const gap = hitsIn(dir).find(({ action }) => action === "log_gap");
  assert.equal(gap?.count, 2);
  log.close();
});

test("a full disk: what fits is cut back, essential hits go to the reserve, and all returns by itself", async (t) => {
  const disk = mkdtempSync(join(tmpdir(), "hits-"));
  const isMounted =
    spawnSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]).status === 0;
  t.after(() => {
    if (isMounted) execFileSync("umount", ["-l", disk]);
    rmSync(disk, { recursive: true });
  });
  if (!isMounted) {
    skipOutsideCi(t, "needs root to mount a small disk");
    return;
  }
  const dir = join(disk, "hits");
  const log = open(dir);
  const kept: string[] = [];
  let lost = 0;
  for (let i = 0; i < 1000 && !log.failing; i++) {
    const ids = Array.from({ length: 7 }, () => log.add({ ...request, path: `/${"x".repeat(i)}` }));
    if (log.flush()) kept.push(...ids);
    else lost += ids.length;
  }
  assert.equal(log.failing, true);
  await assertSound(dir, log);
  // The short lines of a probe still fit, until the last page is full too.
  for (let i = 0; i < 1000 && log.probe(); i++) {
    const id = log.add(request);
    if (log.flush()) kept.push(id);
    else lost++;
  }
  for (let i = 0; i < 5; i++) {
    log.add(request);
    assert.equal(log.flush(), false);
    assert.equal(log.probe(), false);
    lost++;
  }
  const revoked = log.addEssential({ ...request, kind: "action", action: "revoke" });
  const rotated = log.addEssential({ ...request, kind: "action", action: "ca.rotate" });
  assert.notEqual(revoked, rotated);
  await assertSound(dir, log);
  log.tick();
  assert.equal(log.failing, true);
  const reserve = revoked.split("-")[0] ?? "";
  assert.equal(
    log.heads().find(({ chain }) => chain === reserve)?.sequence,
    2,
    "both stand in the reserve",
  );

  execFileSync("mount", ["-o", "remount,size=1m", disk]);
  log.tick();
  assert.equal(log.failing, false);
  kept.push(log.add(request));
  assert.equal(log.flush(), true);
  const hits = hitsIn(dir);
  const there = new Set(hits.map(({ id }) => id));
  assert.deepEqual(
    [...kept, revoked, rotated].filter((id) => !there.has(id)),
    [],
  );
  const report = await verifyLog([dir], log.heads());
  assert.deepEqual(report.problems, []);
  assert.equal(
    report.chains.reduce((sum, chain) => sum + chain.lost, 0),
    lost,
  );

  // The reserve is free again, and works a second time.
  writeFileSync(join(disk, "filler"), "");
  assert.throws(() => writeFileSync(join(disk, "filler"), Buffer.alloc(2 << 20)), /ENOSPC/);
  log.add({ ...request, detail: "x".repeat(500) });
  while (log.flush()) log.add({ ...request, path: `/${"x".repeat(1000)}` });
  const again = log.addEssential({ ...request, kind: "action", action: "revoke" });
  assert.equal(again, `${reserve}-3`);
  rmSync(join(disk, "filler"));
  log.tick();
  log.close();
  assert.ok(hitsIn(dir).some(({ id }) => id === again));
  assert.ok(!existsSync(join(dir, reserve, "reserve")), "an empty reserve is given back");
  await assertSound(dir);
});

/** A process that opens a log and prints each id once it is flushed. */
const child = `
import { randomBytes } from "node:crypto";
import { openHitLog } from ${JSON.stringify(import.meta.resolve("./open-hit-log.ts"))};
const silent = { info() {}, warn() {}, error() {} };
const log = openHitLog({
  dir: process.argv[1], clock: Date.now, randomBytes, log: silent,
  writer: { process: "gate", name: "g1", boot: String(process.pid) },
});
const hit = { at: 1, plane: "data", kind: "request", decision: "allowed", caller: "service/web", path: "/x" };
const turn = () => {
  const ids = [log.add(hit), log.add(hit), log.add(hit)];
  process.stdout.write(log.flush() ? ids.join("\\n") + "\\n" : "failed\\n");
  if (process.argv[2] === "forever") setImmediate(turn);
};
turn();
if (process.argv[2] !== "forever") {
  for (let i = 0; i < 20; i++) turn();
  process.stdout.write(log.probe() ? "probed\\n" : "still failing\\n");
  process.stdout.write(log.addEssential(hit) + "\\n");
}
`;

test("kill -9 in the middle: every id that was told is in the verified log", async (t) => {
  const dir = folder(t);
  const running = spawn(process.execPath, ["--input-type=module", "-e", child, dir, "forever"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const told: string[] = [];
  for await (const line of createInterface(running.stdout)) {
    told.push(line);
    if (told.length === 2000) running.kill("SIGKILL");
  }
  if (running.exitCode === null && running.signalCode === null) await once(running, "exit");
  const there = new Set(hitsIn(dir).map(({ id }) => id));
  assert.ok(told.length >= 2000);
  // The pipe may hand over half of the last line.
  assert.deepEqual(
    told.slice(0, -1).filter((id) => !there.has(id)),
    [],
  );
  await assertSound(dir);
});

test("a limit on file sizes is a failure, not a signal", async (t) => {
  const dir = folder(t);
  const { status, stdout } = spawnSync(
    "prlimit",
    ["--fsize=2000", process.execPath, "--input-type=module", "-e", child, dir],
    { encoding: "utf8" },
  );
  assert.equal(status, 0);
  const lines = stdout.split("\n");
  assert.match(lines[0] ?? "", /-1$/);
  assert.ok(lines.includes("failed"));
  assert.ok(lines.includes("probed"), "the next segment has room again");
  await assertSound(dir);
});
