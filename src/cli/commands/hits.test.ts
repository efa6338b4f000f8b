import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type TestContext, test } from "node:test";
import { openHitLog } from "../../audit/hit-log/open-hit-log.ts";
import type { NewHit, Recorder } from "../../audit/recorder.ts";
import { silentLog } from "../../base/log.ts";

const main = join(import.meta.dirname, "..", "main.ts");
const request: NewHit = {
  at: Date.now(),
  plane: "data",
  kind: "request",
  decision: "allowed",
  caller: "service/web",
  service: "orders",
  method: "GET",
  path: "/orders/7",
  rule: "web-reads-orders",
  status: 200,
};

function write(t: TestContext): { state: string; gate: Recorder; ids: string[] } {
  const state = mkdtempSync(join(tmpdir(), "state-"));
  t.after(() => rmSync(state, { recursive: true, force: true }));
  const open = (process: "gate" | "control", name: string, dir: string): Recorder =>
    openHitLog({
      dir: join(state, dir),
      writer: { process, name, boot: "b1" },
      clock: Date.now,
      randomBytes,
      log: silentLog,
      limits: { reserveBytes: 0 },
    });
  const control = open("control", "control", "control/hits");
  const gate = open("gate", "g1", "gates/g1/hits");
  const ids = [
    control.add({
      ...request,
      plane: "control",
      kind: "action",
      action: "apply",
      caller: "admin/first",
    }),
    gate.add({ ...request, at: request.at + 1 }),
    gate.add({
      ...request,
      at: request.at + 2,
      decision: "refused",
      code: "denied",
      path: "/\u001b[31mred\u202e\u009b",
    }),
  ];
  assert.equal(control.flush() && gate.flush(), true);
  control.close();
  t.after(() => gate.close());
  return { state, gate, ids };
}

function run(...args: string[]): { status: number | null; out: string; err: string } {
  const done = spawnSync(process.execPath, [main, "hits", ...args], { encoding: "utf8" });
  return { status: done.status, out: done.stdout, err: done.stderr };
}

test("hits shows control's and the gates' hits, the newest last, and obeys nothing in them", (t) => {
  const { state, ids } = write(t);
  const all = run("--state", state);
  assert.equal(all.status, 0, all.err);
  assert.deepEqual(
    all.out
      .trim()
      .split("\n")
      .slice(1)
      .map((line) => line.split(/\s+/).at(-1)),
    ids,
  );
  assert.match(all.out, /^[\x20-\x7e\n…]*$/);
  const json = run("--state", state, "--refused", "--json");
  assert.match(json.out, /^[\x20-\x7e\n]*$/);
  assert.deepEqual(
    JSON.parse(json.out).map(({ id }: { id: string }) => id),
    [ids[2]],
  );
  const one = run("--state", state, "--id", ids[1] ?? "", "--json");
  assert.equal(JSON.parse(one.out)[0].path, "/orders/7");
});

test("hits says what is wrong and what to do", (t) => {
  const { state } = write(t);
  const rows: [args: string[], status: number, says: RegExp][] = [
    [["--state", state, "--id", "aaaaaaaaaa-1"], 1, /no hit has the id/],
    [["--state", state, "--since", "yesterday"], 2, /no duration[\s\S]*write 30s/],
    [["--state", state, "--limit", "0"], 2, /no number from 1/],
    [["--state", state, "--plane", "back"], 2, /one of data, control/],
    [["--state", join(state, "gates")], 2, /no hit log[\s\S]*--state/],
    [["--dir", state], 2, /no hit log's directory/],
    [["verify", "--state", state, "--anchors", join(state, "none")], 2, /cannot be read/],
  ];
  for (const [args, status, says] of rows) {
    const done = run(...args);
    assert.equal(done.status, status, args.join(" "));
    assert.match(done.err, says);
    assert.equal(done.err.includes("    at "), false, "no stack");
  }
});

test("hits verify is 0 for a whole log and 1 for a broken one, and names the line", (t) => {
  const { state, gate } = write(t);
  const [head] = gate.heads();
  const anchors = join(state, "anchors.json");
  writeFileSync(anchors, JSON.stringify(gate.heads()));
  const whole = run("verify", "--state", state, "--anchors", anchors);
  assert.equal(whole.status, 0, whole.out + whole.err);
  assert.match(whole.out, /3 lines in 2 chains/);
  const folder = join(state, "gates", "g1", "hits", head?.chain ?? "");
  const [name = ""] = readdirSync(folder);
  const text = readFileSync(join(folder, name), "latin1");
  writeFileSync(join(folder, name), text.replace("/orders/7", "/orders/8"));
  const broken = run("verify", "--state", state);
  assert.equal(broken.status, 1);
  assert.match(broken.out, new RegExp(`${head?.chain}/${name}:2: changed`));
  const json = JSON.parse(run("verify", "--state", state, "--json").out);
  assert.equal(json.ok, false);
  assert.equal(json.problems[0].line, 2);
});

test("hits verify finds a log whose list of chains is gone, and one whose only segment is", (t) => {
  const { state, gate } = write(t);
  for (let i = 0; i < 2; i++) {
    gate.add(request);
    gate.flush();
  }
  const hits = join(state, "gates", "g1", "hits");
  const chain = gate.heads()[0]?.chain ?? "";
  const list = readFileSync(join(hits, "chains.jsonl"));
  rmSync(join(hits, "chains.jsonl"));
  const unlisted = run("verify", "--state", state);
  assert.equal(unlisted.status, 1, unlisted.out);
  assert.match(unlisted.out, /^chains\.jsonl: missing: the chain is here/m);
  assert.match(unlisted.out, new RegExp(`${chain} .*broken`));
  assert.match(unlisted.err, /taken out of the list as well/);
  writeFileSync(join(hits, "chains.jsonl"), list);
  assert.equal(run("verify", "--state", state).status, 0);
  rmSync(join(hits, chain, "000000000001.jsonl"));
  const emptied = run("verify", "--state", state);
  assert.equal(emptied.status, 1, emptied.out);
  assert.match(emptied.out, new RegExp(`^${chain}: missing: .*not one of its lines`, "m"));
  assert.match(emptied.out, new RegExp(`${chain} .*broken`));
});

test("hits --follow --json prints one object a line, old ones and those to come, each once", async (t) => {
  const { state, gate, ids } = write(t);
  const following = spawn(process.execPath, [main, "hits", "--state", state, "-f", "--json"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => following.kill());
  const seen: string[] = [];
  for await (const line of createInterface(following.stdout)) {
    seen.push(JSON.parse(line).id);
    if (seen.length === 3) {
      ids.push(gate.add(request), gate.add(request));
      assert.equal(gate.flush(), true);
    }
    if (seen.length === 5) break;
  }
  assert.deepEqual(seen, ids);
});
