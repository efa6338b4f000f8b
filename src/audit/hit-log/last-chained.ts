import type { ChainHead } from "../../model/chain-head.ts";

const chainedLine = /^\{"id":"([a-z2-7]{8,10})-(\d{1,15})".*,"h":"([0-9a-f]{64})"\}$/;

/**
 * The last line in a segment's end that closes a batch: up to there a chain counts. Lines behind it, and a last line without its
 * line break, were torn. Undefined: none is in this text. `isCut`: the text's first line may have begun before it.
 */
export function lastChained(text: string, isCut: boolean): ChainHead | undefined {
  const lines = text.split("\n");
  for (let i = lines.length - 2; i >= (isCut ? 1 : 0); i--) {
    const [, chain = "", sequence, head = ""] = chainedLine.exec(lines[i] ?? "") ?? [];
    if (sequence !== undefined) return { chain, sequence: Number(sequence), head };
  }
  return undefined;
}
