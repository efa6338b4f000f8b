import { pino } from "pino";
import type { Log } from "../base/log.ts";

/**
 * The program's own log: JSON lines on standard error, `warn` and above unless SALLYPORT_LOG says otherwise. Never given a secret;
 * what could be one by mistake is redacted.
 */
export function programLog(fields: Readonly<Record<string, unknown>>): Log {
  return pino(
    {
      level: process.env.SALLYPORT_LOG ?? "warn",
      base: fields,
      redact: ["*.keyPem", "*.token", "*.secret"],
      timestamp: pino.stdTimeFunctions.isoTime,
    },
    pino.destination({ fd: 2, sync: true }),
  );
}
