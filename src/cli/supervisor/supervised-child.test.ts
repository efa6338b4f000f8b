import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
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
