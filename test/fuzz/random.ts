/** A number in [0, 1) after another, the same for the same seed. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function below(random: () => number, limit: number): number {
  return Math.floor(random() * limit);
}

export function pick<T>(random: () => number, items: readonly T[]): T {
  const item = items[below(random, items.length)];
  if (item === undefined) throw new RangeError("nothing to pick from");
  return item;
}

const words = [
  "\r\n",
  "\n",
  "\r",
  "\r\n\r\n",
  " ",
  "\t",
  "\0",
  ":",
  ";",
  ",",
  "=",
  '"',
  "_",
  "\x80",
  "\xff",
  "\x7f",
  "0",
  "a",
  "F",
  "Content-Length: 5\r\n",
  "Content-Length: 0\r\n",
  "content-length:3\r\n",
  "Transfer-Encoding: chunked\r\n",
  "transfer-encoding:\tchunked\r\n",
  "Host: a\r\n",
  "Connection: close\r\n",
  "Connection: x, y\r\n",
  "Expect: 100-continue\r\n",
  "X_A: 1\r\n",
  "Content_Length: 1\r\n",
  "Sallyport_Caller: x\r\n",
  "Upgrade: h2c\r\n",
  " folded\r\n",
  "chunked",
  "HTTP/1.0",
  "HTTP/1.1",
  "http://a/",
  "https://a/",
  "0\r\n\r\n",
  "3\r\nabc\r\n",
  "5;x=y\r\nhello\r\n",
  "ffffffffffffffff",
  "10000000000000001",
  "20000000000000",
  "1fffffffffffff\r\n",
  "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
  "204",
  "304",
  "HTTP/1.1 200 OK\r\n",
  "Keep-Alive: timeout=5\r\n",
] as const;

/** A few changes to `text`: octets flipped, words put in, parts cut out, doubled or moved, two texts spliced. */
export function mutate(random: () => number, text: string, others: readonly string[]): string {
  let mutant = text;
  for (let times = 1 + below(random, 3); times > 0; times -= 1) {
    const at = below(random, mutant.length + 1);
    const to = Math.min(mutant.length, at + 1 + below(random, random() < 0.8 ? 4 : 40));
    const before = mutant.slice(0, at);
    switch (below(random, 7)) {
      case 0:
        mutant = before + String.fromCharCode(below(random, 256)) + mutant.slice(at + 1);
        break;
      case 1:
        mutant = before + pick(random, words) + mutant.slice(at);
        break;
      case 2:
        mutant = before + mutant.slice(to);
        break;
      case 3:
        mutant = mutant.slice(0, to) + mutant.slice(at);
        break;
      case 4:
        mutant = before + pick(random, others).slice(-below(random, 60));
        break;
      case 5: {
        // Lines, because that is where fields meet their duplicates.
        const lines = mutant.split("\r\n");
        const line = pick(random, lines);
        lines.splice(below(random, lines.length), random() < 0.5 ? 1 : 0, line);
        mutant = lines.join("\r\n");
        break;
      }
      default: {
        const lines = mutant.split("\r\n");
        lines.splice(1 + below(random, lines.length), 0, pick(random, words).replace(/\r\n$/, ""));
        mutant = lines.join("\r\n");
      }
    }
  }
  return mutant;
}

/** Up to four places to cut at, in order. */
export function randomCuts(random: () => number, length: number): number[] {
  const cuts = Array.from({ length: 1 + below(random, 4) }, () => below(random, length + 1));
  return [...new Set(cuts)].sort((a, b) => a - b);
}
