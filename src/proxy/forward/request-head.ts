import { Refusal } from "../../model/refusal.ts";
import type { RequestHead } from "../../wire/http1/request-parser.ts";
import type { Permit } from "../authorize/permit.ts";
import { fate, requestFieldFate } from "./hygiene.ts";
import { isNominated, keptLines } from "./kept-lines.ts";

export type RequestHeadOut = {
  /** The head as it goes to the upstream, with its empty line. */
  readonly text: string;
  /** What a tool of ours said about itself, for the record. */
  readonly canary: string | undefined;
};

/** `Content-Length: 0` is said where its absence would mean something (RFC 9110 section 8.6). */
const expectsContent = new Set(["POST", "PUT", "PATCH"]);

/**
 * The request as the upstream sees it: the canonical target and host that were matched, the caller's own fields less what must not
 * cross, and who the caller is, once. `via` names this gate. Throws `Refusal` `loop` when the request has been here, and
 * `upgrade_not_supported`.
 */
export function requestHead(head: RequestHead, permit: Permit, via: string): RequestHeadOut {
  const { method, path, query, host } = permit.target;
  let text = `${method} ${path}${query} HTTP/1.1\r\nHost: ${host}\r\n`;
  let canary: string | undefined;
  let more = "";
  const { fields, connectionNames } = head;
  text += keptLines(fields, connectionNames, requestFieldFate, (verdict, which) => {
    const value = fields.value(which);
    switch (verdict) {
      case fate.te:
        if (takesTrailers(value)) more += "TE: trailers\r\n";
        break;
      case fate.via:
        if (value.includes(via)) throw new Refusal("loop", `Via already names ${via}`);
        more += `Via: ${value}\r\n`;
        break;
      case fate.user:
        if (permit.target.port.accept.userHeaders && !isNominated(fields, which, connectionNames))
          more += `${fields.name(which)}: ${value}\r\n`;
        break;
      case fate.canary:
        if (isLabel(value)) canary = value;
        break;
      case fate.upgrade:
        // An offer of h2c may be ignored (RFC 9113 section 3.1); anything else would be served wrongly.
        if (value.toLowerCase() !== "h2c") throw new Refusal("upgrade_not_supported", "Upgrade");
        break;
      default:
        break;
    }
  });
  text += `${more}Sallyport-Caller: ${permit.caller.uri}\r\nVia: 1.1 ${via}\r\n`;
  if (head.body === "chunked") text += "Transfer-Encoding: chunked\r\n\r\n";
  else if (head.body === "length" || expectsContent.has(method))
    text += `Content-Length: ${head.contentLength}\r\n\r\n`;
  else text += "\r\n";
  return { text, canary };
}

/** The one transfer coding that crosses (RFC 9110 section 10.1.4): whatever else is offered with it ends here. */
function takesTrailers(te: string): boolean {
  return te.split(",").some((one) => one.trim().toLowerCase() === "trailers");
}

function isLabel(text: string): boolean {
  return text.length <= 32 && /^[a-z0-9-]+$/.test(text);
}
