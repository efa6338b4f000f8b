import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { callerOf, shopRegister, startSystemWorld, until } from "../../harness/system-world.ts";

// OpenSSL keeps its own time, so what sleeps is the clock of our programs: they start behind and jump ahead, never further than
// certificates are backdated.
const behindMs = -270_000;
const aheadMs = 50_000;

test("a machine sleeps past the end of its gate's certificates: the gate is invited again while everything runs", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "sallyport-slept-"));
  const clockFile = join(dir, "clock");
  const before = process.env.NODE_OPTIONS;
  t.after(() => {
    if (before === undefined) delete process.env.NODE_OPTIONS;
    else process.env.NODE_OPTIONS = before;
    rmSync(dir, { recursive: true });
  });
  writeFileSync(clockFile, `${behindMs}`);
  writeFileSync(
    join(dir, "clock.mjs"),
    `import { readFileSync } from "node:fs";
     const real = Date.now;
     Date.now = () => real() + Number(readFileSync(${JSON.stringify(clockFile)}, "utf8"));`,
  );
  process.env.NODE_OPTIONS = `--import=${join(dir, "clock.mjs")}`;
  const world = await startSystemWorld(t, {
    workers: 1,
    register: (ports) => `${shopRegister(ports)}lifetimes: { leaf: 5m }\n`,
  });
  const pid = world.supervisor.pids().local;
  writeFileSync(clockFile, `${aheadMs}`);
  await until(
    "the gate was started anew",
    () => ![pid, undefined].includes(world.supervisor.pids().local),
    20_000,
  );
  const web = await world.enrol("web");
  const caller = callerOf(world, web, { port: world.ports.data });
  await until(
    "it serves again",
    async () => (await caller.call("/orders/1").catch(() => undefined))?.status === 200,
    20_000,
  );
  caller.close();
  const enrolments = (await world.hits({ plane: "join" })).filter(
    ({ action, decision }) => action === "enrol" && decision === "allowed",
  );
  assert.ok(enrolments.length >= 3, "the gate came with a token twice, and web once");
});
