import { writeSync } from "node:fs";
import pino from "pino";
import type { Log } from "../base/log.ts";
import { readSetting } from "./settings.ts";

/**
 * The program's own log on standard error, synchronous, so that the last line before an end is there. Lines for people, or
 * JSON where `SALLYPORT_LOG` says so. `always` is said with every line. No field may hold a secret: nothing is taken out here.
 */
export function programLog(always: object = {}): Log {
  if (readSetting("log") === "json")
    return pino({ base: { pid: process.pid, ...always } }, pino.destination({ fd: 2, sync: true }));
  const write = (level: string, fields: object, message: string): void => {
    const time = new Date(Date.now()).toISOString().slice(11, 19);
    const rest = Object.entries({ ...always, ...fields })
      .filter(([, value]) => value !== undefined)
      .map(
        ([name, value]) => ` ${name}=${typeof value === "string" ? value : JSON.stringify(value)}`,
      )
      .join("");
    // A line break inside a value would let it pose as a line of its own; an escape sequence would reach the terminal.
    const line = `${time} ${level}${message}${rest}`.replace(/\p{Cc}+/gu, " ");
    try {
      writeSync(2, `${line}\n`); // `process.stderr` of a worker thread waits for the main thread
    } catch {
      // Nobody listens any more; the program's own log must not end the program.
    }
  };
  return {
    info: (fields, message) => write("", fields, message),
    warn: (fields, message) => write("warning: ", fields, message),
    error: (fields, message) => write("error: ", fields, message),
  };
}
