import assert from "node:assert/strict";
import { test } from "node:test";
import { RequestParser } from "../../src/wire/http1/request-parser.ts";
import { fuzzRequests } from "./fuzz-requests.ts";

// Two seconds keep the suite quick; a night says FUZZ_SECONDS=28800, and FUZZ_SEED to start elsewhere.
const seconds = Number(process.env.FUZZ_SECONDS ?? 4);
const seed = Number(process.env.FUZZ_SEED ?? 1);

test("no request that is bent at random breaks a promise", () => {
  const until = performance.now() + seconds * 500;
  const { rounds, accepted } = fuzzRequests(RequestParser, {
    seed,
    goesOn: () => performance.now() < until,
  });
  console.log(`${rounds} requests from seed ${seed}, ${accepted} heads accepted`);
  assert.ok(accepted > rounds / 20, "a fuzzer whose inputs are all refused tests nothing");
});
