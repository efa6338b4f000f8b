import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { generateOpenApi } from "./openapi.ts";

test("the description that is shipped is that of the code", () => {
  const shipped = readFileSync("schema/openapi.json", "utf8");
  assert.equal(shipped, generateOpenApi(), "run npm run docs");
});
