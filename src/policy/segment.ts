/** The parts of a path pattern: `/orders/:id/**` is `["orders", ":id"]` and everything below. `/orders/` ends in an empty part. */
export function splitPattern(pattern: string): { segments: readonly string[]; isTree: boolean } {
  if (pattern === "/**") return { segments: [], isTree: true };
  const isTree = pattern.endsWith("/**");
  return { segments: pattern.slice(1, isTree ? -3 : undefined).split("/"), isTree };
}

/** `:id` stands for exactly one segment that is not empty. */
export function isVariable(segment: string): boolean {
  return segment.length > 1 && segment.startsWith(":");
}

/**
 * A number for the characters of `text` from `start` up to `end`, the same for the same characters wherever they stand: lookups cut
 * no strings. Not seeded: only the register puts entries into tables, so callers cannot crowd a bucket.
 */
export function hashSegment(text: string, start: number, end: number): number {
  let hash = 7;
  for (let i = start; i < end; i++) hash = (Math.imul(hash, 31) + text.charCodeAt(i)) & 0x3fffffff;
  return hash;
}
