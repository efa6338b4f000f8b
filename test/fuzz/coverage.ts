import { spawnSync } from "node:child_process";
import { globSync } from "node:fs";

/**
 * Prints how much of `src/wire` its tests and the fuzzer reach; fails under 90 % of the branches. Run it as
 * `node test/fuzz/coverage.ts`. (The planted bugs run copies, which would be counted for nothing.)
 */
const tests = [
  ...globSync("src/wire/**/*.test.ts"),
  ...globSync("test/corpus/*.test.ts"),
  "test/fuzz/http1.test.ts",
];
const { status, stdout } = spawnSync(
  process.execPath,
  [
    "--test",
    "--test-reporter=spec",
    "--experimental-test-coverage",
    "--test-coverage-include=src/wire/**",
    "--test-coverage-exclude=src/wire/**/*.test.ts",
    "--test-coverage-branches=90",
    ...tests,
  ],
  { stdio: ["ignore", "pipe", "inherit"], encoding: "utf8", maxBuffer: 2 ** 26 },
);
const report = stdout.indexOf("start of coverage report");
console.log(report < 0 ? stdout : stdout.slice(report));
process.exitCode = status ?? 1;
