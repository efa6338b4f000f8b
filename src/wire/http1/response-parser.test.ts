import assert from "node:assert/strict";
import { test } from "node:test";
import { responseCases } from "../../../test/corpus/http1-responses.ts";
import { checkResponse } from "../../../test/fuzz/check-response.ts";
import { everyFeeding } from "../../../test/fuzz/trace.ts";
import { type ResponseHead, ResponseParser, type WireError } from "./response-parser.ts";

for (const [claim, methods, text, verdict] of responseCases) {
  test(claim, () => {
    const bytes = Buffer.from(text, "latin1");
    const trace = checkResponse(ResponseParser, bytes, {
      feedings: everyFeeding(bytes.length, bytes.length < 1_000 ? undefined : 3),
      methods: methods === "" ? [] : methods.split(" "),
    });
    const last = trace.at(-1) ?? "";
    assert.equal(last.startsWith("error upstream_broken ") ? "broken" : "ok", verdict, last);
  });
}

function listen(
  onEnd: (parser: ResponseParser) => void = () => undefined,
): [ResponseParser, { heads: ResponseHead[]; log: string[]; error: WireError | undefined }] {
  const heard = {
    heads: [] as ResponseHead[],
    log: [] as string[],
    error: undefined as WireError | undefined,
  };
  const parser: ResponseParser = new ResponseParser({
    onInformational: ({ status }) => void heard.log.push(`informational ${status}`),
    onHead: (head) => void heard.heads.push(head),
    onBody: (chunk) => void heard.log.push(`body ${chunk}`),
    onEnd() {
      heard.log.push("end");
      onEnd(parser);
    },
    onError(error) {
      heard.error = error;
    },
  });
  return [parser, heard];
}

const answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=5\r\n\r\nhi";

test("a head says what the status line and the fields mean", () => {
  const [parser, { heads }] = listen();
  parser.expect("HEAD");
  parser.push(Buffer.from(answer.slice(0, -2).replace("OK", "All Right")));
  const [{ fields, ...head } = assert.fail("no head"), ...more] = heads;
  assert.deepEqual(
    [{ ...head, fields: fields.flat, ids: fields.ids }, ...more],
    [
      {
        status: 200,
        reason: "All Right",
        minor: 1,
        fields: ["Content-Length", "2", "Keep-Alive", "timeout=5"],
        ids: [2, 8],
        keepAlive: true,
        keepAliveTimeoutSeconds: 5,
        body: "none",
        contentLength: 2,
        hasContentLength: true,
        connectionNames: [],
      },
    ],
  );
});

test("one response after another on the same connection", () => {
  const [parser, heard] = listen();
  for (let round = 0; round < 3; round += 1) {
    parser.expect("GET");
    assert.equal(parser.state, "waiting");
    parser.push(Buffer.from(answer));
    assert.equal(parser.state, "idle");
  }
  parser.end();
  assert.deepEqual([heard.log.length, heard.error], [6, undefined]);
});

test("a request is expected once at a time", () => {
  const [parser] = listen();
  parser.expect("GET");
  assert.throws(() => parser.expect("GET"), /before the last one was answered/);
});

test("an answer that was sent before its question is never taken for it", () => {
  const states: string[] = [];
  const [parser, heard] = listen((parser) => {
    states.push(parser.state);
    assert.throws(() => parser.expect("GET"));
  });
  parser.expect("GET");
  parser.push(Buffer.from(answer + answer));
  assert.deepEqual([states, heard.log], [["failed"], ["body hi", "end"]]);
  assert.deepEqual(heard.error, {
    code: "upstream_broken",
    detail: "bytes that no request asked for",
    offset: answer.length,
  });
});

test("the next question may be asked from inside the end of the last answer", () => {
  let once = true;
  const [parser, heard] = listen((parser) => {
    if (once) parser.expect("GET");
    once = false;
  });
  parser.expect("GET");
  parser.push(Buffer.from(answer));
  parser.push(Buffer.from(answer));
  assert.deepEqual([heard.log.length, heard.error], [4, undefined]);
});

for (const [claim, text, keepAlive] of [
  ["HTTP/1.1 stays", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true],
  ["close closes", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", false],
  [
    "close in an interim response closes",
    "HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    false,
  ],
  ["HTTP/1.0 closes", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false],
  [
    "HTTP/1.0 keep-alive stays",
    "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n",
    true,
  ],
  ["a body until the close closes", "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n", false],
] as const) {
  test(claim, () => {
    const [parser, { heads }] = listen();
    parser.expect("GET");
    parser.push(Buffer.from(text));
    assert.equal(heads[0]?.keepAlive, keepAlive);
  });
}
