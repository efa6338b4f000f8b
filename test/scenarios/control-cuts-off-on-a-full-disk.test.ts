import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { ApiRefused } from "../../src/control/client/client.ts";
import { startControlProcess } from "../harness/control-process.ts";
import { skipOutsideCi } from "../harness/skip-outside-ci.ts";

test("a full disk stops no revocation, no rollback and no rotation, and control goes on", async (t) => {
  const place = mkdtempSync(join(tmpdir(), "sallyport-full-"));
  t.after(() => rmSync(place, { recursive: true, force: true }));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=90m,mode=700", "tmpfs", place], {
      stdio: "ignore",
    });
  } catch {
    skipOutsideCi(t, "this user may not mount a disk to fill");
    return;
  }
  try {
    await t.test("full", async (t) => {
      const control = await startControlProcess(t, join(place, "state"));
      const { admin } = control;
      fill(join(place, "filler"));
      for (let made = 0; made < 1_000; made++)
        try {
          await admin.call("POST", "/v1/tokens", { body: { service: "web" } });
        } catch (cause) {
          assert.ok(cause instanceof ApiRefused, String(cause));
          break;
        }
      const body = { principal: "service/web" };
      await admin.call("POST", "/v1/revocations", { body });
      await admin.call("POST", "/v1/snapshots/1/rollback");
      const step = { step: "prepare", plane: "both" };
      await admin.call("POST", "/v1/authorities/rotate", { body: step });
      const { snapshot } = (await admin.call("GET", "/v1/status")).body as {
        snapshot: { revocations: number; name: string };
      };
      assert.deepEqual([snapshot.name, snapshot.revocations], ["1.3", 1]);
      assert.equal(control.exit(), undefined);
    });
  } finally {
    execFileSync("umount", [place]);
  }
});

function fill(file: string): void {
  const descriptor = openSync(file, "w");
  const block = Buffer.alloc(4_096);
  try {
    while (writeSync(descriptor, block) === block.length);
  } catch (cause) {
    assert.equal((cause as NodeJS.ErrnoException).code, "ENOSPC");
  } finally {
    closeSync(descriptor);
  }
}
