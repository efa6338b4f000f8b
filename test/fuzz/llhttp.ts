// @ts-expect-error Node ships no types for its own parser; it is the only way to feed llhttp without a socket.
import common from "node:_http_common";
import { METHODS } from "node:http";

/** What llhttp, as strict as Node runs it, made of some bytes. */
export type LlhttpMessage = {
  /** Undefined when llhttp knows no such method. */
  method: string | undefined;
  target: string;
  status: number;
  minor: number;
  headers: string[];
  trailers: string[];
  body: string;
  keepAlive: boolean;
  upgrade: boolean;
  complete: boolean;
};

export type LlhttpResult = {
  readonly messages: LlhttpMessage[];
  readonly error: string | undefined;
};

// biome-ignore lint/suspicious/noExplicitAny: an untyped internal of Node, wrapped here and nowhere else.
const HTTPParser = common.HTTPParser as any;

export function parseWithLlhttp(
  bytes: Buffer,
  kind: "request" | "response",
  bodiless = false,
): LlhttpResult {
  const messages: LlhttpMessage[] = [];
  let flushed: string[] = [];
  let flushedUrl = "";
  const parser = new HTTPParser();
  parser.initialize(kind === "request" ? HTTPParser.REQUEST : HTTPParser.RESPONSE, {}, 65_536, 0);
  parser[HTTPParser.kOnHeaders | 0] = (headers: string[], url: string) => {
    flushed.push(...headers);
    flushedUrl += url;
  };
  parser[HTTPParser.kOnHeadersComplete | 0] = (...args: unknown[]) => {
    const [, minor, headers, method, url, status, , upgrade, keepAlive] = args as [
      number,
      number,
      string[] | undefined,
      number | undefined,
      string | undefined,
      number | undefined,
      string,
      boolean,
      boolean,
    ];
    messages.push({
      method: method === undefined ? undefined : methodNames.get(method),
      target: url ?? flushedUrl,
      status: status ?? 0,
      minor,
      headers: headers ?? flushed,
      trailers: [],
      body: "",
      keepAlive,
      upgrade,
      complete: false,
    });
    flushed = [];
    flushedUrl = "";
    return bodiless ? 1 : 0;
  };
  parser[HTTPParser.kOnBody | 0] = (chunk: Buffer) => {
    const message = messages.at(-1);
    if (message !== undefined) message.body += chunk.toString("latin1");
  };
  parser[HTTPParser.kOnMessageComplete | 0] = () => {
    const message = messages.at(-1);
    if (message !== undefined) {
      message.complete = true;
      message.trailers = flushed;
    }
    flushed = [];
    flushedUrl = "";
  };
  let result: unknown = parser.execute(bytes);
  if (!(result instanceof Error)) result = parser.finish();
  parser.free();
  return {
    messages,
    error: result instanceof Error ? (result as Error & { code: string }).code : undefined,
  };
}

/** The parser names a method by a number that Node keeps to itself: learnt by showing it every method once. */
const methodNames = new Map<number, string>();
for (const method of METHODS) {
  const parser = new HTTPParser();
  parser.initialize(HTTPParser.REQUEST, {}, 65_536, 0);
  parser[HTTPParser.kOnHeadersComplete | 0] = (...args: unknown[]) => {
    methodNames.set(args[3] as number, method);
    return 0;
  };
  const target = method === "CONNECT" ? "a:1" : "/";
  parser.execute(Buffer.from(`${method} ${target} HTTP/1.1\r\nHost: a\r\n\r\n`));
  parser.free();
}

export const llhttpMethods: ReadonlySet<string> = new Set(METHODS);
