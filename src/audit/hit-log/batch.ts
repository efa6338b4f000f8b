import { hash } from "node:crypto";
import { crc32 } from "node:zlib";
import type { NewHit } from "../recorder.ts";
import { LinePrinter, lineBytesMax, put, putInteger } from "./line.ts";

/** Where every chain begins. */
export const genesis = "0".repeat(64);

/** Length of a head in hex, which is kept in front of the batch so that one call hashes both. */
const headLength = 64;
const bytesAtFirst = 128 * 1024;
const lineEnd = 96;

/**
 * Lines of one chain that wait for one `write(2)`. Each line but the last ends in `,"c":<crc32>}`, which says which line was
 * touched; the last ends in `,"h":"<head>"}`, SHA-256 over the previous head and every byte of the batch before `,"h"`. So a
 * line costs a CRC and a batch costs one hash.
 */
export class Batch {
  readonly #printer: LinePrinter;
  #buffer = Buffer.allocUnsafe(bytesAtFirst);
  #end = headLength;
  /** Where the last line begins, whose end is still open; 0: no line yet. */
  #open = 0;
  #head = genesis;
  #nextHead = genesis;
  /** Last sequence given out. */
  sequence = 0;
  /** Last sequence that was committed. */
  committed = 0;
  /** Sequence of the first line that waits. */
  first = 0;
  /** How many hits wait, those counted in `sum` lines included. */
  hits = 0;

  constructor(chain: string) {
    this.#printer = new LinePrinter(chain);
    this.#buffer.write(genesis, 0, "latin1");
  }

  get head(): string {
    return this.#head;
  }

  get isEmpty(): boolean {
    return this.#open === 0;
  }

  /** Bytes that wait. */
  get length(): number {
    return this.#end - headLength;
  }

  /** Adds one line and returns its sequence. */
  add(hit: NewHit): number {
    this.sequence++;
    this.#reserve(lineBytesMax + 2 * lineEnd);
    if (this.#open === 0) this.first = this.sequence;
    else this.#closeLine();
    this.#open = this.#end;
    this.#end = this.#printer.print(this.#buffer, this.#end, this.sequence, hit);
    this.hits += hit.count ?? 1;
    return this.sequence;
  }

  /** Puts a segment's first line in front of what waits. It has a check of its own and no sequence. */
  lead(header: string): void {
    const text = `${header},"c":${crc32(header)}}\n`;
    this.#reserve(text.length + lineEnd);
    this.#buffer.copyWithin(headLength + text.length, headLength, this.#end);
    this.#buffer.write(text, headLength, "latin1");
    this.#end += text.length;
    this.#open += text.length;
  }

  /** The bytes to write, chained. Valid until the next call of anything else. */
  seal(): Buffer {
    this.#reserve(lineEnd);
    this.#nextHead = hash("sha256", this.#buffer.subarray(0, this.#end), "hex");
    const end = put(this.#buffer, put(this.#buffer, this.#end, ',"h":"'), this.#nextHead);
    this.#end = put(this.#buffer, end, '"}\n');
    return this.#buffer.subarray(headLength, this.#end);
  }

  /** The sealed bytes are on their way: the next batch follows them. */
  commit(): void {
    this.#head = this.#nextHead;
    put(this.#buffer, 0, this.#head);
    this.committed = this.sequence;
    this.#empty();
  }

  /** Forgets what waits. Its sequences are not used again: an id names one line for ever. */
  drop(): void {
    this.#empty();
  }

  #empty(): void {
    this.#end = headLength;
    this.#open = 0;
    this.hits = 0;
  }

  #closeLine(): void {
    const check = crc32(this.#buffer.subarray(this.#open, this.#end));
    const end = putInteger(this.#buffer, put(this.#buffer, this.#end, ',"c":'), check);
    this.#end = put(this.#buffer, end, "}\n");
  }

  #reserve(bytes: number): void {
    if (this.#end + bytes <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#end + bytes));
    this.#buffer.copy(larger, 0, 0, this.#end);
    this.#buffer = larger;
  }
}
