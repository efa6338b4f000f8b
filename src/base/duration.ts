/** Units people write, in milliseconds, largest first. */
const unitsMs = { d: 86_400_000, h: 3_600_000, m: 60_000, s: 1000, ms: 1 } as const;

/** One hundred years: whatever is longer was not meant. */
const durationMsMax = 36_525 * unitsMs.d;

/**
 * `100ms`, `5s`, `15m`, `1h`, `30d`, and several in falling order as in `1h30m`, to milliseconds.
 * Undefined for anything else: no sign, no fraction, no blank, no bare number, no unit twice, nothing over 100 years.
 */
export function parseDuration(text: string): number | undefined {
  const match =
    /^(?:(\d{1,7})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?(?:(\d{1,12})ms)?$/.exec(text);
  if (!match || text === "") return undefined;
  const [, d, h, m, s, ms] = match;
  const total =
    Number(d ?? 0) * unitsMs.d +
    Number(h ?? 0) * unitsMs.h +
    Number(m ?? 0) * unitsMs.m +
    Number(s ?? 0) * unitsMs.s +
    Number(ms ?? 0);
  return total <= durationMsMax ? total : undefined;
}

/** The shortest text that `parseDuration` reads back as the same: `90000` is `1m30s`, `0` is `0s`. Rounds to whole ms. */
export function formatDuration(durationMs: number): string {
  let rest = Math.max(0, Math.round(durationMs));
  let text = "";
  for (const [unit, unitMs] of Object.entries(unitsMs)) {
    const count = Math.floor(rest / unitMs);
    if (count > 0) text += `${count}${unit}`;
    rest -= count * unitMs;
  }
  return text || "0s";
}

/** So many in so long. */
export type Rate = { readonly count: number; readonly perMs: number };

/** `100/s`, `5/m`, `1000/h`. Undefined for anything else; the count is 1 to 10,000,000. */
export function parseRate(text: string): Rate | undefined {
  const match = /^(\d{1,8})\/(s|m|h)$/.exec(text);
  const count = Number(match?.[1] ?? 0);
  if (!match || count < 1 || count > 10_000_000) return undefined;
  return { count, perMs: unitsMs[match[2] as "s" | "m" | "h"] };
}

/** `{ count: 100, perMs: 1000 }` is `100/s`. */
export function formatRate(rate: Rate): string {
  for (const unit of ["s", "m", "h"] as const)
    if (rate.perMs === unitsMs[unit]) return `${rate.count}/${unit}`;
  return `${rate.count}/${formatDuration(rate.perMs)}`;
}
