import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { putExpiredLeaf } from "../../../test/harness/expired-leaf.ts";
import { startIssuanceWorld, startTestDoor } from "../../../test/harness/issuance-world.ts";

const main = join(import.meta.dirname, "..", "main.ts");

type Outcome = { readonly code: number | null; readonly out: string; readonly err: string };

/** The real command in a process of its own. `until` ends it with SIGTERM once its standard error says so. */
function run(
  args: readonly string[],
  more: {
    readonly env?: Record<string, string>;
    readonly input?: string;
    readonly until?: RegExp;
  } = {},
): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [main, "enroll", ...args], {
      env: { PATH: process.env.PATH, ...more.env },
    });
    let [out, err] = ["", ""];
    child.stdout.on("data", (piece) => (out += piece));
    child.stderr.on("data", (piece) => {
      err += piece;
      if (more.until?.test(err)) child.kill("SIGTERM");
    });
    child.stdin.on("error", () => {});
    child.stdin.end(more.input ?? "");
    child.once("close", (code) => resolve({ code, out, err }));
  });
}

async function startWorld(t: TestContext) {
  const world = await startIssuanceWorld(t);
  const door = await startTestDoor(world);
  const newToken = async () =>
    (
      await world.issuance.createToken({
        principal: world.principal("service", "web"),
        createdBy: "admin/first",
      })
    ).token;
  return { world, door, newToken, dir: (name: string) => join(world.dir, name) };
}

test("a token from a file, the environment or standard input; the next step is printed", async (t) => {
  const { door, newToken, dir } = await startWorld(t);
  const file = dir("token");
  await writeFile(file, `${await newToken()}\n`, { mode: 0o600 });
  door.discovery = {
    gates: [{ name: "g", addresses: ["127.0.0.1:7443"] }],
    services: ["orders"],
    example: { host: "orders", method: "GET", path: "/pub" },
  };
  const fromFile = await run(["--token-file", file, "--out", dir("a")]);
  assert.equal(fromFile.code, 0, fromFile.err);
  assert.match(fromFile.out, /^spiffe:\/\/shop\.internal\/service\/web until 20/);
  assert.match(fromFile.out, /curl --cert \S+\/a\/chain\.pem --key \S+\/a\/key\.pem --cacert/);
  assert.match(
    fromFile.out,
    /--connect-to orders:7443:127\.0\.0\.1:7443 https:\/\/orders:7443\/pub\n/,
  );
  assert.equal(fromFile.err, "");
  const fromEnvironment = await run(["--out", dir("b"), "--json"], {
    env: { SALLYPORT_TOKEN: await newToken() },
  });
  assert.equal(JSON.parse(fromEnvironment.out).plane, "data");
  const fromInput = await run(["--token-file", "-", "--out", dir("c")], {
    input: await newToken(),
  });
  assert.equal(fromInput.code, 0, fromInput.err);
  assert.match(await readFile(join(dir("c"), "key.pem"), "utf8"), /BEGIN PRIVATE KEY/);
});

test("a token that anybody can read is used, with a warning", async (t) => {
  const { newToken, dir } = await startWorld(t);
  await writeFile(dir("token"), await newToken());
  await chmod(dir("token"), 0o644);
  const { code, err } = await run(["--token-file", dir("token"), "--out", dir("a")]);
  assert.equal(code, 0);
  assert.match(err, /warning: .* can be read by others; chmod 600/);
});

type Row = [claim: string, code: number, says: RegExp, args: string[]];

test("mistakes are told with a way out, and a token is never repeated", async (t) => {
  const { newToken, dir } = await startWorld(t);
  const token = await newToken();
  await writeFile(dir("token"), token, { mode: 0o600 });
  await writeFile(dir("garbage"), "hello", { mode: 0o600 });
  const out = dir("out");
  const below = /cannot be written to .*\nhint: /;
  const belowProc: Row = [
    "/proc",
    2,
    below,
    ["--token-file", dir("token"), "--out", "/proc/self/x"],
  ];
  const rows: Row[] = [
    ["a token as an argument", 2, /burnt/, [token, "--out", out]],
    ["a token as --token", 2, /burnt/, ["--token", token, "--out", out]],
    ["a token as --token=", 2, /burnt/, [`--token=${token}`, "--out", out]],
    ["another argument", 2, /what is "web"/, ["web", "--out", out]],
    ["no --out", 2, /where the credentials go/, ["--token-file", dir("token")]],
    ["no token", 2, /there is no token/, ["--out", out]],
    ["no such file", 2, /cannot read/, ["--token-file", dir("nope"), "--out", out]],
    [
      "a file with something else",
      2,
      /begins with sp1\./,
      ["--token-file", dir("garbage"), "--out", out],
    ],
    ["below a file", 2, below, ["--token-file", dir("token"), "--out", dir("garbage/x")]],
    ...(existsSync("/proc/self") ? [belowProc] : []),
    ["a hook without --renew", 2, /needs --renew/, ["--hook", "true", "--out", out]],
    ["nothing to renew", 2, /is not there/, ["--renew", dir("nothing")]],
    ["an option nobody knows", 2, /unknown option/, ["--tokenfile", "x"]],
  ];
  for (const [claim, code, says, args] of rows) {
    const outcome = await run(args);
    assert.equal(outcome.code, code, `${claim}: ${outcome.err}`);
    assert.match(outcome.err, says, claim);
    assert.ok(!outcome.err.includes(token.slice(4, 60)), `${claim}: repeats the token`);
  }
  assert.ok(!(await readdir(join(out, "..")).then((names) => names.includes("out"))));
  const unspent = await run(["--token-file", dir("token"), "--out", out]);
  assert.equal(unspent.code, 0, `no mistake spent the token: ${unspent.err}`);
});

test("refused is 1, unreachable is 3", async (t) => {
  const { world, newToken, dir } = await startWorld(t);
  const token = await newToken();
  world.registered.delete("service/web");
  const refused = await run(["--out", dir("a")], { env: { SALLYPORT_TOKEN: token } });
  assert.equal(refused.code, 1);
  assert.match(refused.err, /error: .*\(not_registered\)\nhint: add the service/);
  world.registered.add("service/web");
  world.joinAddress = "127.0.0.1:1";
  const gone = await run(["--out", dir("a")], { env: { SALLYPORT_TOKEN: await newToken() } });
  assert.equal(gone.code, 3);
  assert.match(gone.err, /nobody is listening there\nhint: is the control plane running/);
});

test("--renew stays until it is ended, and a second start needs no token", async (t) => {
  const { newToken, dir } = await startWorld(t);
  const token = await newToken();
  const first = await run(["--out", dir("a"), "--renew"], {
    env: { SALLYPORT_TOKEN: token },
    until: /renewing/,
  });
  assert.equal(first.code, 0, first.err);
  const again = await run(["--out", dir("a"), "--renew", "--json"], {
    env: { SALLYPORT_TOKEN: token },
    until: /renewing/,
  });
  assert.equal(again.code, 0, again.err);
  assert.match(again.err, /no token was used/);
  assert.equal(JSON.parse(again.out).dir, dir("a"));
  const alone = await run(["--renew", dir("a")], { until: /renewing/ });
  assert.equal(alone.code, 0, alone.err);
});

test("--renew ends with 1 when the certificate has expired without grace, and says what helps", async (t) => {
  const { world, newToken, dir } = await startWorld(t);
  const token = await newToken();
  await run(["--out", dir("a")], { env: { SALLYPORT_TOKEN: token } });
  await putExpiredLeaf(world, dir("a"));
  const ended = await run(["--renew", dir("a")]);
  assert.equal(ended.code, 1, ended.err);
  assert.match(ended.err, /expired.*sallyport token create --service/s);
  world.grace.set("service/web", 24 * 3_600_000);
  const renewed = await run(["--renew", dir("a")], { until: /was renewed/ });
  assert.equal(renewed.code, 0, `with grace it goes on: ${renewed.err}`);
});
