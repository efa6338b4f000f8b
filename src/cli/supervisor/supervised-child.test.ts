import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { until } from "../../../test/harness/until.ts";
import { silentLog } from "../../base/log.ts";
import { startSupervisor } from "./start-supervisor.ts";

test("a token in the environment of a command is not that of the processes it starts", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "sallyport-child-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const said = join(dir, "env.json");
  const root = join(dir, "root.mjs");
  writeFileSync(
    root,
    `import { writeFileSync } from "node:fs";
writeFileSync(${JSON.stringify(said)}, JSON.stringify({ env: process.env, argv: process.argv }));
process.on("message", () => process.exit(0));
process.on("disconnect", () => process.exit(0));
process.send({ kind: "ready", doors: {} });
`,
  );
  process.env.SALLYPORT_TOKEN = "sp1.secret";
  t.after(() => {
    delete process.env.SALLYPORT_TOKEN;
  });
  const supervisor = startSupervisor({
    log: silentLog,
    drainMs: 2_000,
    children: [{ name: "one", root: pathToFileURL(root), config: {} }],
  });
  t.after(() => supervisor.close());
  await supervisor.ready;
  assert.doesNotMatch(readFileSync(said, "utf8"), /sp1\.secret/);
});

test("compiled code is kept where it was said, by a child that is killed as well", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "sallyport-child-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const root = join(dir, "root.mjs");
  const link = new URL("./link-to-supervisor.ts", import.meta.url);
  writeFileSync(
    root,
    `import { linkToSupervisor } from ${JSON.stringify(link.href)};
linkToSupervisor(() => process.exit(0)).ready({});
`,
  );
  const codeDir = join(dir, "code");
  const supervisor = startSupervisor({
    log: silentLog,
    drainMs: 2_000,
    codeDir,
    children: [{ name: "one", root: pathToFileURL(root), config: {} }],
  });
  t.after(() => supervisor.close());
  await supervisor.ready;
  await until("the code is kept", () => files(codeDir) > 0);
  supervisor.kill();
});

function files(dir: string): number {
  if (!existsSync(dir)) return 0;
  return readdirSync(dir, { recursive: true, withFileTypes: true }).filter((one) => one.isFile())
    .length;
}
