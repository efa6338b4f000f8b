import assert from "node:assert/strict";
import { parseWithLlhttp } from "./llhttp.ts";
import { type Feeding, type ResponseParserClass, type Trace, traceResponses } from "./trace.ts";

/** What must hold for any bytes of an upstream: nothing is thrown, the cuts do not matter, llhttp reads the same. Returns the trace. */
export function checkResponse(
  Parser: ResponseParserClass,
  bytes: Buffer,
  { feedings, methods }: { feedings: Iterable<Feeding>; methods: readonly string[] },
): Trace {
  const whole = traceResponses(Parser, bytes, { feeding: { cuts: [] }, methods });
  for (const feeding of feedings)
    assert.deepEqual(
      traceResponses(Parser, bytes, { feeding, methods }),
      whole,
      JSON.stringify(feeding),
    );
  const end = whole.findIndex((line) => line === "end" || line.startsWith("end "));
  if (end < 0) return whole;
  const { messages, error } = parseWithLlhttp(bytes, "response", methods[0] === "HEAD");
  // An interim response that closes ends everything for llhttp; we read the final one and close then.
  const interim = whole.some((line) => line.startsWith("informational "));
  if (interim && error === "HPE_CLOSED_CONNECTION") return whole;
  const theirs = messages.find(({ status }) => status >= 200);
  assert.ok(theirs, `llhttp refuses what we accept (${error})`);
  assert.ok(theirs.complete, `llhttp does not end where we do (${error})`);
  const head = whole.findIndex((line) => line.startsWith("head "));
  const said = whole[head + 2]?.startsWith("body ")
    ? (whole[head + 2] ?? "").slice("body ".length)
    : "";
  assert.ok(
    whole[head]?.endsWith(` ${JSON.stringify(theirs.headers)}`),
    "llhttp reads other fields",
  );
  assert.equal(whole[head]?.split(" ")[1], String(theirs.status));
  assert.equal(theirs.body, said);
  return whole;
}
