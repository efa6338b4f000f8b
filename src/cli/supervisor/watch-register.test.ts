import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { registerMark, watchRegister } from "./watch-register.ts";

test("each way of saving is noticed once, and nothing is once it is closed", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "sallyport-watch-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, "sallyport.yaml");
  writeFileSync(file, "version: 1\n");
  let saved = 0;
  let heard = Promise.withResolvers<void>();
  const watching = watchRegister(file, registerMark(file), async () => {
    saved++;
    heard.resolve();
  });
  t.after(() => watching.close());
  const ways: readonly (readonly [claim: string, save: () => void])[] = [
    ["written in place", () => writeFileSync(file, "version: 1 # changed\n")],
    [
      "replaced, as editors do",
      () => {
        writeFileSync(join(folder, "new"), "version: 1 # changed\n");
        renameSync(join(folder, "new"), file);
      },
    ],
    [
      "a part was added",
      () => {
        mkdirSync(join(folder, "sallyport.d"));
        writeFileSync(join(folder, "sallyport.d", "orders.yaml"), "services: {}\n");
      },
    ],
    ["a part was removed", () => rmSync(join(folder, "sallyport.d", "orders.yaml"))],
    ["the register was removed", () => rmSync(file)],
  ];
  for (const [i, [claim, save]] of ways.entries()) {
    heard = Promise.withResolvers<void>();
    save();
    await heard.promise;
    assert.equal(saved, i + 1, claim);
  }
  await watching.close();
  await watching.close();
});
