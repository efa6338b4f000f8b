import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parse } from "yaml";
import {
  type RequestHead,
  RequestParser,
  type WireError,
} from "../../src/wire/http1/request-parser.ts";

/**
 * The cases of http-desync-guardian (Apache-2.0), which lie beside the repository, not in it. Their verdicts are those of a filter that
 * repairs; ours are stated below. A case is an object, not bytes: it is written out as it says, names and values verbatim, with a Host
 * where it has none.
 */
const folder = join(import.meta.dirname, "../../../shared/corpora/http-desync-guardian/tests");
const isThere = existsSync(folder);

type Case = {
  name: string;
  uri: string;
  method: string;
  version: string;
  headers: { name: string; value: string | number }[] | null;
  expected: { tier: string };
};

function read(file: string): Case[] {
  return parse(readFileSync(join(folder, file), "utf8"));
}

/** One unit is one octet where that is possible; other text is UTF-8, as a client would send it. */
function encode(text: string): Buffer {
  const isOctets = [...text].every((letter) => (letter.codePointAt(0) ?? 0) <= 0xff);
  return Buffer.from(text, isOctets ? "latin1" : "utf8");
}

function write({ method, uri, version, headers }: Case): Buffer {
  const fields = headers ?? [];
  const host = fields.some(({ name }) => name.toLowerCase() === "host") ? "" : "Host: example\r\n";
  return Buffer.concat([
    encode(`${method} `),
    encode(uri),
    encode(` ${version}\r\n${host}`),
    ...fields.map(({ name, value }) => encode(`${name}: ${value}\r\n`)),
    encode("\r\n"),
  ]);
}

/** What the parser says: heads with what they announce, or the code of the refusal. */
function judge(bytes: Buffer): { heads: RequestHead[]; error: WireError | undefined } {
  const heads: RequestHead[] = [];
  let error: WireError | undefined;
  const parser = new RequestParser({
    onHead: (head) => void heads.push(head),
    onBody: () => assert.fail("there is no body"),
    onEnd: () => undefined,
    onError: (given) => {
      error = given;
    },
  });
  parser.push(bytes);
  return { heads, error };
}

/** The 14 that the corpus calls compliant. Six are so under RFC 9112, 3986 and 9110; eight are not, or not to us. */
const compliant: Readonly<Record<string, string>> = {
  "No headers": "GET none",
  "Valid Transfer-Encoding (chunked)": "POST chunked",
  "Valid Content-Length": "PUT length 1000",
  "Valid Transfer-Encoding (chunked) + custom header (non-ascii)": "POST chunked",
  "Valid custom header with dot in name": "POST none",
  "Valid custom header with digits in name": "POST none",
  // Both names hold an underscore.
  "Valid custom header with tchar in name and obs-text": "bad_header",
  "Valid custom header with underscore in name": "bad_header",
  // We speak chunked and no other coding; a request would have to be decoded to be forwarded.
  "Different Transfer-Encoding headers": "ambiguous_length",
  "Different Transfer-Encoding headers combined": "ambiguous_length",
  "Transfer-Encoding with a param: chunked;custom_param": "ambiguous_length",
  // A fragment, quotes and angle brackets; raw UTF-8; nothing at all: none of it is a request target.
  "Compliant URL": "bad_request",
  "International in URI": "bad_request",
  "Empty URI": "bad_request",
};

/** What the corpus tolerates with a raised eyebrow. Only a length of zero passes. */
const acceptable: readonly string[] = [
  "bad_header",
  "bad_header",
  "bad_header",
  "bad_header",
  "GET length 0",
  "HEAD length 0",
  "version_not_supported",
  "bad_request",
  "version_not_supported",
];

function verdict(bytes: Buffer): string {
  const { heads, error } = judge(bytes);
  if (error !== undefined) {
    assert.deepEqual(heads, [], "a head was handed on before the refusal");
    return error.code;
  }
  assert.equal(heads.length, 1);
  const [head] = heads;
  return `${head?.method} ${head?.body}${head?.body === "length" ? ` ${head.contentLength}` : ""}`;
}

if (!isThere && process.env.CI !== undefined) {
  test("the corpus is there", () => assert.fail("it must lie beside the repository in CI"));
}
const options = {
  skip: isThere ? false : "http-desync-guardian does not lie beside the repository",
};

test(
  "six of the fourteen compliant requests pass, with their meaning; the others are refused",
  options,
  () => {
    const cases = read("rfc-compliant.yaml");
    assert.deepEqual(
      Object.fromEntries(cases.map((one) => [one.name, verdict(write(one))])),
      compliant,
    );
    assert.equal(Object.values(compliant).filter((said) => said.includes(" ")).length, 6);
  },
);

test("obs-text of a compliant request arrives as it was sent", options, () => {
  const one = read("rfc-compliant.yaml").find(({ name }) => name.includes("with dot in name"));
  assert.ok(one);
  assert.deepEqual(judge(write(one)).heads[0]?.fields.flat.slice(2), [
    "My.Custom.Header",
    "Custom-Value;\x60\x85\x93\xA0",
  ]);
});

test("of the acceptable requests only a length of zero passes", options, () => {
  assert.deepEqual(
    read("acceptable.yaml").map((one) => verdict(write(one))),
    acceptable,
  );
});

for (const file of ["severe.yaml", "bad-header-characters.yaml"]) {
  test(`nothing of ${file} becomes a request`, options, () => {
    const cases = read(file);
    assert.ok(cases.length >= 15);
    for (const one of cases) {
      const said = judge(write(one));
      assert.deepEqual(said.heads, [], one.name);
      assert.match(said.error?.code ?? "", /^(bad_request|bad_header|ambiguous_length)$/, one.name);
    }
  });
}
