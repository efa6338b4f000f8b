import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parse } from "yaml";
import { fieldValue, statusOf } from "../harness/http-text.ts";
import { startOneService } from "../harness/one-service.ts";
import { ok } from "../harness/scripted-upstream.ts";

type Case = {
  readonly name: string;
  readonly method: string;
  readonly uri: string;
  readonly version: string;
  readonly headers: readonly { readonly name: string; readonly value: unknown }[] | null;
  readonly expected: { readonly tier: string; readonly reason: string };
};

/** The cases of http-desync-guardian (Apache-2.0), which lie beside the repository, not in it. */
const folder = join(import.meta.dirname, "../../../shared/corpora/http-desync-guardian/tests");
const isThere = existsSync(folder);
const cases: readonly Case[] = isThere
  ? readdirSync(folder)
      .filter((name) => name.endsWith(".yaml"))
      .flatMap((name) => parse(readFileSync(join(folder, name), "utf8")) as Case[])
  : [];
const skip =
  !isThere && !process.env.CI && "http-desync-guardian does not lie beside the repository";

/** Compliant by the letter of the RFC, and refused all the same: each with what it is refused for. */
const stricter: Readonly<Record<string, string>> = {
  "Valid custom header with tchar in name and obs-text": "bad_header",
  "Valid custom header with underscore in name": "bad_header",
  "Different Transfer-Encoding headers": "ambiguous_length",
  "Different Transfer-Encoding headers combined": "ambiguous_length",
  "Transfer-Encoding with a param: chunked;custom_param": "ambiguous_length",
  "Compliant URL": "bad_request",
  "International in URI": "bad_request",
  "Empty URI": "bad_request",
};

/** As it would stand on the wire, and the body that its own fields announce. A `Host` is added: nothing passes without one. */
function bytesOf({ method, uri, version, headers }: Case): Buffer {
  const fields = (headers ?? []).map(({ name, value }) => `${name}: ${value}\r\n`).join("");
  const head = `${method} ${Buffer.from(uri ?? "", "utf8").toString("latin1")} ${version}\r\nHost: orders\r\n${fields}\r\n`;
  const isChunked = /transfer-encoding: chunked\r\n/i.test(fields);
  const length = Number(/content-length: (\d{1,5})\r\n/i.exec(fields)?.[1] ?? 0);
  return Buffer.from(head + (isChunked ? "2\r\nhi\r\n0\r\n\r\n" : "b".repeat(length)), "latin1");
}

const isCompliant = (one: Case): boolean =>
  one.expected.tier === "Compliant" && stricter[one.name] === undefined;

test("the corpus is there and whole", { skip }, () => {
  assert.equal(cases.length, 65, "a corpus that is missing would pass for the wrong reason");
  const compliant = cases.filter(({ expected }) => expected.tier === "Compliant");
  assert.equal(compliant.length, 14);
  assert.deepEqual(
    Object.keys(stricter).filter((name) => !compliant.some((one) => one.name === name)),
    [],
  );
});

test("what is compliant and unambiguous passes with its meaning", { skip }, async (t) => {
  const { upstream, dial } = await startOneService(t, { answer: () => ok("yes") });
  for (const one of cases.filter(isCompliant)) {
    const client = await dial();
    client.send(bytesOf(one));
    const response = await client.response({ bodiless: one.method === "HEAD" });
    assert.equal(statusOf(response), 200, one.name);
    const { message } = upstream.requests.at(-1) as (typeof upstream.requests)[number];
    assert.equal(message.start, `${one.method} /foo/bar HTTP/1.1`, one.name);
    const sent = bytesOf(one).toString("latin1");
    const isChunked = sent.includes("hi\r\n0\r\n");
    assert.equal(
      message.body.toString(),
      isChunked ? "hi" : sent.slice(sent.indexOf("\r\n\r\n") + 4),
      one.name,
    );
    for (const { name, value } of one.headers ?? [])
      assert.equal(fieldValue(message, name.toLowerCase()), String(value).trim(), one.name);
    client.close();
  }
  assert.equal(upstream.requests.length, 6);
});

test("no byte of anything else reaches a service, and each is told why", { skip }, async (t) => {
  const { upstream, dial, world } = await startOneService(t);
  const refused = cases.filter((one) => !isCompliant(one));
  const served: string[] = [];
  for (const one of refused) {
    const client = await dial();
    const before = upstream.bytes;
    client.send(bytesOf(one));
    const response = await client.response({ bodiless: one.method === "HEAD" });
    if (statusOf(response) === 200) served.push(`${one.expected.tier}: ${one.name}`);
    else {
      assert.equal(upstream.bytes, before, one.name);
      assert.ok(statusOf(response) >= 400 && statusOf(response) < 600, one.name);
      await client.ended;
      const expected = stricter[one.name];
      if (expected !== undefined)
        assert.equal(fieldValue(response, "sallyport-refusal"), expected, one.name);
      assert.equal(world.hits.at(-1)?.decision, "refused", one.name);
    }
    client.close();
  }
  // What the corpus calls acceptable may pass where it has one meaning; what it calls worse may not.
  assert.deepEqual(
    served.filter((line) => !line.startsWith("Acceptable: ")),
    [],
  );
  t.diagnostic(
    `${refused.length - served.length} refused, ${served.length} acceptable ones served: ${served.join("; ")}`,
  );
});

const post = (fields: string, body: string): string =>
  `POST /a HTTP/1.1\r\nHost: orders\r\n${fields}\r\n${body}`;
const hidden = "GET /hidden HTTP/1.1\r\nHost: orders\r\n\r\n";

/** How one request hides another, and what each is refused for. */
const smuggled: readonly (readonly [claim: string, bytes: string, code: string])[] = [
  [
    "a length and chunks",
    post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", `0\r\n\r\n${hidden}`),
    "ambiguous_length",
  ],
  [
    "chunks and a length",
    post("Transfer-Encoding: chunked\r\nContent-Length: 50\r\n", `0\r\n\r\n${hidden}`),
    "ambiguous_length",
  ],
  [
    "two lengths that agree",
    post("Content-Length: 1\r\nContent-Length: 1\r\n", `x${hidden}`),
    "ambiguous_length",
  ],
  ["a list of lengths", post("Content-Length: 1, 1\r\n", `x${hidden}`), "ambiguous_length"],
  [
    "chunked twice",
    post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", `0\r\n\r\n${hidden}`),
    "ambiguous_length",
  ],
  [
    "identity and chunked",
    post("Transfer-Encoding: identity, chunked\r\n", `0\r\n\r\n${hidden}`),
    "ambiguous_length",
  ],
  [
    "chunks in HTTP/1.0",
    post("Transfer-Encoding: chunked\r\n", `0\r\n\r\n${hidden}`).replace("HTTP/1.1", "HTTP/1.0"),
    "ambiguous_length",
  ],
  [
    "a space before the colon",
    post("Transfer-Encoding : chunked\r\n", `0\r\n\r\n${hidden}`),
    "bad_header",
  ],
  [
    "a folded field",
    post("X: y\r\n Transfer-Encoding: chunked\r\n", `0\r\n\r\n${hidden}`),
    "bad_header",
  ],
  ["a bare LF", post("X: y\nTransfer-Encoding: chunked\r\n", `0\r\n\r\n${hidden}`), "bad_header"],
  ["a bare CR", post("X: y\rTransfer-Encoding: chunked\r\n", `0\r\n\r\n${hidden}`), "bad_header"],
  ["two hosts", post("Host: billing\r\n", ""), "bad_host"],
  [
    "a chunk size with a sign",
    post("Transfer-Encoding: chunked\r\n", `+0\r\n\r\n${hidden}`),
    "bad_chunk",
  ],
  [
    "a chunk size in 0x",
    post("Transfer-Encoding: chunked\r\n", `0x0\r\n\r\n${hidden}`),
    "bad_chunk",
  ],
  [
    "a chunk size that wraps",
    post("Transfer-Encoding: chunked\r\n", `100000000000000000\r\n\r\n${hidden}`),
    "bad_chunk",
  ],
  [
    "a chunk longer than its size",
    post("Transfer-Encoding: chunked\r\n", `1\r\nxy\r\n0\r\n\r\n${hidden}`),
    "bad_chunk",
  ],
  [
    "a bare LF behind a chunk size",
    post("Transfer-Encoding: chunked\r\n", `1\nx\r\n0\r\n\r\n${hidden}`),
    "bad_chunk",
  ],
  [
    "a bare LF in a chunk extension",
    post("Transfer-Encoding: chunked\r\n", `1;a\nb\r\nx\r\n0\r\n\r\n${hidden}`),
    "bad_chunk",
  ],
  [
    "a length in the trailers",
    post("Transfer-Encoding: chunked\r\n", `0\r\nContent-Length: 9\r\n\r\n${hidden}`),
    "bad_header",
  ],
];

test("no request hides another: one refusal, one closed connection, no byte behind it", async (t) => {
  const { upstream, dial, world } = await startOneService(t);
  // A connection to the service rests: nothing but the refusal keeps a byte from it.
  const usual = await dial();
  usual.send("GET / HTTP/1.1\r\nHost: orders\r\n\r\n");
  await usual.response();
  const reached = upstream.bytes;
  for (const [claim, bytes, code] of smuggled) {
    const before = world.hits.length;
    const client = await dial();
    client.send(bytes);
    const response = await client.response();
    assert.equal(fieldValue(response, "sallyport-refusal"), code, claim);
    await client.ended;
    assert.equal(client.rest.length, 0, claim);
    assert.equal(world.hits.length, before + 1, claim);
    client.close();
    assert.equal(upstream.bytes, reached, claim);
  }
  assert.equal(upstream.requests.length, 1);
});
