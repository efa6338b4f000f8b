import type { Measured } from "./load.ts";

/** Where and under what circumstances it was measured. */
export type Machine = {
  readonly cores: number;
  readonly model: string;
  readonly kernel: string;
  readonly node: string;
  readonly openssl: string;
  /** Processes that ran or wanted to, over the minute before and at the end. The bench itself keeps about two busy. */
  readonly loadBefore: number;
  readonly loadAfter: number;
  readonly stolenMs: number;
};

export type Report = {
  /** ISO 8601. */
  readonly at: string;
  readonly options: {
    readonly rounds: number;
    readonly seconds: number;
    readonly connections: number;
  };
  readonly machine: Machine;
  /** The gate first. Each has one window a round. */
  readonly peers: readonly {
    readonly name: string;
    readonly version: string;
    readonly windows: readonly Measured[];
  }[];
};

type Summary = {
  readonly name: string;
  readonly version: string;
  /** CPU time a request, µs. */
  readonly us: Spread;
  readonly userUs: number;
  readonly systemUs: number;
  readonly perSecond: number;
  /** How much more than that peer in the same round: over 1 is dearer. */
  readonly toHaproxy: Spread | undefined;
  readonly toNode: Spread | undefined;
};

type Spread = { readonly median: number; readonly min: number; readonly max: number };

const ours = "sallyport";
const goals = { haproxy: 1.5, "node:https + undici": 0.65 } as const;

export function summarize(report: Report): Summary[] {
  return report.peers.map((peer) => ({
    name: peer.name,
    version: peer.version,
    us: spread(peer.windows.map(usOf)),
    userUs: spread(peer.windows.map((one) => (one.userMs * 1_000) / one.requests)).median,
    systemUs: spread(peer.windows.map((one) => (one.systemMs * 1_000) / one.requests)).median,
    perSecond: spread(peer.windows.map((one) => (one.requests * 1_000) / one.wallMs)).median,
    toHaproxy: ratio(report, peer, "haproxy"),
    toNode: ratio(report, peer, "node:https + undici"),
  }));
}

/** The numbers in Markdown. */
export function table(report: Report): string {
  const { machine, options } = report;
  const rows = summarize(report).map((one) => [
    `${one.name} ${one.version}`,
    `**${one.us.median.toFixed(1)}**`,
    `${one.us.min.toFixed(1)} – ${one.us.max.toFixed(1)}`,
    `${one.userUs.toFixed(1)} + ${one.systemUs.toFixed(1)}`,
    show(one.toHaproxy),
    show(one.toNode),
    String(Math.round(one.perSecond)),
  ]);
  const cipher = report.peers[0]?.windows[0]?.cipher ?? "";
  return [
    `Measured ${report.at.slice(0, 16).replace("T", " ")} UTC: ${options.rounds} rounds of ${options.seconds} s each, ${options.connections} connections, ${cipher}.`,
    `${machine.cores} cores of ${machine.model}, Linux ${machine.kernel}, Node ${machine.node} with OpenSSL ${machine.openssl}.`,
    `Load average ${machine.loadBefore.toFixed(1)} before and ${machine.loadAfter.toFixed(1)} after (the bench itself keeps about two processes busy); ${(machine.stolenMs / 1_000).toFixed(1)} s were taken by the hypervisor.`,
    "",
    ...aligned([
      [
        "proxy",
        "µs CPU a request, median",
        "lowest – highest round",
        "user + system",
        "to HAProxy",
        "to node:https + undici",
        "requests a second",
      ],
      ...rows,
    ]),
    "",
    ...verdicts(report),
  ].join("\n");
}

/** A table whose columns stand below each other, as the formatter wants them. */
function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]?.map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0))) ?? [];
  const [head = "", ...lines] = rows.map(
    (row) => `| ${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(" | ")} |`,
  );
  return [head, `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`, ...lines];
}

/** Replaces what stands between the two markers. Throws when they are not there. */
export function withNumbers(readme: string, numbers: string): string {
  const [before, rest] = readme.split("<!-- numbers -->");
  const after = rest?.split("<!-- /numbers -->")[1];
  if (before === undefined || after === undefined)
    throw new Error("README.md has lost the markers that its numbers go between");
  return `${before}<!-- numbers -->\n\n${numbers}\n\n<!-- /numbers -->${after}`;
}

/** A bar for each median, with a line from the lowest to the highest round. */
export function chart(report: Report): string {
  const all = summarize(report);
  const left = 190;
  const width = 470;
  const most = Math.max(...all.map((one) => one.us.max)) * 1.02;
  const at = (us: number) => left + (us / most) * width;
  const rowHeight = 44;
  const top = 52;
  const bars = all.map((one, i) => {
    const y = top + i * rowHeight;
    const middle = y + 13;
    const end = at(one.us.median).toFixed(1);
    const label = `${one.us.median.toFixed(1)} µs`;
    return `  <text x="${left - 10}" y="${y + 18}" text-anchor="end">${one.name}</text>
  <rect x="${left}" y="${y}" width="${(at(one.us.median) - left).toFixed(1)}" height="26" rx="3" fill="${one.name === ours ? "#1f6feb" : "#9aa4b2"}"/>
  <path d="M${at(one.us.min).toFixed(1)} ${middle}H${at(one.us.max).toFixed(1)}M${at(one.us.min).toFixed(1)} ${middle - 5}v10M${at(one.us.max).toFixed(1)} ${middle - 5}v10" stroke="#24292f" stroke-width="1.5"/>
  <text x="${Math.max(Number(end), at(one.us.max)) + 8}" y="${y + 18}" class="number">${label}</text>`;
  });
  const height = top + all.length * rowHeight + 12;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 ${height}" width="760" height="${height}" role="img" aria-labelledby="title">
  <title id="title">CPU time of the proxy per request: ${all.map((one) => `${one.name} ${one.us.median.toFixed(1)} µs`).join(", ")}</title>
  <style>text { font: 14px system-ui, sans-serif; fill: #24292f } .number { font-weight: 600 } .small { font-size: 12px; fill: #57606a }</style>
  <rect width="100%" height="100%" fill="#ffffff"/>
  <text x="${left}" y="22" class="number">CPU time of the proxy per request, lower is better</text>
  <text x="${left}" y="40" class="small">keep-alive GET, mutual TLS 1.3, access log on; line: lowest to highest round</text>
${bars.join("\n")}
</svg>
`;
}

function verdicts(report: Report): string[] {
  const [gate] = summarize(report);
  if (gate?.name !== ours) return [];
  const judge = (peer: keyof typeof goals, is: Spread | undefined): string[] =>
    is === undefined
      ? []
      : [
          `- Goal: at most ${goals[peer]} × ${peer}. ${is.median <= goals[peer] ? "Held" : "**Missed**"}: ${is.median.toFixed(2)} ×.`,
        ];
  return [...judge("haproxy", gate.toHaproxy), ...judge("node:https + undici", gate.toNode)];
}

/** Round by round, so that what slowed the machine down slowed both down. */
function ratio(
  report: Report,
  peer: Report["peers"][number],
  toName: keyof typeof goals,
): Spread | undefined {
  const to = report.peers.find((one) => one.name === toName);
  if (to === undefined) return undefined;
  return spread(
    peer.windows.flatMap((window, round) => {
      const other = to.windows[round];
      return other === undefined ? [] : [usOf(window) / usOf(other)];
    }),
  );
}

function usOf(window: Measured): number {
  return ((window.userMs + window.systemMs) * 1_000) / window.requests;
}

function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  const low = sorted[Math.floor(middle)] ?? Number.NaN;
  const high = sorted[Math.ceil(middle)] ?? Number.NaN;
  return {
    median: (low + high) / 2,
    min: sorted[0] ?? Number.NaN,
    max: sorted.at(-1) ?? Number.NaN,
  };
}

function show(value: Spread | undefined): string {
  return value === undefined ? "–" : `${value.median.toFixed(2)} ×`;
}
