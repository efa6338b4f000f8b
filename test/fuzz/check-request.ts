import assert from "node:assert/strict";
import { defaultLimits } from "../../src/wire/http1/request-parser.ts";
import { llhttpMethods, parseWithLlhttp } from "./llhttp.ts";
import { referenceTrace } from "./reference.ts";
import {
  type Feeding,
  headLine,
  type RequestParserClass,
  type Trace,
  traceRequests,
} from "./trace.ts";

export type RequestLimits = {
  headBytesMax: number;
  headersMax: number;
  underscoreHeaders: boolean;
};

/**
 * Everything that must hold for any bytes: nothing is thrown, no event follows an error, the cuts do not matter, the reference reader
 * agrees, and whatever is accepted means the same to llhttp. Returns the trace.
 */
export function checkRequest(
  Parser: RequestParserClass,
  bytes: Buffer,
  feedings: Iterable<Feeding>,
  limits: RequestLimits = defaultLimits,
): Trace {
  const whole = traceRequests(Parser, bytes, { feeding: { cuts: [] }, limits });
  for (const feeding of feedings)
    assert.deepEqual(
      traceRequests(Parser, bytes, { feeding, limits }),
      whole,
      JSON.stringify(feeding),
    );
  assert.deepEqual(
    whole.map((line) => (line.startsWith("error ") ? "error" : line)),
    referenceTrace(bytes, limits),
    "the reference reader sees it otherwise",
  );
  checkWithLlhttp(whole, bytes);
  return whole;
}

/**
 * llhttp stops at an upgrade, after a message that closes, and at methods it does not know: only what is before can be compared. It
 * also takes a tab behind `chunked` for a part of the word, which RFC 9110 (section 5.5) says is white space to be dropped.
 */
function checkWithLlhttp(trace: Trace, bytes: Buffer): void {
  if (/transfer-encoding:[^\r]*\t[ \t]*\r/i.test(bytes.toString("latin1"))) return;
  const { messages, error } = parseWithLlhttp(bytes, "request");
  let at = 0;
  for (const line of trace) {
    if (!line.startsWith("head ")) continue;
    const [, method = "", target = ""] = line.split(" ", 3);
    if (!llhttpMethods.has(method) || method === "PRI" || method === "SOURCE") return;
    const theirs = messages[at];
    assert.ok(theirs, `llhttp refuses what we accept (${error}): ${line}`);
    assert.deepEqual([theirs.method, theirs.target], [method, target]);
    const body = / keep=(?:true|false) /.exec(line)?.index ?? 0;
    const [kind = "", length = ""] = line.slice(0, body).split(" ").slice(-2);
    assert.equal(
      headLine([method, target, `1.${theirs.minor}`], kind, Number(length), {
        keep: line.includes(" keep=true "),
        headers: theirs.headers,
      }),
      line,
      "llhttp reads other fields",
    );
    if (line.includes(" keep=true ")) assert.ok(theirs.keepAlive || theirs.upgrade);
    const rest = trace.slice(trace.indexOf(line, indexOfHead(trace, at)) + 2);
    const said = rest[0]?.startsWith("body ") ? rest[0].slice("body ".length) : "";
    const ending = rest[said === "" ? 0 : 1];
    if (theirs.upgrade) return;
    if (ending?.startsWith("end") !== true) return;
    assert.ok(theirs.complete, `llhttp does not end where we do (${error})`);
    assert.equal(theirs.body, said);
    assert.deepEqual(
      theirs.trailers,
      ending === "end" ? [] : JSON.parse(ending.slice("end ".length)),
    );
    if (!theirs.keepAlive || line.includes(" keep=false ")) return;
    at += 1;
  }
}

function indexOfHead(trace: Trace, which: number): number {
  let seen = -1;
  return trace.findIndex((line) => {
    if (line.startsWith("head ")) seen += 1;
    return seen === which;
  });
}
