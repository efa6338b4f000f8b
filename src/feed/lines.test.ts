import assert from "node:assert/strict";
import { test } from "node:test";
import { lineCutter } from "./lines.ts";

test("lines are the same wherever the bytes are cut", () => {
  const bytes = Buffer.from('{"a":"ä€𝄞"}\n\n{"b":2}\r\nrest');
  for (let size = 1; size <= bytes.length; size += 1) {
    const lines: string[] = [];
    const cutter = lineCutter(64, (line) => lines.push(line));
    for (let at = 0; at < bytes.length; at += size) cutter.push(bytes.subarray(at, at + size));
    assert.deepEqual(lines, ['{"a":"ä€𝄞"}', "", '{"b":2}\r'], `pieces of ${size}`);
    assert.equal(cutter.unfinishedBytes, 4);
  }
});

test("a line of exactly the limit passes, one byte more does not, with or without its end", () => {
  for (const [bytes, fits] of [
    ["xxxx\n", true],
    ["xxxxx\n", false],
    ["xxxxx", false],
    ["\nxxxx", true],
  ] as const) {
    for (let size = 1; size <= bytes.length; size += 1) {
      const feed = (): void => {
        const cutter = lineCutter(4, () => {});
        for (let at = 0; at < bytes.length; at += size)
          cutter.push(Buffer.from(bytes.slice(at, at + size)));
      };
      if (fits) feed();
      else assert.throws(feed, /longer than 4 bytes/);
    }
  }
});

test("bytes that are not UTF-8 are no line", () => {
  for (const bytes of [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xe2, 0x82]])
    assert.throws(() => lineCutter(64, () => {}).push(Buffer.from([...bytes, 10])), /not UTF-8/);
});

test("a line that comes byte by byte is whole, and the next one too", () => {
  const line = Array.from({ length: 20_000 }, (_, i) => String.fromCharCode(97 + (i % 26))).join(
    "",
  );
  const lines: string[] = [];
  const cutter = lineCutter(line.length, (one) => lines.push(one));
  for (const byte of Buffer.from(`${line}\nb\n${line}\n`)) cutter.push(Buffer.from([byte]));
  assert.deepEqual(lines, [line, "b", line]);
});
