import type { NewHit } from "../recorder.ts";

/** No line is longer: every text is cut to its limit, and a character takes six bytes at most. */
export const lineBytesMax = 32 * 1024;

/** Connections and routes whose part of the line is remembered. Beyond it all are forgotten and printed again. */
const rememberedMax = 1024;

type Part<K extends keyof NewHit> = { readonly [P in K]: NewHit[P] | undefined } & {
  readonly bytes: Uint8Array;
};

/**
 * Prints hits of one chain as JSON without the closing brace, by hand and into bytes: building a string first, and flattening
 * it, costs twice as much, `JSON.stringify` four times. Pure ASCII, so that no byte of a stranger's reaches a terminal or
 * splits a line; every text is cut to its limit; a query string is never in it. What stays the same from hit to hit of a
 * connection or a route is printed once.
 */
export class LinePrinter {
  readonly #prefix: Uint8Array;
  readonly #scratch = new Uint8Array(lineBytesMax);
  readonly #what = new Map<string, Part<"plane" | "decision">>();
  readonly #who = new Map<string, Part<"caller" | "serial" | "local" | "gate">>();
  readonly #where = new Map<
    string,
    Part<"service" | "port" | "method" | "upstream" | "snapshot">
  >();

  constructor(chain: string) {
    this.#prefix = Buffer.from(`{"id":"${chain}-`);
  }

  /** Writes at `start`, where there must be `lineBytesMax` bytes of room, and returns the end. */
  print(to: Uint8Array, start: number, sequence: number, hit: NewHit): number {
    to.set(this.#prefix, start);
    let end = putInteger(to, start + this.#prefix.length, sequence);
    end = putInteger(to, put(to, end, '","at":'), hit.at);
    end = this.#printWhat(to, end, hit);
    if (hit.code !== undefined) end = putText(to, end, ',"code":"', hit.code, 64);
    end = this.#printWho(to, end, hit);
    end = this.#printWhere(to, end, hit);
    if (hit.path !== undefined) end = putText(to, end, ',"path":"', withoutQuery(hit.path), 1024);
    if (hit.status !== undefined) end = putInteger(to, put(to, end, ',"status":'), hit.status);
    if (hit.bytesIn !== undefined) end = putInteger(to, put(to, end, ',"bytesIn":'), hit.bytesIn);
    if (hit.bytesOut !== undefined)
      end = putInteger(to, put(to, end, ',"bytesOut":'), hit.bytesOut);
    if (hit.tookMs !== undefined) end = putThousandths(to, put(to, end, ',"tookMs":'), hit.tookMs);
    if (hit.claimed !== undefined) end = putText(to, end, ',"claimed":"', hit.claimed, 256);
    if (hit.of !== undefined) end = putText(to, end, ',"of":"', hit.of, 32);
    if (hit.action !== undefined) end = putText(to, end, ',"action":"', hit.action, 64);
    if (hit.count !== undefined) end = putInteger(to, put(to, end, ',"count":'), hit.count);
    if (hit.canary !== undefined) end = putText(to, end, ',"canary":"', hit.canary, 32);
    if (hit.detail !== undefined)
      end = putText(to, end, ',"detail":"', maskQueries(hit.detail), 512);
    return end;
  }

  #printWhat(to: Uint8Array, start: number, hit: NewHit): number {
    const { decision, kind, plane } = hit;
    let part = this.#what.get(kind);
    if (part === undefined || part.plane !== plane || part.decision !== decision) {
      const bytes = this.#scratch.slice(0, putWhat(this.#scratch, 0, hit));
      part = { plane, decision, bytes };
      remember(this.#what, kind, part);
    }
    to.set(part.bytes, start);
    return start + part.bytes.length;
  }

  #printWho(to: Uint8Array, start: number, hit: NewHit): number {
    const { caller, gate, local, peer, serial } = hit;
    // Strangers come once: remembering them would only drive out the others.
    if (caller === undefined || peer === undefined) return putWho(to, start, hit);
    let part = this.#who.get(peer);
    if (
      part === undefined ||
      part.caller !== caller ||
      part.serial !== serial ||
      part.local !== local ||
      part.gate !== gate
    ) {
      const bytes = this.#scratch.slice(0, putWho(this.#scratch, 0, hit));
      part = { caller, serial, local, gate, bytes };
      remember(this.#who, peer, part);
    }
    to.set(part.bytes, start);
    return start + part.bytes.length;
  }

  #printWhere(to: Uint8Array, start: number, hit: NewHit): number {
    const { method, port, rule, service, snapshot, upstream } = hit;
    if (rule === undefined) return putWhere(to, start, hit);
    let part = this.#where.get(rule);
    if (
      part === undefined ||
      part.service !== service ||
      part.port !== port ||
      part.method !== method ||
      part.upstream !== upstream ||
      part.snapshot !== snapshot
    ) {
      const bytes = this.#scratch.slice(0, putWhere(this.#scratch, 0, hit));
      part = { service, port, method, upstream, snapshot, bytes };
      remember(this.#where, rule, part);
    }
    to.set(part.bytes, start);
    return start + part.bytes.length;
  }
}

function remember<T>(parts: Map<string, T>, key: string, part: T): void {
  if (parts.size >= rememberedMax) parts.clear();
  parts.set(key, part);
}

function putWhat(to: Uint8Array, start: number, hit: NewHit): number {
  let end = putText(to, start, ',"plane":"', hit.plane, 16);
  end = putText(to, end, ',"kind":"', hit.kind, 16);
  return putText(to, end, ',"decision":"', hit.decision, 16);
}

function putWho(to: Uint8Array, start: number, hit: NewHit): number {
  let end = start;
  if (hit.caller !== undefined) end = putText(to, end, ',"caller":"', hit.caller, 256);
  if (hit.serial !== undefined) end = putText(to, end, ',"serial":"', hit.serial, 64);
  if (hit.peer !== undefined) end = putText(to, end, ',"peer":"', hit.peer, 64);
  if (hit.local !== undefined) end = putText(to, end, ',"local":"', hit.local, 64);
  if (hit.gate !== undefined) end = putText(to, end, ',"gate":"', hit.gate, 64);
  return end;
}

function putWhere(to: Uint8Array, start: number, hit: NewHit): number {
  let end = start;
  if (hit.service !== undefined) end = putText(to, end, ',"service":"', hit.service, 256);
  if (hit.port !== undefined) end = putText(to, end, ',"port":"', hit.port, 64);
  if (hit.method !== undefined) end = putText(to, end, ',"method":"', hit.method, 32);
  if (hit.rule !== undefined) end = putText(to, end, ',"rule":"', hit.rule, 128);
  if (hit.upstream !== undefined) end = putText(to, end, ',"upstream":"', hit.upstream, 256);
  if (hit.snapshot !== undefined) end = putText(to, end, ',"snapshot":"', hit.snapshot, 32);
  return end;
}

/** ASCII of our own. */
export function put(to: Uint8Array, start: number, text: string): number {
  let end = start;
  for (let i = 0; i < text.length; i++) to[end++] = text.charCodeAt(i);
  return end;
}

/** A key of ours and any text of anyone's, cut to `charactersMax` with an ellipsis. */
function putText(
  to: Uint8Array,
  start: number,
  key: string,
  text: string,
  charactersMax: number,
): number {
  let end = put(to, start, key);
  const isCut = text.length > charactersMax;
  const length = isCut ? charactersMax - 1 : text.length;
  for (let i = 0; i < length; i++) {
    const unit = text.charCodeAt(i);
    if (unit < 0x20 || unit > 0x7e || unit === 0x22 || unit === 0x5c)
      end = putEscaped(to, end, unit);
    else to[end++] = unit;
  }
  if (isCut) end = putEscaped(to, end, 0x2026);
  to[end++] = 0x22;
  return end;
}

/** One UTF-16 unit by itself: half a surrogate pair is kept as it came and is still valid JSON. */
function putEscaped(to: Uint8Array, start: number, unit: number): number {
  if (unit === 0x22) return put(to, start, '\\"');
  if (unit === 0x5c) return put(to, start, "\\\\");
  return put(to, start, `\\u${unit.toString(16).padStart(4, "0")}`);
}

/** A count or a time: JSON has no NaN and no infinities, and what we count is never negative, so those become 0. */
export function putInteger(to: Uint8Array, start: number, value: number): number {
  if (!(value >= 0 && value <= Number.MAX_SAFE_INTEGER)) return put(to, start, "0");
  // Halves that fit 32-bit arithmetic, which is where the speed is.
  if (value >= 1e9) {
    const high = Math.floor(value / 1e9);
    return putDigits(to, putInteger(to, start, high), Math.floor(value - high * 1e9), 9);
  }
  const whole = Math.floor(value);
  let digits = 1;
  for (let limit = 10; limit <= whole; limit *= 10) digits++;
  return putDigits(to, start, whole, digits);
}

/** Exactly so many digits of an integer below 10^9. */
function putDigits(to: Uint8Array, start: number, value: number, digits: number): number {
  let rest = value | 0;
  for (let i = start + digits - 1; i >= start; i--) {
    const next = (rest / 10) | 0;
    to[i] = 0x30 + rest - next * 10;
    rest = next;
  }
  return start + digits;
}

function putThousandths(to: Uint8Array, start: number, value: number): number {
  const scaled = Math.round(value * 1000);
  if (!(scaled >= 0 && scaled <= Number.MAX_SAFE_INTEGER)) return put(to, start, "0");
  const whole = Math.floor(scaled / 1000);
  const end = putInteger(to, start, whole);
  to[end] = 0x2e;
  return putDigits(to, end + 1, scaled - whole * 1000, 3);
}

/** The path should arrive without it. Cut again here, because a log full of tokens cannot be taken back. */
function withoutQuery(path: string): string {
  const query = path.indexOf("?");
  return query < 0 ? path : path.slice(0, query);
}

/** A detail can hold the first bytes of a plain request: what follows its question mark is not ours to keep. */
function maskQueries(detail: string): string {
  return detail.includes("?") ? detail.replace(/\?\S+/g, "?...") : detail;
}
