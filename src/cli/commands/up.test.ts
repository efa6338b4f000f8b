import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const main = fileURLToPath(new URL("../main.ts", import.meta.url));

const register = `version: 1
trustDomain: shop.internal
planes:
  control: { bind: "127.0.0.1:0" }
  join: { bind: "127.0.0.1:0" }
  ops: { bind: "127.0.0.1:0" }
  data: { bind: "127.0.0.1:0" }
services:
  web: { owner: storefront }
  orders:
    owner: commerce
    ports:
      http: { protocol: http, upstreams: ["127.0.0.1:9"] }
    allow:
      - { id: web-reads, from: web, methods: [GET] }
`;

/** Resolves when the stream has said something that fits. */
function heard(child: ChildProcess, stream: "stdout" | "stderr", what: RegExp): Promise<string> {
  return new Promise((resolve, reject) => {
    let said = "";
    child[stream]?.on("data", (chunk: Buffer) => {
      said += chunk;
      if (what.test(said)) resolve(said);
    });
    child.on("close", (code) => reject(new Error(`ended with ${code}, having said: ${said}`)));
  });
}

test("up brings both planes up, applies what is saved, keeps what stood after a slip, and leaves nothing running", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "sallyport-up-"));
  const file = join(folder, "sallyport.yaml");
  writeFileSync(file, register);
  const up = spawn(process.execPath, [main, "up", file, "--json"], { cwd: folder });
  t.after(async () => {
    if (up.exitCode === null && up.signalCode === null) {
      up.kill("SIGKILL");
      await once(up, "close");
    }
    rmSync(folder, { recursive: true, force: true, maxRetries: 10 });
  });
  const errors: Buffer[] = [];
  up.stderr.on("data", (chunk) => errors.push(chunk));
  const { doors, state } = JSON.parse(await heard(up, "stdout", /\n}\n$/)) as {
    doors: { control: Record<string, string>; local: Record<string, string> };
    state: string;
  };
  for (const door of [doors.control.control, doors.control.join, doors.local.data])
    assert.match(door ?? "", /^127\.0\.0\.1:[1-9]\d+$/);
  assert.equal(statSync(state).mode & 0o777, 0o700);
  assert.equal(readFileSync(join(state, ".gitignore"), "utf8"), "*\n");
  assert.ok(existsSync(join(state, "admin", "key.pem")));

  const applied = heard(up, "stderr", /applied: 1 change, snapshot 1\.2/);
  writeFileSync(file, register.replace("[GET]", "[GET, POST]"));
  await applied;

  const refused = heard(up, "stderr", /not applied: what was applied last stays/);
  writeFileSync(file, register.replace("from: web", "from: wbe"));
  assert.match(await refused, /"wbe" is not registered[\s\S]*did you mean "web"/);

  up.kill("SIGINT");
  const [code] = await once(up, "close");
  assert.equal(code, 0, Buffer.concat(errors).toString());
  assert.doesNotMatch(Buffer.concat(errors).toString(), /BEGIN [A-Z ]*PRIVATE KEY|sp1\./);
});

test("the demo's state is its owner's alone, and goes with the terminal", async (t) => {
  const demo = spawn(process.execPath, [main, "up", "--demo"]);
  t.after(() => demo.kill("SIGKILL"));
  demo.stderr.resume();
  const said = await heard(demo, "stdout", /\n {2}\S.* explain web .*\n/);
  const state = / hits --state (\S+) /.exec(said)?.[1] ?? "";
  assert.equal(statSync(state).mode & 0o777, 0o700);
  demo.kill("SIGHUP");
  const [code] = await once(demo, "close");
  assert.equal(code, 0, said);
  assert.ok(!existsSync(state));
});
