import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";

const main = join(import.meta.dirname, "..", "main.ts");
const fixtures = join(import.meta.dirname, "..", "..", "..", "test", "fixtures", "registers");

async function place(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "sallyport-check-"));
  t.after(() => rm(folder, { recursive: true }));
  return folder;
}

/** What the command line says when it is run in `cwd`. */
function sallyport(cwd: string, ...args: string[]) {
  return new Promise<{ code: number; out: string; err: string }>((resolve) => {
    execFile(process.execPath, [main, ...args], { cwd }, (error, out, err) =>
      resolve({ code: typeof error?.code === "number" ? error.code : 0, out, err }),
    );
  });
}

test("check: everything that is wrong is on standard output, and the exit code is 1", async (t) => {
  const cwd = await place(t);
  const text = await readFile(join(fixtures, "twenty-mistakes.yaml"), "utf8");
  await writeFile(join(cwd, "sallyport.yaml"), text);
  const plain = await sallyport(cwd, "check");
  assert.equal(plain.code, 1);
  assert.equal(plain.out.match(/^sallyport\.yaml:\d+:\d+: error: /gm)?.length, 20);
  assert.match(plain.out, /not usable: 20 errors, 0 warnings/);
  const { code, out } = await sallyport(cwd, "check", "--json");
  assert.equal(code, 1);
  const { ok, errors, files } = JSON.parse(out);
  assert.deepEqual([ok, errors.length, files], [false, 20, ["sallyport.yaml"]]);
  assert.deepEqual([errors[5].line, errors[5].column, errors[5].code], [10, 10, "unknown-key"]);
});

test("check: files of teams beside it are merged, an overlay that has no effect is told", async (t) => {
  const cwd = await place(t);
  await mkdir(join(cwd, "sallyport.d"));
  await writeFile(
    join(cwd, "sallyport.yaml"),
    "version: 1\ntrustDomain: t.internal\nservices:\n  web: { owner: a }\n",
  );
  await writeFile(
    join(cwd, "sallyport.d", "b.yaml"),
    "services:\n  orders: { owner: b, upstreams: ['127.0.0.1:1'], allow: [{ id: r, from: web }] }\n",
  );
  await writeFile(join(cwd, "sallyport.staging.yaml"), "trustDomain: x\n");
  const { code, out } = await sallyport(cwd, "check", "--json");
  assert.equal(code, 0, out);
  const { files, warnings } = JSON.parse(out);
  assert.deepEqual(files, ["sallyport.yaml", "sallyport.d/b.yaml"]);
  assert.deepEqual(
    warnings.map((each: { file: string; code: string }) => `${each.file} ${each.code}`),
    ["sallyport.staging.yaml not-supported-yet"],
  );
  const below = await sallyport(join(cwd, "sallyport.d"), "check");
  assert.equal(below.code, 0, "found from a directory below");
});

test("check: what cannot be read ends with 2 and a way out, never with a stack", async (t) => {
  const cwd = await place(t);
  await writeFile(join(cwd, "latin.yaml"), Buffer.from([0x61, 0x3a, 0xe9, 0x0a]));
  for (const [args, says] of [
    [["check"], /there is no sallyport\.yaml[\s\S]*sallyport init/],
    [["check", "nope.yaml"], /there is no file nope\.yaml/],
    [["check", "."], /is a directory, not a register\nhint: name the file; Docker/],
    [["check", ".."], /is a directory, not a register\nhint: name/],
    [["check", "latin.yaml"], /not UTF-8/],
  ] as const) {
    const { code, err } = await sallyport(cwd, ...args);
    assert.equal(code, 2, err);
    assert.match(err, says);
    assert.doesNotMatch(err, /\n\s+at /);
  }
});

test("check: a register cannot steer the terminal", async (t) => {
  const cwd = await place(t);
  await writeFile(
    join(cwd, "sallyport.yaml"),
    'version: 1\ntrustDomain: "\\e[31m\\u009b2J\\u202e"\nservices: {}\n',
  );
  for (const command of [["check"], ["explain", "web", "GET", "orders/7"]]) {
    const { code, out, err } = await sallyport(cwd, ...command);
    assert.equal(code, command[0] === "check" ? 1 : 2);
    assert.match(out + err, /\\u\{9b\}/);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: the escape characters are what is looked for
    assert.doesNotMatch(out + err, /[\u001b\u009b\u202e]/);
  }
});

test("init: what it writes passes check, and it replaces nothing unasked", async (t) => {
  const cwd = await place(t);
  const flags = [
    "--trust-domain",
    "shop.internal",
    "--owner",
    "Team 7: commerce",
    "--service",
    "web",
    "--service",
    "orders=9001",
    "--service",
    "true=unix:/run/t.sock",
    "--allow",
    "web:orders",
    "--yes",
  ];
  assert.equal((await sallyport(cwd, "init", ...flags)).code, 0);
  const checked = await sallyport(cwd, "check", "--json");
  assert.equal(checked.code, 0, checked.out);
  assert.deepEqual(JSON.parse(checked.out).errors, []);
  const again = await sallyport(cwd, "init", "--yes");
  assert.equal(again.code, 2);
  assert.match(again.err, /there already[\s\S]*--force/);
  assert.equal((await sallyport(cwd, "init", "--yes", "--force")).code, 0);
  assert.match(await readFile(join(cwd, "sallyport.yaml"), "utf8"), /web-calls-orders/);
});

const badFlags: readonly [claim: string, flags: readonly string[], says: RegExp][] = [
  ["nothing to ask on", [], /no terminal/],
  ["a bad trust domain", ["--yes", "--trust-domain", "Shop"], /--trust-domain "Shop"/],
  ["a bad name", ["--service", "My_Service=1"], /--service "My_Service"/],
  ["a service twice", ["--service", "a=1", "--service", "a=2"], /named twice/],
  ["a bad port", ["--service", "a=99999"], /a=99999: a port is a number/],
  ["a stranger", ["--service", "a=1", "--allow", "b:a"], /b is no service/],
  [
    "a callee that offers nothing",
    ["--service", "a", "--service", "b", "--allow", "b:a"],
    /offers nothing/,
  ],
  ["no pair", ["--service", "a=1", "--allow", "a"], /not caller:service/],
  ["plaintext far away", ["--service", "a=db.example:80"], /plaintext/],
];
test("init: nothing is written when a flag is wrong", async (t) => {
  const cwd = await place(t);
  for (const [claim, flags, says] of badFlags) {
    const { code, err } = await sallyport(cwd, "init", ...flags);
    assert.equal(code, 2, claim);
    assert.match(err, says);
  }
  await assert.rejects(readFile(join(cwd, "sallyport.yaml")));
});

test("schema: prints the schema that is shipped", async (t) => {
  const { code, out } = await sallyport(await place(t), "schema");
  assert.equal(code, 0);
  assert.equal(
    out,
    await readFile(join(fixtures, "../../../schema/sallyport.schema.json"), "utf8"),
  );
});
