import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { holdState } from "../../../src/cli/hold-state.ts";
import { openState } from "../../../src/cli/open-state.ts";
import { runCli, shopRegister, startSystemWorld } from "../../harness/system-world.ts";

test("a second program on one state directory touches nothing of the first", async (t) => {
  const world = await startSystemWorld(t, { prepare: openState });
  // What the command does first; the harness starts what comes after it.
  holdState(world.stateDir, ["control", "gate-local"]);
  const register = join(world.dir, "second.yaml");
  writeFileSync(register, shopRegister(world.ports));
  const said = world.said.length;
  for (const [args, what] of [
    [["up", register], /another process runs control from .*stop it first/s],
    [["control"], /another process runs control/],
    [["gate", "--name", "local"], /another process runs the gate local/],
  ] as const) {
    const second = await runCli([...args, "--state", world.stateDir], world.dir);
    assert.equal(second.code, 2, second.stderr);
    assert.match(second.stderr, what);
  }
  assert.deepEqual(
    world.said.slice(said).filter((line) => /replaced|goodbye|in use/.test(line)),
    [],
  );
  const hits = await world.hits({ kind: "process" });
  assert.ok(!hits.some(({ action }) => action === "process_died"));
});
