import type { NewHit } from "../recorder.ts";

/**
 * The JSON of one hit without its closing brace, built by hand: `JSON.stringify` costs more than the write. Pure ASCII, so that
 * no byte of a stranger's reaches a terminal or splits a line; every text is cut to its limit; a query string is never in it.
 */
export function lineOf(prefix: string, sequence: number, hit: NewHit): string {
  let line = `${prefix}${sequence}","at":${numeral(hit.at)},"plane":"${hit.plane}","kind":"${hit.kind}","decision":"${hit.decision}"`;
  if (hit.code !== undefined) line += `,"code":"${plain(hit.code, 64)}"`;
  if (hit.caller !== undefined) line += `,"caller":"${plain(hit.caller, 256)}"`;
  if (hit.claimed !== undefined) line += `,"claimed":"${plain(hit.claimed, 256)}"`;
  if (hit.serial !== undefined) line += `,"serial":"${plain(hit.serial, 64)}"`;
  if (hit.peer !== undefined) line += `,"peer":"${plain(hit.peer, 64)}"`;
  if (hit.local !== undefined) line += `,"local":"${plain(hit.local, 64)}"`;
  if (hit.gate !== undefined) line += `,"gate":"${plain(hit.gate, 64)}"`;
  if (hit.service !== undefined) line += `,"service":"${plain(hit.service, 256)}"`;
  if (hit.port !== undefined) line += `,"port":"${plain(hit.port, 64)}"`;
  if (hit.method !== undefined) line += `,"method":"${plain(hit.method, 32)}"`;
  if (hit.path !== undefined) line += `,"path":"${plain(withoutQuery(hit.path), 1024)}"`;
  if (hit.rule !== undefined) line += `,"rule":"${plain(hit.rule, 128)}"`;
  if (hit.status !== undefined) line += `,"status":${numeral(hit.status)}`;
  if (hit.upstream !== undefined) line += `,"upstream":"${plain(hit.upstream, 256)}"`;
  if (hit.snapshot !== undefined) line += `,"snapshot":"${plain(hit.snapshot, 32)}"`;
  if (hit.bytesIn !== undefined) line += `,"bytesIn":${numeral(hit.bytesIn)}`;
  if (hit.bytesOut !== undefined) line += `,"bytesOut":${numeral(hit.bytesOut)}`;
  if (hit.tookMs !== undefined)
    line += `,"tookMs":${numeral(Math.round(hit.tookMs * 1000) / 1000)}`;
  if (hit.of !== undefined) line += `,"of":"${plain(hit.of, 32)}"`;
  if (hit.action !== undefined) line += `,"action":"${plain(hit.action, 64)}"`;
  if (hit.count !== undefined) line += `,"count":${numeral(hit.count)}`;
  if (hit.canary !== undefined) line += `,"canary":"${plain(hit.canary, 32)}"`;
  if (hit.detail !== undefined) line += `,"detail":"${plain(maskQueries(hit.detail), 512)}"`;
  return line;
}

/** JSON has no NaN and no infinities: they become 0, which no counter or time of ours is by accident. */
function numeral(value: number): number {
  return Number.isFinite(value) ? value : 0;
}

/** The text as it may stand between JSON quotes. Most texts are plain already, and a loop finds that out fastest. */
export function plain(text: string, charactersMax: number): string {
  const kept = text.length > charactersMax ? `${text.slice(0, charactersMax - 1)}\u2026` : text;
  for (let i = 0; i < kept.length; i++) {
    const unit = kept.charCodeAt(i);
    if (unit < 0x20 || unit > 0x7e || unit === 0x22 || unit === 0x5c) return escaped(kept, i);
  }
  return kept;
}

/** Each UTF-16 unit by itself, so that half a surrogate pair is kept as it came and is still valid JSON. */
function escaped(text: string, from: number): string {
  let result = text.slice(0, from);
  for (let i = from; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit === 0x22) result += '\\"';
    else if (unit === 0x5c) result += "\\\\";
    else if (unit < 0x20 || unit > 0x7e) result += `\\u${unit.toString(16).padStart(4, "0")}`;
    else result += text[i];
  }
  return result;
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
