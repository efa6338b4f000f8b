/** The candidate that was probably meant, or undefined when none is near: at most a third of the letters differ. */
export function nearest(text: string, candidates: Iterable<string>): string | undefined {
  if (text.length > 64) return undefined; // The work is quadratic, and nobody mistypes that much.
  const wanted = text.toLowerCase();
  const mistakesMax = Math.max(1, Math.floor(text.length / 3));
  let best: string | undefined;
  let bestDistance = mistakesMax + 1;
  for (const candidate of candidates) {
    const distance = editDistance(wanted, candidate.toLowerCase(), bestDistance);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** `did you mean "orders"?`, else what `otherwise` says. */
export function didYouMean(
  text: string,
  candidates: Iterable<string>,
  otherwise?: string,
): string | undefined {
  const near = nearest(text, candidates);
  return near === undefined ? otherwise : `did you mean ${JSON.stringify(near)}?`;
}

/** Damerau–Levenshtein, optimal string alignment: two letters swapped are one mistake. Gives up at `limit`. */
function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit) return limit;
  let before: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let least = Math.min(
        (previous[j] ?? 0) + 1,
        (row[j - 1] ?? 0) + 1,
        (previous[j - 1] ?? 0) + (same ? 0 : 1),
      );
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        least = Math.min(least, (before[j - 2] ?? 0) + 1);
      row.push(least);
    }
    [before, previous] = [previous, row];
  }
  return previous[b.length] ?? limit;
}
