import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { silentLog } from "../../base/log.ts";
import { keepReserve } from "./control-reserve.ts";

const mebi = 1_048_576;

test("the reserve is taken up while there is plenty, and given back as far as it is needed", (t) => {
  const home = mkdtempSync(join(tmpdir(), "sallyport-reserve-"));
  t.after(() => rmSync(home, { recursive: true, force: true }));
  const dir = join(home, "reserve");
  const slices = () => readdirSync(dir).length;
  let disk = 1_000 * mebi;
  const reserve = keepReserve({ dir, log: silentLog, freeBytes: () => disk - slices() * mebi });
  assert.equal(slices(), 16);
  assert.equal(statSync(join(dir, "00.reserve")).mode & 0o777, 0o600);
  reserve.makeRoom(2 * mebi);
  assert.equal(slices(), 16, "there is room without it");
  disk = 16 * mebi;
  reserve.makeRoom(2 * mebi);
  assert.equal(slices(), 14);
  reserve.makeRoom(2 * mebi);
  assert.equal(slices(), 14, "there still is room from the last time");
  reserve.restock();
  assert.equal(slices(), 14, "not while the disk is full");
  reserve.makeRoom(1_000 * mebi);
  assert.equal(slices(), 0, "all there is");
  reserve.makeRoom(1_000 * mebi);
  disk = 1_000 * mebi;
  reserve.restock();
  assert.equal(slices(), 16);
});

test("a disk that takes nothing stops nobody from starting", (t) => {
  const home = mkdtempSync(join(tmpdir(), "sallyport-reserve-"));
  t.after(() => rmSync(home, { recursive: true, force: true }));
  writeFileSync(join(home, "file"), "");
  const reserve = keepReserve({ dir: join(home, "file", "below"), log: silentLog });
  reserve.makeRoom(mebi);
  reserve.restock();
});
