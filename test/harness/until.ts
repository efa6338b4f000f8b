import { setTimeout as pause } from "node:timers/promises";

/** Waits until `holds` gives something true and returns it. Throws, naming `what`, when it does not within `withinMs`. */
export async function until<T>(
  what: string,
  holds: () => T | Promise<T>,
  withinMs = 5_000,
): Promise<NonNullable<T>> {
  const end = performance.now() + withinMs;
  for (;;) {
    const found = await holds();
    if (found) return found as NonNullable<T>;
    if (performance.now() > end) throw new Error(`not within ${withinMs} ms: ${what}`);
    await pause(2);
  }
}
