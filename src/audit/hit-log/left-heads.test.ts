import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { silentLog } from "../../base/log.ts";
import type { ChainHead } from "../../model/chain-head.ts";
import type { NewHit, Recorder } from "../recorder.ts";
import { findLeftHeads, type LeftHeads } from "./left-heads.ts";
import { openHitLog } from "./open-hit-log.ts";

const request: NewHit = {
  at: 1_800_000_000_000,
  plane: "data",
  kind: "request",
  decision: "allowed",
  caller: "service/web",
  path: "/orders/7",
};

function directory(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "hits-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** A writer that is never closed, as one that is killed. */
function start(dir: string, boot: string, worker?: number, segmentBytes = 1 << 20): Recorder {
  return openHitLog({
    dir,
    writer: {
      process: worker === undefined ? "gate" : "worker",
      name: "g1",
      boot,
      ...(worker !== undefined && { worker }),
    },
    clock: () => request.at,
    randomBytes,
    log: silentLog,
    limits: { segmentBytes, reserveBytes: worker === undefined ? 8192 : 0 },
  });
}

function write(recorder: Recorder, batches: readonly number[]): ChainHead {
  for (const size of batches) {
    for (let i = 0; i < size; i++) recorder.add(request);
    assert.equal(recorder.flush(), true);
  }
  return recorder.heads()[0] as ChainHead;
}

async function find(dir: string, boot = "b2"): Promise<LeftHeads> {
  const left = findLeftHeads({ dir, boot, log: silentLog });
  await left.settled();
  return left;
}

const sorted = (heads: readonly ChainHead[]) =>
  heads.toSorted((a, b) => a.chain.localeCompare(b.chain));

test("the heads of every chain of an earlier life are found: known, strangers', a reserve's, over many segments", async (t) => {
  const dir = directory(t);
  const killed = [start(dir, "b1"), start(dir, "b1", 0, 700)] as const;
  for (const recorder of killed) write(recorder, [1, 3, 1, 3, 1, 3]);
  killed[1].add({ ...request, caller: "service/gone", kind: "connection", code: "revoked" });
  killed[1].flush();
  const full = start(dir, "b1");
  const chain = write(full, [1]).chain;
  rmSync(join(dir, chain), { recursive: true });
  writeFileSync(join(dir, chain), "nothing can be written here");
  full.tick();
  full.addEssential(request);
  const heads = [...killed.flatMap((one) => one.heads()), ...full.heads().slice(-1)];
  assert.equal(new Set(heads.map((head) => head.chain)).size, 4);
  const left = await find(dir);
  assert.deepEqual(sorted(left.heads()), sorted(heads));
  assert.equal(left.count(), 4);
});

test("only whole, chained lines count: what was torn, or lost the end of its batch, ends before", async (t) => {
  const dir = directory(t);
  const killed = start(dir, "b1", 0);
  const whole = write(killed, [2, 3]);
  const file = join(dir, whole.chain, "000000000001.jsonl");
  const size = readFileSync(file).length;
  write(killed, [200, 300]);
  const lines = readFileSync(file, "latin1").split("\n");
  const endOf = (count: number) => lines.slice(0, count).join("\n").length;
  for (const [claim, cut] of [
    ["a line break is missing", endOf(1 + 205)],
    ["the last line of a batch is missing", endOf(1 + 204) + 1],
    ["half a batch is missing", endOf(1 + 100) + 1],
    ["nothing of a batch is there", size],
  ] as const) {
    truncateSync(file, cut);
    assert.deepEqual((await find(dir)).heads(), [whole], claim);
  }
  appendFileSync(file, "\n\n{}\n");
  assert.deepEqual((await find(dir)).heads(), [whole], "rubbish is passed over");
});

test("a batch that is longer than what is read at first is found", async (t) => {
  const dir = directory(t);
  const killed = start(dir, "b1", 0, 64 << 20);
  const whole = write(killed, [1, 1_000]);
  const file = join(dir, whole.chain, "000000000001.jsonl");
  write(killed, [9_000]);
  truncateSync(file, readFileSync(file).length - 10);
  assert.deepEqual((await find(dir)).heads(), [whole]);
});

test("a chain without a line, rubbish, links and what is taken away meanwhile are passed over", async (t) => {
  const dir = directory(t);
  assert.deepEqual((await find(join(dir, "nowhere"))).heads(), []);
  mkdirSync(join(dir, "emptychain"));
  writeFileSync(join(dir, "abcdefgh"), "a file with a chain's name");
  mkdirSync(join(dir, "rubbishaa"));
  writeFileSync(join(dir, "rubbishaa", "000000000001.jsonl"), randomBytes(300_000));
  const killed = write(start(dir, "b1", 0), [3]);
  const linked = join(dir, "linkedaaaa");
  mkdirSync(linked);
  symlinkSync(join(dir, killed.chain, "000000000001.jsonl"), join(linked, "000000000001.jsonl"));
  mkdirSync(join(dir, "stolenaaaa"));
  writeFileSync(
    join(dir, "stolenaaaa", "000000000001.jsonl"),
    readFileSync(join(dir, killed.chain, "000000000001.jsonl")),
  );
  assert.deepEqual((await find(dir)).heads(), [killed]);
  const left = findLeftHeads({ dir, boot: "b2", log: silentLog });
  rmSync(join(dir, killed.chain), { recursive: true });
  await left.settled();
  assert.deepEqual(left.heads(), []);
  assert.equal(left.count(), 0);
});

test("what this life writes is not left; a worker that died alone is, and its successor is not", async (t) => {
  const dir = directory(t);
  const before = write(start(dir, "b1", 0), [1]);
  const left = findLeftHeads({ dir, boot: "b2", log: silentLog });
  const [first, other] = [start(dir, "b2", 0), start(dir, "b2", 1)];
  const died = write(first, [2, 3]);
  write(other, [1]);
  await left.settled();
  assert.deepEqual(left.heads(), [before]);
  left.kept(left.heads());
  left.died(0);
  write(start(dir, "b2", 0), [4]);
  await left.settled();
  assert.deepEqual(left.heads(), [died]);
  left.kept([before]);
  assert.equal(left.heads().length, 1, "another was kept");
  left.kept([died]);
  assert.deepEqual(left.heads(), []);
});

test("a thousand chains cost a start nothing but their names, and are told in parts", async (t) => {
  const dir = directory(t);
  const { chain } = write(start(dir, "b1", 0), [2]);
  const text = readFileSync(join(dir, chain, "000000000001.jsonl"), "latin1");
  for (let i = 0; i < 999; i++) {
    const name = `old${"abcdefghij"[i % 10]}${"abcdefghij"[Math.floor(i / 10) % 10]}${"abcdefghij"[Math.floor(i / 100)]}aaaa`;
    mkdirSync(join(dir, name));
    writeFileSync(join(dir, name, "000000000001.jsonl"), text.replaceAll(chain, name));
  }
  const begun = performance.now();
  const left = findLeftHeads({ dir, boot: "b2", log: silentLog });
  t.diagnostic(`a start waits ${(performance.now() - begun).toFixed(1)} ms`);
  assert.equal(left.heads().length, 0, "nothing was read yet");
  await left.settled();
  t.diagnostic(`read after ${(performance.now() - begun).toFixed(0)} ms`);
  assert.equal(left.count(), 1_000);
  const told = new Set<string>();
  for (let parts = 0; left.count() > 0; parts++) {
    assert.ok(parts < 4);
    const heads = left.heads();
    assert.ok(heads.length <= 256);
    for (const head of heads) told.add(head.chain);
    left.kept(heads);
  }
  assert.deepEqual(
    [...told].sort(),
    readdirSync(dir)
      .filter((name) => name !== "chains.jsonl")
      .sort(),
  );
});
