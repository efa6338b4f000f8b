import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { freePorts, isAlive, isOpen, shopRegister, until } from "../../harness/system-world.ts";

const launcher = fileURLToPath(new URL("../../../bin/sallyport.js", import.meta.url));

/** A temporary directory of its own, so that what a program leaves there is seen. */
function ground(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "sallyport-left-"));
  t.after(() => rmSync(dir, { recursive: true, force: true, maxRetries: 10 }));
  return dir;
}

/** Every process below this one, however deep. */
function descendants(of: number): number[] {
  const parents = readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "utf8");
      return [[Number(name), Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1])] as const];
    } catch {
      return []; // it has just ended
    }
  });
  const found: number[] = [];
  for (let wave = [of]; wave.length > 0; ) {
    wave = parents.filter(([, parent]) => wave.includes(parent)).map(([pid]) => pid);
    found.push(...wave);
  }
  return found;
}

async function said(child: ChildProcess, what: RegExp): Promise<void> {
  let text = "";
  for (const stream of [child.stdout, child.stderr])
    stream?.on("data", (chunk: Buffer) => {
      text += chunk;
    });
  await until(
    `it says ${what}`,
    () => {
      if (child.exitCode !== null) throw new Error(`it ended, having said: ${text}`);
      return what.test(text);
    },
    20_000,
  );
}

test("the demo leaves no process and no file", async (t) => {
  const dir = ground(t);
  const demo = spawn(process.execPath, [launcher, "up", "--demo", "--once", "--json"], {
    cwd: dir,
    env: { ...process.env, TMPDIR: dir },
  });
  demo.stdout.resume();
  const seen = new Set<number>();
  const watching = setInterval(() => {
    for (const pid of descendants(demo.pid as number)) seen.add(pid);
  }, 50);
  const [code] = await once(demo, "close");
  clearInterval(watching);
  assert.equal(code, 0);
  assert.ok(seen.size >= 2, "control and the gate were seen");
  for (const pid of seen) assert.ok(!isAlive(pid), `process ${pid} is left`);
  assert.deepEqual(readdirSync(dir), []);
});

test("a demo that is interrupted while it starts leaves no process and no file", async (t) => {
  const dir = ground(t);
  const demo = spawn(process.execPath, [launcher, "up", "--demo"], {
    cwd: dir,
    env: { ...process.env, TMPDIR: dir },
  });
  await said(demo, /issuing identities/);
  const below = descendants(demo.pid as number);
  assert.ok(below.length >= 2);
  demo.kill("SIGINT");
  await once(demo, "close");
  await until("all have ended", () => !below.some(isAlive), 5_000);
  assert.deepEqual(readdirSync(dir), []);
});

for (const signal of ["SIGTERM", "SIGINT", "SIGKILL"] as const)
  test(`up, ended by ${signal}, leaves no process and no open port`, async (t) => {
    const dir = ground(t);
    const ports = await freePorts(5);
    const [control = 0, join_ = 0, ops = 0, data = 0, upstream = 0] = ports;
    const file = join(dir, "sallyport.yaml");
    writeFileSync(file, shopRegister({ control, join: join_, ops, data, upstream }));
    const up = spawn(process.execPath, [launcher, "up", file], {
      cwd: dir,
      env: { ...process.env, TMPDIR: dir },
    });
    t.after(() => up.kill("SIGKILL"));
    await said(up, /sallyport is up/);
    const below = descendants(up.pid as number);
    assert.ok(below.length >= 2, "control and the gate run");
    assert.ok(await isOpen("127.0.0.1", data));
    up.kill(signal);
    const [code] = (await once(up, "close")) as [number | null];
    if (signal !== "SIGKILL") assert.equal(code, 0);
    // After SIGKILL nobody is left to end them: they end because their channel closed.
    await until("all have ended", () => !below.some(isAlive), 5_000);
    // A process counts as ended a moment before the last of its threads lets go of its files.
    for (const port of [control, join_, ops, data])
      await until(`port ${port} is closed`, async () => !(await isOpen("127.0.0.1", port)), 2_000);
    assert.deepEqual(readdirSync(dir).sort(), [".sallyport", "sallyport.yaml"]);
    if (signal !== "SIGKILL") return;
    // And what a killed one left in its state directory is no obstacle to the next.
    const next = spawn(process.execPath, [launcher, "up", file, "--once"], { cwd: dir });
    next.stdout.resume();
    next.stderr.resume();
    const [again] = await once(next, "close");
    assert.equal(again, 0);
  });
