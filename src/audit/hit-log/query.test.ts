import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { silentLog } from "../../base/log.ts";
import type { Hit } from "../../model/hit.ts";
import type { HitFilter } from "../../model/hit-filter.ts";
import type { NewHit, Recorder } from "../recorder.ts";
import { openHitLog } from "./open-hit-log.ts";
import { followHits, queryHits } from "./query.ts";

const request: NewHit = {
  at: 1_800_000_000_000,
  plane: "data",
  kind: "request",
  decision: "allowed",
  caller: "service/web",
  service: "orders",
  path: "/orders/7",
  peer: "127.0.0.1:40001",
};

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "hits-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

function open(dir: string, worker: number, segmentBytes = 1 << 20): Recorder {
  return openHitLog({
    dir,
    writer: { process: "worker", name: "g1", boot: "b1", worker },
    clock: () => request.at,
    randomBytes,
    log: silentLog,
    limits: { segmentBytes, strangersPerSecond: 1000 },
  });
}

async function all(hits: AsyncIterable<Hit>): Promise<Hit[]> {
  const found: Hit[] = [];
  for await (const hit of hits) found.push(hit);
  return found;
}

test("chains are merged by time, the newest first, over segments and directories", async (t) => {
  const [one, two] = [folder(t), folder(t)];
  const logs = [open(one, 0, 2000), open(one, 1, 3000), open(two, 0, 2000)];
  const ids: string[] = [];
  for (let i = 0; i < 900; i++) {
    const log = logs[(i * 7) % 3];
    const hit = { ...request, at: request.at + i, path: `/${"x".repeat(i % 300)}` };
    ids.push(log?.add(i % 5 === 0 ? withoutCaller(hit) : hit) ?? "");
    assert.equal(log?.flush(), true);
  }
  assert.ok(readdirSync(one).length > 3);
  const found = await all(queryHits([one, two]));
  assert.deepEqual(
    found.map(({ id }) => id),
    ids.toReversed(),
  );
  const newest = await all(queryHits([one, two], { limit: 10 }));
  assert.deepEqual(
    newest.map(({ id }) => id),
    ids.toReversed().slice(0, 10),
  );
  for (const id of [ids[0], ids[450], ids[899]]) {
    const hits = await all(queryHits([one, two], { id: id ?? "" }));
    assert.deepEqual(
      hits.map((hit) => hit.id),
      [id],
    );
  }
  for (const log of logs) log.close();
});

function withoutCaller({ caller: _, ...hit }: NewHit): NewHit {
  return hit;
}

test("a filter narrows", async (t) => {
  const dir = folder(t);
  const log = open(dir, 0);
  const base = request.at;
  const ids = [
    log.add(request),
    log.add({ ...request, at: base + 1000, decision: "refused", code: "denied", rule: "no-debug" }),
    log.add({ ...request, at: base + 2000, caller: "service/web-2", service: "billing" }),
    log.add({
      ...request,
      at: base + 3000,
      plane: "control",
      kind: "action",
      caller: "admin/first",
    }),
    log.add({
      ...withoutCaller(request),
      at: base + 4000,
      peer: "[::1]:5",
      decision: "refused",
      code: 'a"b',
    }),
  ];
  assert.equal(log.flush(), true);
  const rows: [claim: string, filter: HitFilter, expected: number[]][] = [
    ["nothing asked, everything found", {}, [4, 3, 2, 1, 0]],
    ["since is inclusive", { sinceMs: base + 3000 }, [4, 3]],
    ["until is exclusive", { untilMs: base + 1000 }, [0]],
    ["a bare caller is a service", { caller: "web" }, [1, 0]],
    ["a caller in full", { caller: "admin/first" }, [3]],
    ["a longer name is another caller", { caller: "web-" }, []],
    ["a service", { service: "billing" }, [2]],
    ["refused", { decision: "refused" }, [4, 1]],
    ["a code", { code: "denied" }, [1]],
    ["a code with a quote", { code: 'a"b' }, [4]],
    ["a rule", { rule: "no-debug" }, [1]],
    ["a door", { plane: "control" }, [3]],
    ["a kind", { kind: "action" }, [3]],
    ["a peer without its port", { peer: "127.0.0.1" }, [3, 2, 1, 0]],
    ["a peer with its port", { peer: "[::1]:5" }, [4]],
    ["a path is whole", { path: "/orders" }, []],
    ["two at once", { caller: "web", decision: "refused" }, [1]],
    ["a limit takes the newest", { limit: 2 }, [4, 3]],
    ["no such id", { id: "aaaaaaaaaa-1" }, []],
    ["an id that is none", { id: "../../etc/passwd" }, []],
    ["an id beyond the end", { id: ids[0]?.replace("-1", "-99") ?? "" }, []],
    ["an id that begins like another", { id: ids[0]?.replace("-1", "-11") ?? "" }, []],
  ];
  for (const [claim, filter, expected] of rows)
    assert.deepEqual(
      (await all(queryHits(dir, filter))).map(({ id }) => ids.indexOf(id)),
      expected,
      claim,
    );
  log.close();
});

test("a hit comes back as it was written, without what chains it", async (t) => {
  const dir = folder(t);
  const log = open(dir, 0);
  const hit = { ...request, path: "/é\n\ud800", status: 200, tookMs: 1.5 };
  const id = log.add(hit);
  assert.equal(log.flush(), true);
  assert.deepEqual(await all(queryHits(dir)), [{ ...hit, id }]);
  log.close();
});

test("no hit log, no hits", async (t) => {
  assert.deepEqual(await all(queryHits(join(folder(t), "nowhere"))), []);
});

test("following misses nothing and doubles nothing, over rotations and new chains", async (t) => {
  const dir = folder(t);
  const first = open(dir, 0, 1500);
  first.add(request);
  assert.equal(first.flush(), true);
  const stop = new AbortController();
  const expected = new Set<string>();
  const seen: string[] = [];
  const following = followHits(dir, { service: "orders" }, { everyMs: 1, signal: stop.signal });
  const logs = [first, open(dir, 1, 1500)];
  const writing = (async () => {
    for (let i = 0; i < 300; i++) {
      const log = logs[i % 2];
      const size = 1 + (i % 4);
      for (let j = 0; j < size; j++) expected.add(log?.add({ ...request, path: `/${i}` }) ?? "");
      log?.add({ ...request, service: "billing" });
      assert.equal(log?.flush(), true);
      if (i % 3 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  })();
  for await (const hit of following) {
    seen.push(hit.id);
    if (seen.length === 300 * 2.5) stop.abort();
  }
  await writing;
  assert.equal(new Set(seen).size, seen.length, "nothing twice");
  assert.deepEqual(new Set(seen), expected);
  for (const log of logs) log.close();
});
