import { Command } from "commander";
import { distance, withContext, withContextOption } from "../context.ts";
import { gateTroubles, shutDoors } from "../gate-troubles.ts";
import { output, table } from "../output.ts";

type Options = { readonly context?: string; readonly api?: string; readonly json?: boolean };

type Status = {
  readonly you: { readonly principal: string; readonly role: string };
  readonly trustDomain?: string;
  readonly snapshot?: {
    readonly name: string;
    readonly author: string;
    readonly at: number;
    readonly services: number;
    readonly revocations: number;
  };
  readonly hitLog: { readonly writable: boolean };
  readonly gates: readonly {
    readonly name: string;
    readonly connected: boolean;
    readonly lastSeen?: number;
    readonly running: { readonly epoch: number; readonly version: number } | null;
    readonly runningSince?: number;
    readonly behind?: number;
    readonly problem?: { readonly message: string; readonly code: string };
    readonly addresses: readonly string[];
    readonly counters?: Readonly<Record<string, unknown>>;
  }[];
  readonly identities: readonly {
    readonly principal: string;
    readonly plane: string;
    readonly notAfterMs: number;
    readonly state: "fresh" | "due" | "dark";
    readonly retiredRoot?: true;
  }[];
  readonly authorities: readonly { readonly plane: string; readonly step: string }[];
  readonly warnings: readonly {
    readonly severity: "info" | "warning" | "critical";
    readonly says: string;
    readonly at: number;
    readonly count: number;
    readonly gate?: string;
  }[];
  readonly notes: readonly string[];
};

/** `sallyport status`: 0 all is well, 1 something needs a person, 2 wrong usage, 3 no control plane. */
export function command(): Command {
  return withContextOption(new Command("status"))
    .description("say how control, gates and identities are, and what can be gone around")
    .option("--json", "print everything as JSON")
    .addHelpText(
      "after",
      `
Examples:
  sallyport status
  sallyport status --json
Exit code: 0 all is well; 1 a gate is away, behind, in trouble or not serving, an identity went dark, or hits cannot be written
(callers whose root was retired by force are listed, and do not count);
2 wrong usage; 3 no control plane.`,
    )
    .action(run);
}

async function run(options: Options): Promise<void> {
  await withContext(options, async (context) => {
    const status = (await context.call("GET", "/v1/status")).body as Status;
    process.exitCode = isWell(status) ? 0 : 1;
    if (options.json) return output.json(status);
    const now = Date.now();
    printControl(status, context.api, now);
    printGates(status, now);
    printIdentities(status, now);
    printRest(status, now);
  });
}

function isWell({ gates, hitLog, identities, snapshot }: Status): boolean {
  return (
    snapshot !== undefined &&
    hitLog.writable &&
    gates.every(
      (gate) =>
        gate.connected &&
        !gate.problem &&
        (gate.behind ?? 1) === 0 &&
        gateTroubles(gate).length === 0,
    ) &&
    // Callers that a forced retirement left behind are listed; somebody chose that. A gate nobody meant to lose.
    identities.every(
      ({ principal, retiredRoot, state }) =>
        state !== "dark" || (retiredRoot && !principal.startsWith("gate/")),
    )
  );
}

function printControl(
  { you, trustDomain, snapshot, hitLog }: Status,
  api: string,
  now: number,
): void {
  output.line(`${output.paint("bold", "control")}  ${api}, you are ${you.principal} (${you.role})`);
  if (snapshot)
    output.line(
      `  ${trustDomain}: snapshot ${snapshot.name}, ${distance(snapshot.at, now)} by ${snapshot.author}; ${snapshot.services} services, ${snapshot.revocations} revocations`,
    );
  else output.line("  no register was applied yet: sallyport apply");
  if (!hitLog.writable)
    output.line(
      `  ${output.paint("red", "hits cannot be written: only revoke, rollback and ca rotate work; free space where control's hit log lies, and it goes on by itself")}`,
    );
}

function printGates({ gates }: Status, now: number): void {
  output.line();
  output.line(output.paint("bold", "gates"));
  if (gates.length === 0)
    return output.line("  none is enrolled: sallyport token create --gate NAME");
  const rows = gates.map((gate) => {
    const state = !gate.connected
      ? output.paint(
          "red",
          `away${gate.lastSeen === undefined ? "" : `, seen ${distance(gate.lastSeen, now)}`}`,
        )
      : gateTroubles(gate).length > 0
        ? output.paint("red", "not serving")
        : gate.problem || gate.behind
          ? output.paint("yellow", "in trouble")
          : output.paint("green", "connected");
    const running = gate.running ? `${gate.running.epoch}.${gate.running.version}` : "none";
    const behind = gate.behind ? `, ${gate.behind} behind` : "";
    const since =
      gate.runningSince === undefined ? "" : `since ${distance(gate.runningSince, now)}`;
    return [
      `  ${gate.name}`,
      state,
      `snapshot ${running}${behind}`,
      since,
      plain(gate.addresses.join(" ")),
    ];
  });
  output.line(table(rows));
  for (const gate of gates) {
    const { name, problem } = gate;
    for (const trouble of gateTroubles(gate))
      output.line(`  ${output.paint("red", name)}: ${trouble}`);
    for (const why of shutDoors(gate)) output.line(`  ${name}: a door is shut: ${plain(why)}`);
    if (problem)
      output.line(`  ${name} refused a snapshot (${problem.code}): ${plain(problem.message)}`);
  }
}

function printIdentities({ identities }: Status, now: number): void {
  const [first] = identities;
  if (!first) return;
  output.line();
  output.line(output.paint("bold", "identities"));
  const soon = identities.filter(({ state }) => state !== "fresh");
  if (soon.length === 0)
    return output.line(
      `  all are renewed in time; the first would go dark ${distance(first.notAfterMs, now)} (${first.principal})`,
    );
  const rows = soon.map(({ principal, plane, notAfterMs, retiredRoot, state }) => [
    `  ${principal}`,
    plane,
    retiredRoot
      ? output.paint("red", `its root was retired: ${rejoin(principal)}`)
      : state === "dark"
        ? output.paint("red", `dark since ${distance(notAfterMs, now)}`)
        : output.paint("yellow", `goes dark ${distance(notAfterMs, now)}, and was not renewed`),
  ]);
  output.line(table(rows));
}

/** How somebody comes in again whose certificate cannot be renewed. */
function rejoin(principal: string): string {
  const [kind, name] = principal.split("/");
  return `sallyport token create --${kind} ${name}, then ${kind === "gate" ? "start it with the token" : "enroll"}`;
}

function printRest({ authorities, notes, warnings }: Status, now: number): void {
  const rotating = authorities.filter(({ step }) => step !== "steady");
  for (const { plane, step } of rotating)
    output.line(`\n${plane} authority: a rotation is under way (${step}); sallyport ca status`);
  if (warnings.length > 0) {
    output.line();
    output.line(output.paint("bold", "warnings"));
    const colours = { info: "dim", warning: "yellow", critical: "red" } as const;
    for (const { severity, says, at, count, gate } of warnings.slice(0, 20)) {
      const where = gate === undefined ? "" : ` (gate ${gate})`;
      const often = count > 1 ? `, ${count} times` : "";
      output.line(
        `  ${output.paint(colours[severity], severity)}: ${plain(says)}${where}, ${distance(at, now)}${often}`,
      );
    }
    if (warnings.length > 20) output.line(`  and ${warnings.length - 20} more: --json shows all`);
  }
  if (notes.length === 0) return;
  output.line();
  output.line(output.paint("bold", "to know"));
  for (const note of notes) output.line(`  ${plain(note)}`);
}

/** Warnings quote what strangers sent, gates say what they like: shown, never obeyed. */
function plain(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu, "?");
}
