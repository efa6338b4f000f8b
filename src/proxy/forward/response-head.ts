import type { ResponseHead } from "../../wire/http1/response-parser.ts";
import { responseFieldFate } from "./hygiene.ts";
import { keptLines } from "./kept-lines.ts";

/** How the body of a response is delimited towards the client. */
export type Framing = "none" | "length" | "chunked" | "close";

/** What can be said to this client: a body of unknown length is chunked for HTTP/1.1 and ends with the connection for 1.0. */
export function framingFor(head: ResponseHead, clientMinor: 0 | 1): Framing {
  if (head.body === "none" || head.body === "length") return head.body;
  return clientMinor === 1 ? "chunked" : "close";
}

/**
 * The response's head as the client sees it, without our hit id and without its empty line: status and the upstream's fields less
 * what is hop-by-hop and what only we may say.
 */
export function responseHead(
  head: ResponseHead,
  framing: Framing,
  connection: "close" | "keep-alive" | undefined,
): string {
  let text = `HTTP/1.1 ${head.status} ${head.reason}\r\n${keptLines(head.fields, head.connectionNames, responseFieldFate)}`;
  // To a HEAD or with a 304 the length that a GET would have had is passed on; 1xx and 204 have none (RFC 9110 section 8.6).
  const mayHaveLength = head.status >= 200 && head.status !== 204;
  if (framing === "length" || (framing === "none" && head.hasContentLength && mayHaveLength))
    text += `Content-Length: ${head.contentLength}\r\n`;
  else if (framing === "chunked") text += "Transfer-Encoding: chunked\r\n";
  if (connection !== undefined) text += `Connection: ${connection}\r\n`;
  return text;
}
