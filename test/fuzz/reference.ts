import { endLine, headLine, Recorder, type Trace } from "./trace.ts";

/**
 * A second reader of HTTP/1.1 requests, written for being checked against: whole texts, regular expressions, no state machine, slow.
 * Shares no code with the first. Its errors are the line `error`, because two readers meet several mistakes in a different order.
 */
export function referenceTrace(
  bytes: Buffer,
  limits: { headBytesMax: number; headersMax: number; underscoreHeaders: boolean },
): Trace {
  const log = new Recorder();
  let rest = bytes.toString("latin1");
  while (rest !== "") {
    if (rest.startsWith("\r\n")) rest = rest.slice(2);
    if (rest === "") break;
    const after = readMessage(rest, limits, log);
    if (after === undefined) {
      log.fail("error");
      break;
    }
    rest = after;
  }
  return log.lines;
}

type Limits = { headBytesMax: number; headersMax: number; underscoreHeaders: boolean };

const fieldLine =
  /^([-!#$%&'*+.^`|~0-9A-Za-z_]+):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[ \t]*$/;
const requestLine =
  /^([-!#$%&'*+.^_`|~0-9A-Za-z]{1,32}) ([!$-;=?-Z[\\\]^_`a-z{|}~]+) HTTP\/1\.([01])$/;
const path = /^\/[-A-Za-z0-9._~%!$&'()*+,;=:@/]*(?:\?[-A-Za-z0-9._~%!$&'()*+,;=:@/?[\]{}|^`\\]*)?$/;
const host = /^(?:[A-Za-z0-9._~-]+|\[(?=[^\]]*:[^\]]*:)[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?$/;
const chunkLine =
  /^([0-9A-Fa-f]{1,16})((?:;[-!#$%&'*+.^_`|~0-9A-Za-z]+(?:=(?:[-!#$%&'*+.^_`|~0-9A-Za-z]+|"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"))?)*)\r\n/;
const known =
  /^(?:host|content-length|transfer-encoding|connection|expect|upgrade|http2-settings|keep-alive|proxy-connection|te|trailer|authorization|proxy-authorization|proxy-authenticate|content-type|content-range|content-encoding|date|from|if-modified-since|if-range|if-unmodified-since|max-forwards|range|referer|user-agent|cookie|set-cookie|via|forwarded|cache-control|location|x-forwarded-.*|sallyport-.*)$/;
const single =
  /^(?:host|content-length|transfer-encoding|expect|authorization|proxy-authorization|content-type|content-range|date|from|if-modified-since|if-range|if-unmodified-since|max-forwards|range|referer|user-agent|http2-settings)$/;
const trailerSafe = /^(?:date|from|referer|user-agent)$/;
const notNominated =
  /^(?:host|content-length|transfer-encoding|authorization|cookie|via|forwarded|x-forwarded-.*|sallyport-.*)$/;

/** The text after one message, or undefined when it is refused or incomplete. */
function readMessage(text: string, limits: Limits, log: Recorder): string | undefined {
  const end = text.indexOf("\r\n\r\n");
  if (end < 0 || end + 4 > limits.headBytesMax) return undefined;
  const [first = "", ...lines] = text.slice(0, end).split("\r\n");
  const line = requestLine.exec(first);
  const fields = readFields(lines, limits.headersMax, limits.underscoreHeaders);
  if (line === null || fields === undefined) return undefined;
  const [, method = "", target = "", minor = ""] = line;
  const named = (name: string): string[] =>
    fields.filter(([key]) => key.toLowerCase() === name).map(([, value]) => value);
  const names = fields.map(([name]) => name.toLowerCase());
  if (names.some((name) => single.test(name) && named(name).length > 1)) return undefined;
  if (names.some((name) => name.includes("_") && known.test(name.replaceAll("_", "-"))))
    return undefined;

  const [length] = named("content-length");
  const [coding] = named("transfer-encoding");
  if (length !== undefined && coding !== undefined) return undefined;
  if (length !== undefined && !/^(?:0|[1-9][0-9]{0,15})$/.test(length)) return undefined;
  if (length !== undefined && BigInt(length) >= 2n ** 53n) return undefined;
  if (coding !== undefined && (!/^chunked$/i.test(coding) || minor === "0")) return undefined;

  const [expectation] = named("expect");
  if (expectation !== undefined && !/^100-continue$/i.test(expectation)) return undefined;
  const [hostValue] = named("host");
  if (hostValue === undefined ? minor === "1" : !isHost(hostValue)) return undefined;
  const place = readTarget(method, target);
  if (place === undefined) return undefined;
  if (
    place.host !== undefined &&
    hostValue !== undefined &&
    place.host.toLowerCase() !== hostValue.toLowerCase()
  )
    return undefined;
  const options = named("connection")
    .flatMap((value) => value.split(","))
    .map((option) => option.replace(/^[ \t]+|[ \t]+$/g, "").toLowerCase())
    .filter((option) => option !== "");
  if (
    options.some(
      (option) => !/^[-!#$%&'*+.^_`|~0-9a-z]+$/.test(option) || notNominated.test(option),
    )
  )
    return undefined;
  const keep = !options.includes("close") && (minor === "1" || options.includes("keep-alive"));
  const body = coding !== undefined ? "chunked" : length !== undefined ? "length" : "none";
  const contentLength = Number(length ?? 0);
  log.add(
    headLine([method, target, `1.${minor}`], body, contentLength, { keep, headers: fields.flat() }),
  );
  const waits =
    expectation !== undefined && minor === "1" && (body === "chunked" || contentLength > 0);
  const upgrade = names.includes("upgrade") || names.includes("http2-settings");
  const nominated = [...new Set(options)].filter(
    (option) => option !== "close" && option !== "keep-alive",
  );
  const underscored = names.some((name) => name.includes("_"));
  log.add(
    `meaning ${place.path} ${hostValue ?? place.host} ${waits} ${upgrade} ${underscored} ${nominated}`,
  );

  const rest = text.slice(end + 4);
  if (body === "chunked") return readChunked(rest, limits, log);
  const content = rest.slice(0, contentLength);
  if (content !== "") log.body(Buffer.from(content, "latin1"));
  if (content.length < contentLength) return undefined;
  log.add(endLine(undefined));
  return rest.slice(contentLength);
}

function readFields(
  lines: readonly string[],
  max: number,
  underscores: boolean,
): [string, string][] | undefined {
  if (lines.length > max) return undefined;
  const fields: [string, string][] = [];
  for (const line of lines) {
    const [, name, value] = fieldLine.exec(line) ?? [];
    if (name === undefined || value === undefined || (!underscores && name.includes("_")))
      return undefined;
    fields.push([name, value]);
  }
  return fields;
}

function isHost(value: string): boolean {
  const found = host.exec(value);
  return found !== null && Number(found[1] ?? 0) <= 65_535;
}

function readTarget(method: string, target: string): { path: string; host?: string } | undefined {
  if (method === "CONNECT") return undefined;
  if (target === "*") return method === "OPTIONS" ? { path: "*" } : undefined;
  if (path.test(target)) return { path: target };
  const [, authority, rest] = /^https?:\/\/([^/?]*)(.*)$/i.exec(target) ?? [];
  if (authority === undefined || rest === undefined || !isHost(authority)) return undefined;
  if (rest === "") return { path: method === "OPTIONS" ? "*" : "/", host: authority };
  const whole = rest.startsWith("/") ? rest : `/${rest}`;
  return path.test(whole) ? { path: whole, host: authority } : undefined;
}

function readChunked(text: string, limits: Limits, log: Recorder): string | undefined {
  let rest = text;
  let extensions = 0;
  for (;;) {
    const line = chunkLine.exec(rest);
    if (line === null) return undefined;
    const [all, digits = "", extension = ""] = line;
    if (BigInt(`0x${digits}`) >= 2n ** 53n || extension.length > 256) return undefined;
    extensions += extension === "" ? 0 : extension.length + 1;
    if (extensions > 16_384) return undefined;
    rest = rest.slice(all.length);
    const size = Number.parseInt(digits, 16);
    if (size === 0) return readTrailers(rest, limits, log);
    const content = rest.slice(0, size);
    if (content !== "") log.body(Buffer.from(content, "latin1"));
    if (content.length < size || rest.slice(size, size + 2) !== "\r\n") return undefined;
    rest = rest.slice(size + 2);
  }
}

function readTrailers(text: string, limits: Limits, log: Recorder): string | undefined {
  if (text.startsWith("\r\n")) {
    log.add(endLine(undefined));
    return text.slice(2);
  }
  const end = text.indexOf("\r\n\r\n");
  if (end < 0 || end + 4 > limits.headBytesMax) return undefined;
  const fields = readFields(text.slice(0, end).split("\r\n"), limits.headersMax, false);
  if (fields === undefined) return undefined;
  const late = fields.map(([name]) => name.toLowerCase());
  if (late.some((name) => known.test(name) && !trailerSafe.test(name))) return undefined;
  log.add(endLine(fields.flat()));
  return text.slice(end + 4);
}
