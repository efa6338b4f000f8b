import { spawnSync } from "node:child_process";

/** `npm run check`: everything that can be said about the code without running it. Prints only what is wrong. */
const checks: readonly (readonly [name: string, command: string, ...args: string[]])[] = [
  ["format and lint", "biome", "check", "--error-on-warnings", "."],
  ["types", "tsc", "-p", "."],
  [
    "promises",
    "oxlint",
    "--type-aware",
    "-c",
    "oxlint.promises.json",
    "src",
    "test",
    "tools",
    "bench",
  ],
  ["dead code", "knip", "--no-progress"],
  ["architecture", "node", "--test", "--test-reporter=dot", "test/architecture.test.ts"],
  ["generated files", "node", "tools/docs.ts", "--check"],
];

let failed = 0;
for (const [name, command, ...args] of checks) {
  const run = spawnSync(command, args, { encoding: "utf8", env: process.env });
  const ok = run.status === 0;
  process.stdout.write(`${ok ? "ok  " : "FAIL"}  ${name}\n`);
  if (ok) continue;
  failed++;
  process.stdout.write(`${run.stdout ?? ""}${run.stderr ?? ""}${run.error?.message ?? ""}\n`);
}
process.exitCode = failed === 0 ? 0 : 1;
