import type { Limits, RequestParser } from "../../src/wire/http1/request-parser.ts";
import type { ResponseParser } from "../../src/wire/http1/response-parser.ts";

/** What a parser said, one line an event, body bytes that follow each other joined: comparable however the input was cut. */
export type Trace = string[];

/** How the bytes reach the parser. `pausing` pauses inside every event and resumes from outside. */
export type Feeding = { readonly cuts: readonly number[]; readonly pausing?: boolean };

export type RequestParserClass = typeof RequestParser;
export type ResponseParserClass = typeof ResponseParser;

type Fed = {
  push(chunk: Buffer): void;
  pause(): void;
  resume(): void;
  end(): void;
  readonly buffered: number;
};

/** Traces requests. Errors come with code, detail and offset. Throws when an event comes after the error or a body chunk is empty. */
export function traceRequests(
  Parser: RequestParserClass,
  bytes: Buffer,
  { feeding, limits }: { feeding: Feeding; limits?: Partial<Limits> },
): Trace {
  const log = new Recorder();
  const parser: Fed = new Parser(
    {
      onHead(head) {
        log.add(
          headLine([head.method, head.target, `1.${head.minor}`], head.body, head.contentLength, {
            keep: head.keepAlive,
            headers: head.fields.flat,
          }),
        );
        log.add(
          `meaning ${head.path} ${head.host} ${head.expectContinue} ${head.upgrade} ${head.underscored} ${head.connectionNames}`,
        );
        pauseIf();
      },
      onBody(chunk) {
        log.body(chunk);
        pauseIf();
      },
      onEnd(trailers) {
        log.add(endLine(trailers));
        pauseIf();
      },
      onError: (error) => log.fail(`error ${error.code} @${error.offset} ${error.detail}`),
    },
    limits,
  );
  function pauseIf(): void {
    if (feeding.pausing !== true) return;
    parser.pause();
    log.paused = true;
  }
  feed(parser, bytes, { feeding, log });
  return log.lines;
}

/** Traces the responses to requests with these methods, each expected as soon as the one before has ended. */
export function traceResponses(
  Parser: ResponseParserClass,
  bytes: Buffer,
  { feeding, methods }: { feeding: Feeding; methods: readonly string[] },
): Trace {
  const log = new Recorder();
  const waiting = [...methods];
  const parser = new Parser({
    onInformational(head) {
      log.add(`informational ${head.status}`);
      pauseIf();
    },
    onHead(head) {
      log.add(
        headLine(
          [String(head.status), head.reason, `1.${head.minor}`],
          head.body,
          head.contentLength,
          {
            keep: head.keepAlive,
            headers: head.fields.flat,
          },
        ),
      );
      log.add(
        `meaning ${head.keepAliveTimeoutSeconds} ${head.hasContentLength} ${head.connectionNames}`,
      );
      pauseIf();
    },
    onBody(chunk) {
      log.body(chunk);
      pauseIf();
    },
    onEnd(trailers) {
      log.add(endLine(trailers));
      pauseIf();
    },
    onError: (error) => log.fail(`error ${error.code} @${error.offset} ${error.detail}`),
  });
  function pauseIf(): void {
    if (feeding.pausing !== true) return;
    parser.pause();
    log.paused = true;
  }
  const first = waiting.shift();
  if (first !== undefined) parser.expect(first);
  feed(parser, bytes, { feeding, log });
  return log.lines;
}

export function headLine(
  start: readonly string[],
  body: string,
  contentLength: number,
  rest: { keep: boolean; headers: readonly string[] },
): string {
  return `head ${start.join(" ")} ${body} ${contentLength} keep=${rest.keep} ${JSON.stringify(rest.headers)}`;
}

export function endLine(trailers: readonly string[] | undefined): string {
  return trailers === undefined ? "end" : `end ${JSON.stringify(trailers)}`;
}

/** Joins body lines and minds the order of things. */
export class Recorder {
  readonly lines: Trace = [];
  paused = false;
  #failed = false;

  add(line: string): void {
    if (this.paused) throw new Error(`an event during a pause: ${line}`);
    if (this.#failed) throw new Error(`an event after the error: ${line}`);
    this.lines.push(line);
  }

  body(chunk: Buffer): void {
    if (chunk.length === 0) throw new Error("an empty body chunk");
    const last = this.lines.at(-1);
    if (last?.startsWith("body ") && !this.#failed && !this.paused)
      this.lines[this.lines.length - 1] = last + chunk.toString("latin1");
    else this.add(`body ${chunk.toString("latin1")}`);
  }

  fail(line: string): void {
    this.add(line);
    this.#failed = true;
  }
}

/** Every piece is lent for the call only, as by a socket that reads into the same memory again and again. */
function feed(
  parser: Fed,
  bytes: Buffer,
  { feeding: { cuts, pausing }, log }: { feeding: Feeding; log: Recorder },
): void {
  const resume = (): void => {
    log.paused = false;
    parser.resume();
  };
  let from = 0;
  for (const to of [...cuts, bytes.length]) {
    const lent = Buffer.from(bytes.subarray(from, to));
    from = to;
    parser.push(lent);
    lent.fill(0x7e);
    if (pausing === true && to % 3 === 0) resume();
  }
  parser.end();
  // Each resume lets at least one event through.
  for (let round = 0; pausing === true && round < bytes.length + 10; round += 1) resume();
  if (parser.buffered > 0) throw new Error("bytes are left after the last resume");
}

/** Byte by byte, pausing, both, and every cut in two; only the first `most` of them for a long message. */
export function* everyFeeding(length: number, most = length + 3): Generator<Feeding> {
  yield { cuts: Array.from({ length: Math.max(0, length - 1) }, (_, at) => at + 1) };
  yield { cuts: [], pausing: true };
  yield { cuts: Array.from({ length: Math.max(0, length - 1) }, (_, at) => at + 1), pausing: true };
  for (let cut = 1; cut < Math.min(length, most - 2); cut += 1) yield { cuts: [cut] };
}
