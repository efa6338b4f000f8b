import { Refusal } from "../../model/refusal.ts";
import { parseHost } from "../../policy/host.ts";
import { canonicalPath } from "../../policy/path.ts";
import type { CompiledPort, View } from "../../policy/view.ts";
import type { RequestHead } from "../../wire/http1/request-parser.ts";

/** Where a request goes and what exactly will be asked for there: what is matched here is what is forwarded. */
export type Target = {
  readonly port: CompiledPort;
  /** Canonical host, lower case, no port. */
  readonly host: string;
  readonly method: string;
  /** Canonical path: matched, recorded and forwarded. */
  readonly path: string;
  /** With its `?`, or empty: forwarded, never recorded. */
  readonly query: string;
};

const strictPath = { encodedSlash: false };

/** Whose door the request means. Fails closed: a host that names no gated port. */
export function findPort(head: RequestHead, view: View): CompiledPort {
  const host = hostOf(head);
  const port = view.routes.get(host);
  if (port === undefined) throw new Refusal("unknown_service", `no gated port is named ${host}`);
  return port;
}

/** Fails closed: a path that two parsers could read differently, a method we do not speak, a connection opened for somebody else. */
export function findTarget(
  head: RequestHead,
  port: CompiledPort,
  sni: string | undefined,
  view: View,
): Target {
  const host = hostOf(head);
  misdirected(sni, port, view);
  mustBeSpoken(head.method);
  const canonical = canonicalPath(head.path, port.accept ?? strictPath);
  if (canonical === undefined) throw new Refusal("bad_path", "the path is not canonical");
  return { port, host, method: head.method, path: canonical.path, query: canonical.query };
}

/**
 * Fails closed: beside what tunnels and echoes, every method with a small letter. Methods are case-sensitive (RFC 9110 section 9.1), so no
 * rule matches `delete`, a denial of `DELETE` included; servers that put methods in upper case would then do what was denied.
 */
function mustBeSpoken(method: string): void {
  if (method === "CONNECT" || method === "TRACE" || method !== method.toUpperCase())
    throw new Refusal("method_not_supported", method);
}

/** A connection opened for one service must not be used to reach another (RFC 9110 section 7.4). */
function misdirected(sni: string | undefined, port: CompiledPort, view: View): void {
  if (sni === undefined) return;
  const meant = view.routes.get(sni);
  if (meant !== undefined && meant !== port)
    throw new Refusal("misdirected", `the handshake named ${sni}`);
}

// A caller sends the same Host on every request: parsed once, looked up after.
const knownHosts = new Map<string, string>();
const knownHostsMost = 4_096;

function hostOf({ host: text = "" }: RequestHead): string {
  const known = knownHosts.get(text);
  if (known !== undefined) return known;
  const parsed = parseHost(text);
  if (parsed === undefined) throw new Refusal("bad_host", "no usable Host");
  if (knownHosts.size < knownHostsMost) knownHosts.set(copyOf(text), copyOf(parsed.host));
  return parsed.host;
}

/** The same characters by themselves: a piece that V8 sliced keeps the whole request head in memory that it was cut out of. */
function copyOf(text: string): string {
  return Buffer.from(text, "latin1").toString("latin1");
}
