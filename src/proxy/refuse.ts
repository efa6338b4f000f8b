import { type Refusal, refusals } from "../model/refusal.ts";
import { RateLimited } from "./limit/limit.ts";

const reasons: Readonly<Record<number, string>> = {
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  408: "Request Timeout",
  417: "Expectation Failed",
  421: "Misdirected Request",
  429: "Too Many Requests",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  501: "Not Implemented",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
  505: "HTTP Version Not Supported",
  508: "Loop Detected",
};

/**
 * The one place where a no becomes bytes: a complete HTTP/1.1 response. The client learns the code, its sentence and the id of its
 * line in the hit log; everything else stays in the log. `bodiless` for HEAD.
 */
export function refusalBytes(
  refusal: Refusal,
  with_: { hit: string | undefined; close: boolean; bodiless: boolean },
): string {
  const kind = refusals[refusal.code];
  const hit = with_.hit;
  const body = `${JSON.stringify({ error: { code: refusal.code, says: kind.says, ...(hit && { hit }) } })}\n`;
  let text = `HTTP/1.1 ${kind.http} ${reasons[kind.http]}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\nCache-Control: no-store\r\nSallyport-Refusal: ${refusal.code}\r\n`;
  if (hit !== undefined) text += `Sallyport-Hit: ${hit}\r\n`;
  if (refusal instanceof RateLimited) text += limitFields(refusal);
  if (with_.close) text += "Connection: close\r\n";
  return with_.bodiless ? `${text}\r\n` : `${text}\r\n${body}`;
}

function limitFields(refusal: RateLimited): string {
  const seconds = Math.max(1, Math.ceil(refusal.retryAfterMs / 1_000));
  return `Retry-After: ${seconds}\r\nRateLimit-Limit: ${refusal.limit.count}\r\nRateLimit-Remaining: 0\r\nRateLimit-Reset: ${seconds}\r\n`;
}
