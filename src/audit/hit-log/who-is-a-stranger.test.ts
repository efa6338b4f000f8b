import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { silentLog } from "../../base/log.ts";
import type { NewHit } from "../recorder.ts";
import { openHitLog } from "./open-hit-log.ts";

const refused = { at: 1_000, plane: "data", decision: "refused", peer: "10.0.0.7:1" } as const;
const rows: readonly (readonly [claim: string, hit: NewHit, lines: number])[] = [
  ["nobody", { ...refused, kind: "connection", code: "no_certificate" }, 21],
  ["a revoked one", { ...refused, kind: "connection", code: "revoked", caller: "service/a" }, 21],
  [
    "a former one",
    { ...refused, kind: "connection", code: "not_registered", caller: "service/a" },
    21,
  ],
  ["a caller", { ...refused, kind: "request", code: "not_authorized", caller: "service/a" }, 50],
];

for (const [who, hit, lines] of rows)
  test(`of 50 refusals in one second, ${who} gets ${lines} lines`, (t) => {
    const dir = mkdtempSync(join(tmpdir(), "sallyport-strangers-"));
    t.after(() => rmSync(dir, { recursive: true }));
    const log = openHitLog({
      dir,
      writer: { process: "gate", name: "g", boot: "b" },
      clock: () => 1_000,
      randomBytes,
      log: silentLog,
    });
    t.after(() => log.close());
    const ids = new Set(Array.from({ length: 50 }, () => log.add(hit)));
    assert.ok(log.flush());
    assert.equal(ids.size, lines);
  });
