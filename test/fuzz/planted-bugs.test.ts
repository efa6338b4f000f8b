import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import type { RequestParser } from "../../src/wire/http1/request-parser.ts";
import { fuzzRequests } from "./fuzz-requests.ts";

/** A bug that somebody could write: file, what stands there, what stands there instead. */
type Bug = readonly [name: string, file: string, from: string, to: string];

/** The fuzzer is only worth something if it finds these, each within seconds and from any seed. */
const bugs: readonly Bug[] = [
  ["a bare LF ends a value", "field-lines.ts", "if (end !== CR)", "if (end !== CR && end !== LF)"],
  [
    "Content-Length and Transfer-Encoding together",
    "request-parser.ts",
    "if (chunked && length >= 0)",
    "if (chunked && length > 1e9)",
  ],
  [
    "the last of several Content-Lengths wins",
    "fields.ts",
    "  field.contentLength,\n  field.transferEncoding,\n  field.expect,",
    "  field.transferEncoding,\n  field.expect,",
  ],
  ["a space before the colon", "octets.ts", '[2, "_"]', '[2, "_"], [1, " "]'],
  [
    "chunk sizes wrap at 32 bits",
    "body-reader.ts",
    "this.#left = this.#left * 16 + (value - 1);",
    "this.#left = ((this.#left << 4) | (value - 1)) >>> 0;",
  ],
  [
    "one field over the limit",
    "field-lines.ts",
    "this.count === this.#countMax",
    "this.count > this.#countMax",
  ],
  [
    "one byte over the limit",
    "request-parser.ts",
    "this.#headBytesMax = headBytesMax;",
    "this.#headBytesMax = headBytesMax + 1;",
  ],
  [
    "any field as a trailer",
    "body-reader.ts",
    "base + nameTo)] === 1) return name",
    "base + nameTo)] === 7) return name",
  ],
  [
    "a folded value",
    "field-lines.ts",
    'if (octet === SP || octet === HTAB)\n            return this.#fail(at, "bad_header", "a line of the head starts with white space");',
    "if (octet === SP || octet === HTAB) {\n            state = BEFORE_VALUE;\n            break;\n          }",
  ],
  [
    "reading on after an error",
    "intake.ts",
    "    this.#failed = true;\n    this.#waiting = [];",
    "    this.#waiting = [];",
  ],
  [
    "an offset lost where the bytes were cut",
    "request-parser.ts",
    "const shift = already > 0 ? from - already : 0;",
    "const shift = already > 1 ? from - already : 0;",
  ],
  [
    "a value's start forgotten where the bytes were cut",
    "field-lines.ts",
    "    this.#state = state;\n    this.at = at;\n    return MORE;",
    "    this.#state = state === BEFORE_VALUE ? VALUE : state;\n    this.at = at;\n    return MORE;",
  ],
  [
    "a CR that no LF follows",
    "body-reader.ts",
    'if (octet !== LF) return this.#fail(at, "a CR without LF after a chunk");',
    "",
  ],
  [
    "two Hosts",
    "fields.ts",
    "setOf(\n  field.host,\n  field.contentLength,\n  field.transferEncoding,\n  field.expect,",
    "setOf(\n  field.contentLength,\n  field.transferEncoding,\n  field.expect,",
  ],
  [
    "chunked in HTTP/1.0",
    "request-parser.ts",
    "if (chunked && minor === 0)",
    "if (chunked && minor > 1)",
  ],
  [
    "a pause that is not heeded",
    "intake.ts",
    "while (at < chunk.length && !this.stopped)",
    "while (at < chunk.length && !this.#failed)",
  ],
];

/** Each is found in the same round every time, usually within seconds; a busy machine may need longer for as many rounds. */
const secondsMax = 90;

for (const [name, file, from, to] of bugs) {
  test(`found: ${name}`, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), "planted-"));
    t.after(() => rmSync(folder, { recursive: true }));
    cpSync("src/wire", folder, { recursive: true });
    const path = join(folder, "http1", file);
    const source = readFileSync(path, "utf8");
    assert.equal(source.split(from).length, 2, `${file} no longer has, once: ${from}`);
    writeFileSync(path, source.replace(from, to));
    const mutant = (await import(
      pathToFileURL(join(folder, "http1", "request-parser.ts")).href
    )) as {
      RequestParser: typeof RequestParser;
    };
    const until = performance.now() + secondsMax * 1_000;
    assert.throws(
      () =>
        fuzzRequests(mutant.RequestParser, { seed: 7, goesOn: () => performance.now() < until }),
      /seed 7, round/,
    );
  });
}
