import assert from "node:assert/strict";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { Exit } from "./exit.ts";
import { onlyGateIn, openState } from "./open-state.ts";

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "sallyport-state-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

test("a state directory is made closed, ignored, and opened again as it is", (t) => {
  const path = join(folder(t), "deep", ".sallyport");
  assert.equal(openState(path), path);
  assert.equal(statSync(path).mode & 0o777, 0o700);
  for (const name of [".gitignore", ".dockerignore"])
    assert.equal(readFileSync(join(path, name), "utf8"), "*\n");
  writeFileSync(join(path, ".gitignore"), "*\n# mine\n");
  openState(path);
  assert.match(readFileSync(join(path, ".gitignore"), "utf8"), /mine/);
});

test("so is the directory of compiled code in it, and refused where others may write", (t) => {
  const path = openState(join(folder(t), "state"));
  const code = join(path, "code");
  assert.equal(statSync(code).mode & 0o777, 0o700);
  chmodSync(code, 0o770);
  assert.throws(() => openState(path), /open to others/);
  rmSync(code, { recursive: true });
  symlinkSync(folder(t), code);
  assert.throws(() => openState(path), /code is not a directory/);
});

test("one that others may read is refused", (t) => {
  const path = join(folder(t), "state");
  mkdirSync(path);
  for (const mode of [0o755, 0o750, 0o701, 0o770]) {
    chmodSync(path, mode);
    assert.throws(
      () => openState(path),
      (cause) => cause instanceof Exit && /chmod 700/.test(cause.hint ?? ""),
    );
  }
});

test("a link is refused, whatever it leads to", (t) => {
  const parent = folder(t);
  mkdirSync(join(parent, "real"), { mode: 0o700 });
  symlinkSync(join(parent, "real"), join(parent, "link"));
  assert.throws(() => openState(join(parent, "link")), Exit);
});

test("a file is refused", (t) => {
  const path = join(folder(t), "state");
  writeFileSync(path, "", { mode: 0o600 });
  assert.throws(() => openState(path), Exit);
});

test("a place where nothing can be made is refused, and in a moment", (t) => {
  const file = join(folder(t), "file");
  writeFileSync(file, "");
  const places = [join(file, "a", "b"), ...(existsSync("/proc/self") ? ["/proc/self/a/b"] : [])];
  for (const path of places)
    assert.throws(
      () => openState(path),
      (cause) => cause instanceof Exit && /cannot be made/.test(cause.message),
    );
});

test("somebody else's directory is refused", (t) => {
  // Root can give one away; everybody else finds one that is root's.
  const isRoot = process.getuid?.() === 0;
  const path = isRoot ? join(folder(t), "state") : "/";
  if (isRoot) {
    mkdirSync(path, { mode: 0o700 });
    chownSync(path, 65_534, 65_534);
  }
  assert.throws(() => openState(path), /belongs to uid/);
});

test("the only gate is found, two are not chosen between", (t) => {
  const state = folder(t);
  assert.equal(onlyGateIn(state), undefined);
  mkdirSync(join(state, "gates", "a"), { recursive: true });
  assert.equal(onlyGateIn(state), "a");
  mkdirSync(join(state, "gates", "b"));
  assert.equal(onlyGateIn(state), undefined);
});
