import assert from "node:assert/strict";
import { test } from "node:test";
import { requestCases } from "../../../test/corpus/http1-requests.ts";
import { checkRequest } from "../../../test/fuzz/check-request.ts";
import { everyFeeding } from "../../../test/fuzz/trace.ts";
import { type RequestHead, RequestParser, type WireError } from "./request-parser.ts";

for (const [claim, text, verdict] of requestCases) {
  test(claim, () => {
    const bytes = Buffer.from(text, "latin1");
    // Long ones are cut byte by byte and at a few places only.
    const feedings =
      bytes.length <= 600
        ? everyFeeding(bytes.length)
        : [...everyFeeding(bytes.length, 3), { cuts: [1, 20, bytes.length - 1] }];
    const last = checkRequest(RequestParser, bytes, feedings).at(-1) ?? "";
    assert.equal(last.startsWith("error ") ? last.split(" ")[1] : "ok", verdict, last);
  });
}

type Heard = { heads: RequestHead[]; log: string[]; error: WireError | undefined };

function listen(
  on: (parser: RequestParser, event: string) => void = () => undefined,
  limits = {},
): [RequestParser, Heard] {
  const heard: Heard = { heads: [], log: [], error: undefined };
  const say = (event: string): void => {
    heard.log.push(event);
    on(parser, event);
  };
  const parser: RequestParser = new RequestParser(
    {
      onHead(head) {
        heard.heads.push(head);
        say("head");
      },
      onBody: (chunk) => say(`body ${chunk.toString("latin1")}`),
      onEnd: () => say("end"),
      onError(error) {
        heard.error = error;
        say("error");
      },
    },
    limits,
  );
  return [parser, heard];
}

/** A head with its fields as lists. */
function spelledOut({ fields, ...head }: RequestHead) {
  return { ...head, fields: fields.flat, ids: fields.ids };
}

const get = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";

test("a head says what the request line and the fields mean", () => {
  const [parser, { heads }] = listen();
  parser.push(
    Buffer.from(
      "POST http://A:8/b?c HTTP/1.1\r\nHost: a:8\r\nexpect: 100-continue\r\nX-Odd: \xe4 \r\n" +
        "Connection: X-Odd, close\r\nTransfer-Encoding: chunked\r\nUpgrade: h2c\r\n\r\n",
      "latin1",
    ),
  );
  assert.deepEqual(heads.map(spelledOut), [
    {
      method: "POST",
      target: "http://A:8/b?c",
      path: "/b?c",
      minor: 1,
      fields: [
        "Host",
        "a:8",
        "expect",
        "100-continue",
        "X-Odd",
        "\xe4",
        "Connection",
        "X-Odd, close",
        "Transfer-Encoding",
        "chunked",
        "Upgrade",
        "h2c",
      ],
      ids: [1, 5, 0, 4, 3, 6],
      host: "a:8",
      keepAlive: false,
      body: "chunked",
      contentLength: 0,
      expectContinue: true,
      underscored: false,
      upgrade: true,
      connectionNames: ["x-odd"],
    },
  ]);
});

test("a pause after a request holds the next one back until it is taken back", () => {
  const [parser, heard] = listen((parser, event) => event === "end" && parser.pause());
  parser.push(Buffer.from(get + get));
  assert.deepEqual(heard.log, ["head", "end"]);
  assert.equal(parser.buffered, get.length);
  parser.push(Buffer.from(get));
  assert.equal(parser.buffered, get.length * 2);
  parser.resume();
  assert.deepEqual(heard.log, ["head", "end", "head", "end"]);
  parser.resume();
  assert.equal(heard.log.length, 6);
  assert.equal(parser.buffered, 0);
  assert.equal(parser.state, "idle");
});

test("a pause at the head holds the end of a bodiless request back", () => {
  const [parser, heard] = listen((parser, event) => event === "head" && parser.pause());
  parser.push(Buffer.from(get));
  assert.deepEqual([heard.log, parser.state], [["head"], "body"]);
  parser.resume();
  assert.deepEqual([heard.log, parser.state], [["head", "end"], "idle"]);
});

test("a pause that is taken back inside the same event changes nothing", () => {
  const [parser, heard] = listen((parser) => {
    parser.pause();
    parser.resume();
  });
  parser.push(Buffer.from(get + get));
  assert.deepEqual(heard.log, ["head", "end", "head", "end"]);
});

test("bytes pushed from inside an event come after those that are there", () => {
  let once = true;
  const [parser, heard] = listen((parser) => {
    if (!once) return;
    once = false;
    parser.push(Buffer.from(get.replace("/a", "/second")));
  });
  parser.push(Buffer.from(get));
  assert.deepEqual(
    heard.heads.map(({ path }) => path),
    ["/a", "/second"],
  );
});

test("what waits is a copy: the lender may reuse its memory", () => {
  const [parser, heard] = listen((parser, event) => event === "head" && parser.pause());
  const lent = Buffer.from("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
  parser.push(lent);
  lent.fill(0);
  parser.resume();
  assert.deepEqual(heard.log, ["head", "body abc", "end"]);
});

test("an end that comes during a pause is judged afterwards", () => {
  const [parser, heard] = listen((parser, event) => event === "head" && parser.pause());
  parser.push(Buffer.from("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab"));
  parser.end();
  parser.end();
  assert.deepEqual(heard.log, ["head"]);
  parser.resume();
  assert.deepEqual(heard.log, ["head", "body ab", "error"]);
  parser.push(Buffer.from("c"));
  parser.resume();
  parser.end();
  assert.equal(heard.log.length, 3);
});

test("an error says where, and ends everything", () => {
  const [parser, heard] = listen();
  parser.push(Buffer.from(get));
  parser.push(Buffer.from("GET / HTTP/1.1\r\nHost : a\r\n\r\n"));
  parser.push(Buffer.from(get));
  assert.deepEqual(heard.error, {
    code: "bad_header",
    detail: "white space between a field name and its colon",
    offset: get.length + "GET / HTTP/1.1\r\nHost".length,
  });
  assert.deepEqual(
    [heard.log, parser.state, parser.buffered],
    [["head", "end", "error"], "failed", 0],
  );
});

test("a listener that throws fails the parser", () => {
  const [parser, heard] = listen((_, event) => {
    if (event === "head") throw new Error("ours");
  });
  assert.throws(() => parser.push(Buffer.from(get + get)), /ours/);
  assert.equal(parser.state, "failed");
  parser.push(Buffer.from(get));
  assert.deepEqual(heard.log, ["head"]);
});

test("the state tells where a message stands", () => {
  const [parser] = listen();
  const states: string[] = [parser.state];
  for (const piece of [
    "POST",
    " / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n",
    "x",
    "y",
    "\r",
    "\n",
  ]) {
    parser.push(Buffer.from(piece));
    states.push(parser.state);
  }
  assert.deepEqual(states, ["idle", "head", "body", "body", "idle", "head", "idle"]);
});

for (const [claim, name, verdict] of [
  ["an underscore is let in where it is wanted", "X_A", undefined],
  ["Content_Length is never let in", "Content_Length", "bad_header"],
  ["transfer_encoding is never let in", "transfer_encoding", "bad_header"],
  ["Sallyport_Caller is never let in", "Sallyport_Caller", "bad_header"],
  ["Sallyport-Caller_ reads as ours too", "Sallyport-Caller_", undefined],
  ["X_Forwarded_For is never let in", "X_Forwarded_For", "bad_header"],
] as const) {
  test(claim, () => {
    const [parser, heard] = listen(undefined, { underscoreHeaders: true });
    parser.push(Buffer.from(`GET / HTTP/1.1\r\nHost: a\r\n${name}: 1\r\n\r\n`));
    assert.equal(heard.error?.code, verdict);
    assert.equal(heard.heads[0]?.underscored, verdict === undefined ? true : undefined);
  });
}
