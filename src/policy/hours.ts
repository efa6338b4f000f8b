import type { CompiledHours } from "./view.ts";

const minutesOfDay = 24 * 60;
const dayNames = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/**
 * Whether the wall clock of the zone stands inside the hours. An hour that a change to summer time skips never comes; one that is
 * repeated counts twice. Hours that end at or before their start belong to the day on which they start.
 */
export function isWithin(hours: CompiledHours, nowMs: number): boolean {
  const now = localMinute(hours.zone, nowMs);
  const day = Math.floor(now / minutesOfDay);
  const minute = now % minutesOfDay;
  const { startMinute, endMinute, days } = hours;
  if (endMinute > startMinute)
    return minute >= startMinute && minute < endMinute && days.includes(day);
  return (
    (minute >= startMinute && days.includes(day)) ||
    (minute < endMinute && days.includes((day + 6) % 7))
  );
}

type Reading = { readonly format: Intl.DateTimeFormat; utcMinute: number; localMinute: number };

// One entry a time zone, of which there are some hundreds: registers name them, callers cannot.
const readings = new Map<string, Reading>();

/**
 * Minutes of the zone's wall clock since Sunday, 00:00. Asks `Intl` once a minute and zone: offsets only ever change at whole minutes
 * of UTC, so within one the answer stands, summer time included. Throws a `RangeError` on a zone that is not known.
 */
export function localMinute(zone: string, nowMs: number): number {
  let reading = readings.get(zone);
  if (!reading) {
    const format = new Intl.DateTimeFormat("en-US", {
      timeZone: zone,
      weekday: "short",
      hour: "2-digit",
      minute: "2-digit",
      hourCycle: "h23",
    });
    reading = { format, utcMinute: Number.NaN, localMinute: 0 };
    readings.set(zone, reading);
  }
  const utcMinute = Math.floor(nowMs / 60_000);
  if (reading.utcMinute !== utcMinute) {
    const parts = new Map(reading.format.formatToParts(nowMs).map((p) => [p.type, p.value]));
    const day = dayNames.indexOf(parts.get("weekday") ?? "");
    const minute = Number(parts.get("hour")) * 60 + Number(parts.get("minute"));
    reading.localMinute = day * minutesOfDay + minute;
    reading.utcMinute = utcMinute;
  }
  return reading.localMinute;
}
