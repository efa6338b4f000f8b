import type { LogReport } from "../audit/hit-log/verify.ts";
import type { LogVerdict } from "../feed/needs.ts";

/** What a walk over a hit log found, as it crosses the feed and the API: without this machine's paths. */
export function verdictOf({ ok, chains, problems }: LogReport): LogVerdict {
  return {
    ok,
    chains: chains.map(
      ({ chain, first, kind, last, lines, lost, ok: isWhole, pruned, torn, writer }) => ({
        chain,
        ok: isWhole,
        ...(writer && {
          writer: [writer.process, writer.name, writer.worker].join(" ").trim(),
        }),
        ...(kind && { kind }),
        lines,
        first,
        last,
        lost,
        torn,
        pruned,
      }),
    ),
    problems,
  };
}
