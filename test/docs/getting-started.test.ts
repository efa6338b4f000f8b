import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { skipOutsideCi } from "../harness/skip-outside-ci.ts";

const root = join(import.meta.dirname, "..", "..");

// A network and processes of its own: the page uses the default ports, and whatever it starts ends with it.
const isolated = [
  ...["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"],
  ...(process.getuid?.() === 0 ? [] : ["--user", "--map-root-user"]),
];
const begin = 'ip link set lo up && exec "$@"';
const canIsolate =
  process.platform === "linux" &&
  spawnSync(isolated[0] ?? "", [...isolated.slice(1), "sh", "-c", begin, "sh", "true"]).status ===
    0;

test("docs/getting-started.md works when it is followed to the letter", async (t) => {
  if (!canIsolate)
    return skipOutsideCi(t, "needs unshare(1), ip(8) and the right to make namespaces");
  const home = mkdtempSync(join(tmpdir(), "sallyport-newcomer-"));
  t.after(() => rmSync(home, { recursive: true, force: true, maxRetries: 10 }));
  // Step 0, as the page has it, but for "npm ci".
  const programs = join(home, ".local", "bin");
  mkdirSync(programs, { recursive: true });
  symlinkSync(join(root, "bin", "sallyport.js"), join(programs, "sallyport"));

  const [program = "", ...options] = isolated;
  const follower = spawn(
    program,
    [
      ...[...options, "sh", "-c", begin, "sh", process.execPath],
      ...[join(root, "test", "docs", "follow-page.ts"), join("docs", "getting-started.md")],
    ],
    {
      cwd: root,
      env: { PATH: `${programs}:${process.env.PATH}`, HOME: home, TMPDIR: home, TERM: "dumb" },
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  t.after(() => void follower.kill("SIGKILL"));
  let said = "";
  for (const stream of [follower.stdout, follower.stderr])
    stream.setEncoding("utf8").on("data", (piece: string) => {
      said += piece;
    });
  const code = await new Promise((resolve) => follower.on("close", resolve));
  assert.equal(code, 0, said);
  assert.ok(!existsSync(join(home, "shop")), "the page cleans up after itself");
  assert.deepEqual(readdirSync(home), [".local"]);
});
