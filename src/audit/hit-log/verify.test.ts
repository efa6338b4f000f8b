import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { crc32 } from "node:zlib";
import { silentLog } from "../../base/log.ts";
import type { ChainHead } from "../../model/chain-head.ts";
import type { NewHit } from "../recorder.ts";
import { openHitLog } from "./open-hit-log.ts";
import { type LogProblem, verifyLog } from "./verify.ts";

const request: NewHit = {
  at: 1_800_000_000_000,
  plane: "data",
  kind: "request",
  decision: "allowed",
  caller: "service/web",
  path: "/orders/7",
};

type Written = { dir: string; chain: string; heads: readonly ChainHead[]; file: string };

/** A log of one chain: twelve hits in batches of 1, 3, 1, 3, 1, 3; the header is line 1, hit n is line n + 1. */
function write(t: TestContext, segmentBytes = 1 << 20): Written {
  const dir = mkdtempSync(join(tmpdir(), "hits-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const log = openHitLog({
    dir,
    writer: { process: "worker", name: "g1", boot: "b1", worker: 0 },
    clock: () => request.at,
    randomBytes,
    log: silentLog,
    limits: { segmentBytes },
  });
  for (const size of [1, 3, 1, 3, 1, 3]) {
    for (let i = 0; i < size; i++) log.add(request);
    assert.equal(log.flush(), true);
  }
  const heads = log.heads();
  log.close();
  const chain = heads[0]?.chain ?? "";
  return { dir, chain, heads, file: join(dir, chain, "000000000001.jsonl") };
}

function edit(file: string, change: (lines: string[]) => string[]): void {
  const lines = readFileSync(file, "latin1").split("\n").slice(0, -1);
  writeFileSync(
    file,
    change(lines)
      .map((line) => `${line}\n`)
      .join(""),
  );
}

const allow = (lines: string[], at: number): string =>
  (lines[at] ?? "").replace('"decision":"allowed"', '"decision":"refused"');

/** What somebody would do who knows the format but has not the key: there is none, so every check is made anew. */
function recomputed(lines: string[], changed: number): string[] {
  let head = "0".repeat(64);
  let batch = "";
  return lines.map((line, i) => {
    const body = (i === changed ? allow(lines, i) : line).replace(/,"[ch]":"?[0-9a-f]+"?\}$/, "");
    const isEnd = /,"h":"/.test(line);
    if (!isEnd) {
      const whole = `${body},"c":${crc32(body)}}`;
      batch += `${whole}\n`;
      return whole;
    }
    head = createHash("sha256")
      .update(head + batch + body)
      .digest("hex");
    batch = "";
    return `${body},"h":"${head}"}`;
  });
}

const damages: [
  claim: string,
  change: (lines: string[]) => string[],
  kind: LogProblem["kind"],
  line: number | undefined,
  anchored?: true,
][] = [
  ["a line alone in its batch", (l) => l.with(1, allow(l, 1)), "changed", 2],
  ["the first line of a batch", (l) => l.with(2, allow(l, 2)), "changed", 3],
  ["a line in the middle of a batch", (l) => l.with(3, allow(l, 3)), "changed", 4],
  ["the last line of a batch", (l) => l.with(4, allow(l, 4)), "changed", 5],
  ["the last line of all", (l) => l.with(12, allow(l, 12)), "changed", 13],
  [
    "a flipped bit in a path",
    (l) => l.with(6, (l[6] ?? "").replace("/orders/7", "/orders/6")),
    "changed",
    7,
  ],
  ["a flipped digit in an id", (l) => l.with(6, (l[6] ?? "").replace('-6"', '-9"')), "changed", 7],
  [
    "a flipped digit in a check",
    (l) => l.with(6, (l[6] ?? "").replace(/\d\}$/, "x}")),
    "changed",
    7,
  ],
  [
    "a flipped digit in a head",
    (l) =>
      l.with(
        5,
        (l[5] ?? "").replace(/.("\})$/, (whole) => (whole[0] === "a" ? 'b"}' : 'a"}')),
      ),
    "changed",
    6,
  ],
  [
    "a check made anew",
    (l) => {
      const body = allow(l, 3).replace(/,"c":\d+\}$/, "");
      return l.with(3, `${body},"c":${crc32(body)}}`);
    },
    "changed",
    5,
  ],
  ["the segment's first line", (l) => l.with(0, (l[0] ?? "").replace("g1", "g2")), "changed", 1],
  ["a line taken out of a batch", (l) => l.toSpliced(3, 1), "removed", 4],
  ["a batch of one taken out", (l) => l.toSpliced(5, 1), "removed", 6],
  ["the end of a batch taken out", (l) => l.toSpliced(4, 1), "removed", 5],
  ["several lines taken out", (l) => l.toSpliced(4, 4), "removed", 5],
  ["a line put in twice", (l) => l.toSpliced(4, 0, l[3] ?? ""), "inserted", 5],
  ["a batch put in twice", (l) => l.toSpliced(6, 0, l[5] ?? ""), "inserted", 7],
  [
    "a line of another chain put in",
    (l) => l.toSpliced(4, 0, (l[3] ?? "").replace(/-\d+"/, '-77"')),
    "inserted",
    5,
  ],
  ["text put in", (l) => l.toSpliced(4, 0, "hello"), "inserted", 5],
  ["an empty line put in", (l) => l.toSpliced(4, 0, ""), "inserted", 5],
  ["two neighbours swapped", (l) => l.with(2, l[3] ?? "").with(3, l[2] ?? ""), "reordered", 3],
  ["two batches swapped", (l) => l.with(1, l[5] ?? "").with(5, l[1] ?? ""), "reordered", 2],
  ["the last batch cut off", (l) => l.slice(0, 10), "cut", undefined, true],
  ["the last line cut off", (l) => l.slice(0, 12), "cut", undefined, true],
  ["everything computed anew", (l) => recomputed(l, 3), "recomputed", 13, true],
];

for (const [claim, change, kind, line, anchored] of damages) {
  test(`verify finds ${claim}: ${kind}`, async (t) => {
    const { chain, dir, file, heads } = write(t);
    assert.equal((await verifyLog([dir], heads)).ok, true, "sound before");
    edit(file, change);
    const report = await verifyLog([dir], heads);
    assert.equal(report.ok, false);
    const found = report.problems.filter((problem) => problem.chain === chain);
    assert.ok(
      found.some((problem) => problem.kind === kind && problem.line === line),
      JSON.stringify(found),
    );
    if (anchored) {
      const blind = await verifyLog([dir]);
      assert.deepEqual(blind.problems, [], "only what was kept elsewhere finds this");
    }
  });
}

test("recomputing as such is faithful: an unchanged log comes out as it was", (t) => {
  const { file } = write(t);
  const before = readFileSync(file, "latin1");
  edit(file, (lines) => recomputed(lines, -1));
  assert.equal(readFileSync(file, "latin1"), before);
});

test("one damage is one problem: what follows is judged by itself", async (t) => {
  for (const at of [1, 2, 3, 4, 5]) {
    const { dir, file } = write(t);
    edit(file, (lines) => lines.with(at, allow(lines, at)));
    const { problems } = await verifyLog([dir]);
    assert.deepEqual(
      problems.map((problem) => problem.line),
      [at + 1],
    );
  }
});

test("a deleted segment is missed, at the beginning, in the middle and (by an anchor) at the end", async (t) => {
  for (const [at, kind, anchored] of [
    [0, "cut", false],
    [1, "removed", false],
    [-1, "cut", true],
  ] as const) {
    const { chain, dir, heads } = write(t, 700);
    const names = readdirSync(join(dir, chain)).sort();
    assert.ok(names.length > 3);
    rmSync(join(dir, chain, names.at(at) ?? ""));
    const { problems } = await verifyLog([dir], anchored ? heads : []);
    assert.deepEqual(
      problems.map((problem) => problem.kind),
      [kind],
      `segment ${at}`,
    );
  }
});

test("without anchors, what is left of a chain says what was taken away; of what no trace is left, nothing is known", async (t) => {
  type Damage = (dir: string, chain: string, names: readonly string[]) => void;
  const list = (dir: string) => join(dir, "chains.jsonl");
  const removeAt =
    (at: number): Damage =>
    (dir, chain, names) =>
      rmSync(join(dir, chain, names.at(at) ?? ""));
  const forget: Damage = (dir) => rmSync(list(dir));
  const removeDirectory: Damage = (dir, chain) => rmSync(join(dir, chain), { recursive: true });
  const many = 700;
  const rows: [
    claim: string,
    segmentBytes: number | undefined,
    damage: Damage,
    kind: LogProblem["kind"] | undefined,
  ][] = [
    ["its only segment", undefined, removeAt(0), "missing"],
    [
      "every line of its only segment",
      undefined,
      (dir, chain, [name = ""]) => writeFileSync(join(dir, chain, name), ""),
      "missing",
    ],
    [
      "every line but the segment's first",
      undefined,
      (dir, chain, [name = ""]) => edit(join(dir, chain, name), (lines) => lines.slice(0, 1)),
      "missing",
    ],
    [
      "all of several segments",
      many,
      (dir, chain, names) => {
        for (const name of names) rmSync(join(dir, chain, name));
      },
      "missing",
    ],
    ["the first of several segments", many, removeAt(0), "cut"],
    ["one in the middle", many, removeAt(1), "removed"],
    ["the last of several segments", many, removeAt(-1), undefined],
    ["its directory", undefined, removeDirectory, "missing"],
    [
      "its directory, with a line in the list that retention took it",
      undefined,
      (dir, chain, names) => {
        removeDirectory(dir, chain, names);
        appendFileSync(list(dir), `\n${JSON.stringify({ removed: chain, at: request.at })}\n`);
      },
      "missing",
    ],
    ["the list", undefined, forget, "missing"],
    ["what stood in the list", undefined, (dir) => writeFileSync(list(dir), ""), "missing"],
    [
      "its directory and its line in the list",
      undefined,
      (dir, chain, names) => {
        removeDirectory(dir, chain, names);
        forget(dir, chain, names);
      },
      undefined,
    ],
  ];
  for (const [claim, segmentBytes, damage, kind] of rows) {
    const { chain, dir, heads } = write(t, segmentBytes);
    assert.equal((await verifyLog([dir])).ok, true, "sound before");
    damage(dir, chain, readdirSync(join(dir, chain)).sort());
    const { ok, problems } = await verifyLog([dir]);
    assert.deepEqual(
      problems.map((problem) => problem.kind),
      kind === undefined ? [] : [kind],
      claim,
    );
    assert.equal(ok, kind === undefined);
    const anchored = await verifyLog([dir], heads);
    assert.equal(anchored.ok, false, `${claim}, with anchors`);
  }
});

test("a chain of one write need not be listed: its writer may have been killed before it could", async (t) => {
  const { dir, file } = write(t);
  rmSync(join(dir, "chains.jsonl"));
  edit(file, (lines) => lines.slice(0, 5));
  assert.equal((await verifyLog([dir])).ok, false);
  edit(file, (lines) => lines.slice(0, 2));
  assert.deepEqual((await verifyLog([dir])).problems, []);
});

test("what retention took is no finding, also once the line that says so was taken; what is taken beside it is", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "hits-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  let now = request.at;
  const dayMs = 86_400_000;
  const live = async (boot: string, days: number, body: () => Promise<void>): Promise<string[]> => {
    const common = { dir, clock: () => now, randomBytes, log: silentLog };
    const limits = { segmentBytes: 700, keepMs: 10 * dayMs, reserveBytes: 0 };
    const main = openHitLog({
      ...common,
      writer: { process: "gate", name: "g1", boot },
      limits,
    });
    const worker = openHitLog({
      ...common,
      writer: { process: "worker", name: "g1", boot, worker: 0 },
      limits,
    });
    for (let i = 0; i < days; i++) {
      for (const log of [main, worker]) {
        log.add({ ...request, at: now });
        assert.equal(log.flush(), true);
        log.tick();
      }
      now += dayMs;
    }
    await body();
    const chains = [main, worker].map((log) => log.heads()[0]?.chain ?? "");
    main.close();
    worker.close();
    return chains;
  };
  // Segments of a few lines, stamped by the clock when they are left: retention goes by what was written last.
  const sound = async (): Promise<void> => assert.deepEqual((await verifyLog([dir])).problems, []);
  const first = await live("b1", 8, sound);
  const second = await live("b2", 30, sound);
  for (const chain of first) assert.ok(!existsSync(join(dir, chain)), "the first life is gone");
  const third = await live("b3", 40, sound);
  for (const chain of second) assert.ok(!existsSync(join(dir, chain)), "so is the second");
  await sound();
  const [, chain = ""] = third;
  for (const name of readdirSync(join(dir, chain))) rmSync(join(dir, chain, name));
  const { problems } = await verifyLog([dir]);
  assert.deepEqual(
    problems.map((problem) => [problem.kind, problem.chain]),
    [["missing", chain]],
    "its beginning was taken by retention, and its end was not",
  );
});

test("a deleted chain is missed by the list, and by an anchor when the list is gone too", async (t) => {
  const { chain, dir, heads } = write(t);
  rmSync(join(dir, chain), { recursive: true });
  const listed = await verifyLog([dir]);
  assert.deepEqual(
    listed.problems.map(({ kind }) => kind),
    ["missing"],
  );
  rmSync(join(dir, "chains.jsonl"));
  const blind = await verifyLog([dir]);
  assert.equal(blind.ok, true);
  const anchored = await verifyLog([dir], heads);
  assert.deepEqual(
    anchored.problems.map(({ kind }) => kind),
    ["missing"],
  );
});

test("a renamed segment and a file of another chain are found", async (t) => {
  const { chain, dir } = write(t, 700);
  const names = readdirSync(join(dir, chain)).sort();
  const text = readFileSync(join(dir, chain, names[1] ?? ""));
  writeFileSync(join(dir, chain, "000000000999.jsonl"), text);
  assert.equal((await verifyLog([dir])).ok, false);
  const other = write(t);
  writeFileSync(join(other.dir, other.chain, "000000000013.jsonl"), text);
  assert.equal((await verifyLog([other.dir])).ok, false);
});

test("what power loss can do is told apart: a torn end is torn, not broken", async (t) => {
  const { dir, file } = write(t);
  const whole = readFileSync(file);
  for (const cut of [1, 10, 400]) {
    writeFileSync(file, whole.subarray(0, whole.length - cut));
    const report = await verifyLog([dir]);
    assert.deepEqual(report.problems, []);
    assert.ok((report.chains[0]?.torn ?? 0) >= 1);
  }
});

test("an old anchor of a chain that grew agrees", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "hits-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const log = openHitLog({
    dir,
    writer: { process: "worker", name: "g1", boot: "b1", worker: 0 },
    clock: () => request.at,
    randomBytes,
    log: silentLog,
  });
  const anchors: ChainHead[] = [];
  for (let i = 0; i < 20; i++) {
    log.add(request);
    log.add(request);
    assert.equal(log.flush(), true);
    anchors.push(...log.heads());
  }
  log.close();
  const report = await verifyLog([dir], anchors);
  assert.equal(report.ok, true);
  assert.equal(report.chains[0]?.anchored, 20);
});

test("rubbish in the directory is a problem or nothing, never an exception", async (t) => {
  const { chain, dir, file } = write(t);
  writeFileSync(join(dir, "abcdefgh"), "a file with a chain's name");
  writeFileSync(join(dir, chain, "000000000777.jsonl"), randomBytes(300_000));
  const report = await verifyLog([dir, join(dir, "nowhere")]);
  assert.equal(report.ok, false);
  writeFileSync(file, Buffer.alloc(1 << 20, "x"));
  assert.equal((await verifyLog([dir])).ok, false);
});
