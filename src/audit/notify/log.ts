import type { Log } from "../../base/log.ts";
import type { Warning } from "../../model/warning.ts";

/** Tells the program's own log. */
export function notifyLog(log: Log): (warning: Warning) => void {
  return (warning) => {
    const { count, detector, gate, hits, id, severity, says } = warning;
    const fields = { warning: id, detector, severity, count, hits, gate };
    if (severity === "info") log.info(fields, says);
    else if (severity === "warning") log.warn(fields, says);
    else log.error(fields, says);
  };
}
