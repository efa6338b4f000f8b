import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { skipOutsideCi } from "../../harness/skip-outside-ci.ts";
import {
  assertRecorded,
  type Called,
  callerOf,
  type SystemWorld,
  shopRegister,
  startSystemWorld,
  until,
} from "../../harness/system-world.ts";

const canMount = process.platform === "linux" && process.getuid?.() === 0;
const onlyRoot = { skip: canMount ? false : "needs root and Linux: it mounts a small disk" };
if (!canMount && process.env.CI)
  test("a small disk can be mounted in CI", () =>
    assert.fail("this job must run as root on Linux: it proves what a full disk does"));

/** A world with a small disk at one place of its state directory, which is unmounted with it. */
async function worldWithSmallDisk(
  t: TestContext,
  ...parts: string[]
): Promise<SystemWorld & { fill(): void; free(): void }> {
  let disk = "";
  const world = await startSystemWorld(t, {
    prepare(stateDir) {
      disk = join(stateDir, ...parts);
      mkdirSync(disk, { recursive: true, mode: 0o700 });
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", disk]);
    },
  });
  world.beforeClose.push(() => {
    execFileSync("umount", ["-l", disk]);
    assert.ok(!readFileSync("/proc/mounts", "utf8").includes(disk), "the disk is left mounted");
  });
  const filler = join(disk, "filler");
  return {
    ...world,
    fill() {
      const fd = openSync(filler, "a");
      try {
        for (;;) writeSync(fd, Buffer.alloc(512));
      } catch {
        closeSync(fd);
      }
    },
    free: () => rmSync(filler, { force: true }),
  };
}

/** What a caller sees that starts anew each time, as a stranger to what was before. */
async function ask(
  world: SystemWorld,
  as: Parameters<typeof callerOf>[1],
): Promise<Called | undefined> {
  const caller = callerOf(world, as, { port: world.ports.data, connections: 1 });
  try {
    return await caller.call("/orders/1");
  } catch {
    return undefined; // closed without an answer
  } finally {
    caller.close();
  }
}

async function refusesForTheLog(
  world: SystemWorld,
  as: Parameters<typeof callerOf>[1],
): Promise<void> {
  const kept = callerOf(world, as, { port: world.ports.data, connections: 1 });
  await until("requests are refused", async () => {
    const answer = await kept.call("/orders/1").catch(() => undefined);
    return answer?.status === 503 && answer.code === "audit_unavailable";
  });
  kept.close();
}

test("a full disk under the gate's hit log", onlyRoot, async (t) => {
  const world = await worldWithSmallDisk(t, "gates", "local", "hits");
  const [web, intern] = [await world.enrol("web"), await world.enrol("intern")];
  const pid = world.supervisor.pids().local;
  const seen: Called[] = [];
  for (let i = 0; i < 10; i++) seen.push((await ask(world, web)) as Called);
  assert.ok(seen.every(({ status }) => status === 200));
  world.fill();
  await refusesForTheLog(world, web);
  // Each worker has a file of its own, whose last page may have a little room: what is served is recorded all the same.
  let refusedInARow = 0;
  await until("every worker refuses", async () => {
    const answer = await ask(world, web);
    if (answer?.status === 200) seen.push(answer);
    refusedInARow = answer?.status === 200 ? 0 : refusedInARow + 1;
    return refusedInARow > 20;
  });
  await until("it says that it is not ready", async () => {
    // Asked on: the line that tells of a gap is shorter than a request's, and may find room where that found none.
    const answer = await ask(world, web);
    if (answer?.status === 200) seen.push(answer);
    return (await fetch(`http://127.0.0.1:${world.ports.ops}/ready`)).status === 503;
  });
  const revoked = await world.cli("revoke", "service/intern", "--wait");
  assert.equal(revoked.code, 0, `revoke works throughout: ${revoked.stderr}`);
  assert.notEqual((await ask(world, intern))?.status, 200);
  assert.equal(world.supervisor.pids().local, pid, "nothing crashed");
  world.free();
  const took = await until("service returns by itself", async () => {
    const answer = await ask(world, web);
    if (answer?.status === 200) seen.push(answer);
    return answer?.status === 200;
  });
  t.diagnostic(`back ${Math.round(took)} ms after there was room`);
  // The other worker may still be looking whether there is room again.
  await until(
    "the revoked one is told",
    async () => (await ask(world, intern))?.code === "revoked",
  );
  await assertRecorded(world, seen);
  assert.equal(world.supervisor.pids().local, pid, "nothing crashed");
});

test("files that may not grow any more", async (t) => {
  if (process.platform !== "linux") return skipOutsideCi(t, "prlimit is Linux's");
  const world = await startSystemWorld(t);
  const web = await world.enrol("web");
  const pid = world.supervisor.pids().local as number;
  const seen = [(await ask(world, web)) as Called];
  const grow = (limit: string): void => {
    execFileSync("prlimit", ["--pid", String(pid), `--fsize=${limit}`]);
  };
  grow("64:unlimited");
  await refusesForTheLog(world, web);
  await until("status says that it does not serve", async () => {
    await ask(world, web); // what is refused for the log keeps it noticed
    const { code, stdout } = await world.cli("status");
    return code === 1 && /not serving.*audit_unavailable: free space/s.test(stdout);
  });
  const revoked = await world.cli("revoke", "service/intern", "--wait");
  assert.equal(revoked.code, 0, `revoke works throughout: ${revoked.stderr}`);
  grow("unlimited:unlimited");
  await until("service returns by itself", async () => {
    const answer = await ask(world, web);
    if (answer?.status === 200) seen.push(answer);
    return answer?.status === 200;
  });
  await until("all is well", async () => (await world.cli("status")).code === 0);
  assert.equal(world.supervisor.pids().local, pid, "nothing crashed");
  await assertRecorded(world, seen);
});

test("the directory of the hit log is taken away", async (t) => {
  const world = await startSystemWorld(t);
  const web = await world.enrol("web");
  const pid = world.supervisor.pids().local;
  assert.equal((await ask(world, web))?.status, 200);
  rmSync(world.gateHits, { recursive: true });
  // Noticed within a second; what is answered from then on is in a directory that is there.
  await until("there is a log again", async () => {
    await ask(world, web);
    return existsSync(world.gateHits) && readdirSync(world.gateHits).length > 1;
  });
  await until("every worker writes where it can be read", async () => {
    const answers = await Promise.all(Array.from({ length: 8 }, () => ask(world, web)));
    if (!answers.every((answer) => answer?.status === 200)) return false;
    const ids = new Set((await world.hits()).map(({ id }) => id));
    return answers.every((answer) => ids.has(answer?.hit ?? ""));
  });
  assert.equal(world.supervisor.pids().local, pid, "nothing crashed");
  // Without anchors a loss shows in a chain that goes on: the worker that had written before has to write again.
  await until("verify says that something is gone", async () => {
    await ask(world, web);
    return !(await world.verify()).ok;
  });
});

test("a full disk under control's hit log", onlyRoot, async (t) => {
  const world = await worldWithSmallDisk(t, "control", "hits");
  const [web, intern] = [await world.enrol("web"), await world.enrol("intern")];
  const pid = world.supervisor.pids().control;
  const file = join(world.dir, "sallyport.yaml");
  const wider = shopRegister(world.ports).replace("[GET]", "[GET, POST]");
  writeFileSync(file, wider);
  world.fill();
  const refused = await until("an apply is refused", async () => {
    const applied = await world.cli("apply", file, "--yes");
    return applied.code === 1 && /recorded|written|audit/.test(applied.stderr);
  });
  t.diagnostic(`refused after ${Math.round(refused)} ms`);
  // The last page of its file may have a little room for small lines.
  await until("status says so", async () => {
    const { code, stdout } = await world.cli("status");
    return code === 1 && stdout.includes("hits cannot be written");
  });
  const revoked = await world.cli("revoke", "service/intern", "--wait");
  assert.equal(revoked.code, 0, `revoke works throughout: ${revoked.stderr}`);
  // The other worker may still be looking whether there is room again.
  await until(
    "the revoked one is told",
    async () => (await ask(world, intern))?.code === "revoked",
  );
  assert.equal((await ask(world, web))?.status, 200, "traffic has a log of its own");
  world.free();
  await until(
    "an apply works again",
    async () => (await world.cli("apply", file, "--yes")).code === 0,
  );
  assert.equal(world.supervisor.pids().control, pid, "nothing crashed");
  const report = await world.verify();
  assert.deepEqual(report.problems, []);
  const recorded = await world.hits({ plane: "control", kind: "action" });
  assert.ok(
    recorded.some(({ action, detail }) => action === "revoke" && detail?.includes("intern")),
    "the revocation was recorded from the reserve",
  );
});
