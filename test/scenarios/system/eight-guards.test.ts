import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

// The proof that `up --demo` prints is worth something only if it fails when a guard is missing. Here each guard is switched
// off in a copy of the program, where its decision is made, and the proof has to say so: in its own rows and in no other.

const root = fileURLToPath(new URL("../../../", import.meta.url));

type Guard = {
  readonly name: string;
  /** Text of the program, each piece exactly once in its file, and what stands there instead. */
  readonly patches: readonly { readonly file: string; readonly was: string; readonly is: string }[];
  /** Rows that must not hold any more. */
  readonly breaks: readonly string[] | ((all: readonly string[]) => readonly string[]);
};

const peer = "policy/peer.ts";
const identify = "proxy/identify/identify.ts";

const guards: readonly Guard[] = [
  {
    name: "client certificate: whoever shows none is taken for web",
    patches: [
      {
        file: peer,
        was: "if (!leaf) return {",
        is: `if (!leaf) {
          const principal = { trustDomain: trust.trustDomain, kind: "service", name: "web" } as const;
          const notAfterMs = nowMs + 3_600_000;
          return { ok: true, principal, uri: principalOf(principal), serial: "00", notBeforeMs: nowMs, notAfterMs, root: trust.bundles.data[0] };
        }
        if (!leaf) return {`,
      },
    ],
    breaks: ["no client certificate"],
  },
  {
    name: "expiry: the date of a leaf is not looked at",
    patches: [
      {
        file: peer,
        was: "const code = dateProblem(leaf, nowMs);\n",
        is: 'const code = dateProblem(leaf, nowMs);\n    if (code === "expired") return { ok: true, ...peer };\n',
      },
    ],
    breaks: ["an expired certificate"],
  },
  {
    name: "plane: a root of either plane will do",
    patches: [
      {
        file: peer,
        was: "const path = findPath(leaf, question.chain, trust, expect.plane, nowMs);",
        is: `const path =
      findPath(leaf, question.chain, trust, "data", nowMs) ??
      findPath(leaf, question.chain, trust, "control", nowMs);`,
      },
    ],
    // Both doors ask it. The kind of the principal is a second lock behind it, with another reason.
    breaks: ["a control-plane identity on the data port", "web's identity on the control port"],
  },
  {
    name: "registration: a valid certificate is enough",
    patches: [
      {
        file: identify,
        was: 'if (!view.services.has(caller.name)) return "not_registered";',
        is: "",
      },
      {
        // Asked once for the connection and once for each request.
        file: "proxy/serve.ts",
        was: "if (!view.services.has(attempt.caller.name))",
        is: "if (attempt.caller.name === undefined)",
      },
    ],
    breaks: ["a valid certificate whose principal is not registered"],
  },
  {
    name: "path canonicalization: the path is matched as it came",
    patches: [
      {
        file: "proxy/route/route.ts",
        was: "const canonical = canonicalPath(head.path, port.accept ?? strictPath);",
        is: `void canonicalPath;
  void strictPath;
  const [path = "", query = ""] = head.path.split("?");
  const canonical = { path, query: query && \`?\${query}\` } as ReturnType<typeof canonicalPath>;`,
      },
    ],
    // A doubled slash matches no rule as it stands, so that row holds without the guard.
    breaks: [
      "dot segments: /orders/../admin",
      "a path that climbs out by an escaped slash",
      "an escape of an escape (%252e%252e)",
    ],
  },
  {
    name: "header stripping: what a caller says about itself goes on",
    patches: [
      {
        file: "proxy/forward/hygiene.ts",
        was: "if (vouchingPrefixes.some((prefix) => name.startsWith(prefix))) return fate.drop;",
        is: "",
      },
    ],
    breaks: ["a spoofed identity header"],
  },
  {
    name: "smuggling check: two lengths are one too many, and nobody minds",
    patches: [
      {
        file: "wire/http1/request-parser.ts",
        was: "if (chunked && length >= 0)",
        is: "if (chunked && length >= 0 && minor > 9)",
      },
    ],
    breaks: ["Content-Length together with Transfer-Encoding"],
  },
  {
    name: "log line: the data plane answers without recording",
    patches: [
      {
        file: "proxy/record/outbox.ts",
        was: "for (const pending of batch) pending.record();",
        is: "",
      },
      // Every row looks for its line in vain; it need not look for long.
      {
        file: "cli/prove/find-hit.ts",
        was: "const withinMs = 3_000;",
        is: "const withinMs = 200;",
      },
    ],
    // All but the one whose line is written by control.
    breaks: (all) => all.filter((name) => name !== "web's identity on the control port"),
  },
];

async function proveWithout(
  guard: Guard,
): Promise<{ code: number | null; attempts: { name: string; held: boolean }[]; said: string }> {
  const dir = mkdtempSync(join(tmpdir(), "sallyport-guard-"));
  try {
    for (const part of ["src", "bin", "package.json"])
      cpSync(join(root, part), join(dir, part), {
        recursive: true,
        filter: (path) => !path.endsWith(".test.ts"),
      });
    symlinkSync(join(root, "node_modules"), join(dir, "node_modules"), "dir");
    for (const { file, was, is } of guard.patches) {
      const path = join(dir, "src", file);
      const text = readFileSync(path, "utf8");
      assert.equal(text.split(was).length, 2, `${file} must hold this exactly once: ${was}`);
      writeFileSync(
        path,
        text.replace(was, () => is),
      );
    }
    const demo = spawn(
      process.execPath,
      [join(dir, "bin", "sallyport.js"), "up", "--demo", "--once", "--json"],
      { cwd: dir },
    );
    let printed = "";
    let said = "";
    demo.stdout.on("data", (chunk: Buffer) => {
      printed += chunk;
    });
    demo.stderr.on("data", (chunk: Buffer) => {
      said += chunk;
    });
    const [code] = (await once(demo, "close")) as [number | null];
    const attempts = printed === "" ? [] : JSON.parse(printed).attempts;
    return { code, attempts, said };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

// Two at a time: most of it is waiting for processes to start.
test("each of eight guards, switched off, turns its rows of the proof and no other", {
  concurrency: 2,
}, async (t) => {
  await Promise.all(
    guards.map((guard) =>
      t.test(guard.name, async () => {
        const { attempts, code, said } = await proveWithout(guard);
        assert.ok(attempts.length > 20, `there was no proof: ${said}`);
        const all = attempts.map(({ name }) => name);
        const broken = attempts.filter(({ held }) => !held).map(({ name }) => name);
        const expected = typeof guard.breaks === "function" ? guard.breaks(all) : guard.breaks;
        assert.deepEqual(broken.toSorted(), expected.toSorted());
        assert.equal(code, 1, "a proof that did not hold is a failure");
      }),
    ),
  );
});
