import assert from "node:assert/strict";
import { test } from "node:test";
import { RequestParser } from "../../src/wire/http1/request-parser.ts";
import { ResponseParser } from "../../src/wire/http1/response-parser.ts";
import { fuzzRequests } from "./fuzz-requests.ts";
import { fuzzResponses } from "./fuzz-responses.ts";

// Four seconds keep the suite quick; a night says FUZZ_SECONDS=28800, and FUZZ_SEED to start elsewhere.
const seconds = Number(process.env.FUZZ_SECONDS ?? 4);
const seed = Number(process.env.FUZZ_SEED ?? 1);

for (const [what, run] of [
  ["request", (goesOn: () => boolean) => fuzzRequests(RequestParser, { seed, goesOn })],
  ["response", (goesOn: () => boolean) => fuzzResponses(ResponseParser, { seed, goesOn })],
] as const) {
  test(`no ${what} that is bent at random breaks a promise`, (t) => {
    const until = performance.now() + seconds * 500;
    const { rounds, accepted } = run(() => performance.now() < until);
    t.diagnostic(`${rounds} ${what}s from seed ${seed}, ${accepted} heads accepted`);
    assert.ok(accepted > rounds / 20, "a fuzzer whose inputs are all refused tests nothing");
  });
}
