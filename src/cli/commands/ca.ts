import { Command } from "commander";
import { distance, withContext, withContextOption } from "../context.ts";
import { Exit } from "../exit.ts";
import { output, table } from "../output.ts";

type Options = { readonly context?: string; readonly api?: string; readonly json?: boolean };
type RotateOptions = Options & {
  readonly prepare?: boolean;
  readonly activate?: boolean;
  readonly retire?: boolean;
  readonly plane: string;
  readonly force?: boolean;
};

type Root = { readonly fingerprint: string; readonly notAfterMs: number };
type Authority = {
  readonly plane: string;
  readonly step: "steady" | "prepared" | "activated";
  readonly active: Root;
  readonly next?: Root;
  readonly previous?: Root;
  readonly readyAtMs?: number;
};

/** `sallyport ca status | rotate`. */
export function command(): Command {
  const ca = new Command("ca")
    .description("look at the two certificate authorities, and rotate them")
    .addHelpText(
      "after",
      `
Examples:
  sallyport ca status
  sallyport ca rotate --prepare
Exit code: 0 done; 1 refused; 2 wrong usage; 3 no control plane.`,
    );
  ca.addCommand(
    withContextOption(new Command("status"))
      .description("show both authorities and where their rotation stands")
      .option("--json", "print an array of authorities as JSON")
      .addHelpText(
        "after",
        `
Examples:
  sallyport ca status
  sallyport ca status --json
Exit code: 0 shown; 1 refused; 2 wrong usage; 3 no control plane.`,
      )
      .exitOverride()
      .action(status),
  );
  ca.addCommand(
    withContextOption(new Command("rotate"))
      .description("take one step of a rotation; traffic flows throughout")
      .option("--prepare", "make a new root, and have everybody trust it beside the old one")
      .option("--activate", "sign with the new root")
      .option("--retire", "stop trusting the old root, and delete its keys")
      .option("--plane <plane>", "data, control or both", "both")
      .option("--force", "do not wait until everybody has had time to follow")
      .option("--json", "print an array of authorities as JSON")
      .addHelpText(
        "after",
        `
Examples:
  sallyport ca rotate --prepare
  sallyport ca rotate --activate
  sallyport ca rotate --retire --plane data
Exit code: 0 done; 1 refused (wrong order, or too early); 2 wrong usage; 3 no control plane.`,
      )
      .exitOverride()
      .action(rotate),
  );
  return ca;
}

async function status(options: Options): Promise<void> {
  await withContext(options, async (context) => {
    const { authorities } = (await context.call("GET", "/v1/authorities")).body as {
      authorities: Authority[];
    };
    print(authorities, options);
  });
}

async function rotate(options: RotateOptions): Promise<void> {
  const steps = (["prepare", "activate", "retire"] as const).filter((step) => options[step]);
  const [step] = steps;
  if (steps.length !== 1 || !step)
    throw new Exit(
      2,
      "say one step: --prepare, --activate or --retire",
      "sallyport ca status says which is next",
    );
  if (!["data", "control", "both"].includes(options.plane))
    throw new Exit(2, `--plane "${options.plane}" is no plane`, "data, control or both");
  await withContext(options, async (context) => {
    const stopWaiting = step === "prepare" ? () => {} : showWaiting();
    const reply = await context
      .call("POST", "/v1/authorities/rotate", {
        body: { step, plane: options.plane, force: options.force === true },
        timeoutMs: 60_000,
      })
      .finally(stopWaiting);
    const { authorities, behind } = reply.body as { authorities: Authority[]; behind: string[] };
    print(authorities, options);
    for (const gate of behind)
      output.note(
        `gate ${gate} did not follow in time: sallyport status says more; if it cannot renew, let it join again: sallyport token create --gate ${gate}`,
      );
  });
}

/** At a terminal: that connected gates are waited for, and for how long already. Returns what takes the line away again. */
function showWaiting(): () => void {
  if (!process.stderr.isTTY) return () => {};
  const startMs = performance.now();
  const timer = setInterval(() => {
    const seconds = Math.round((performance.now() - startMs) / 1_000);
    process.stderr.write(`\r\u001b[Kwaiting until connected gates have followed: ${seconds} s`);
  }, 1_000);
  return () => {
    clearInterval(timer);
    process.stderr.write("\r\u001b[K");
  };
}

function print(authorities: readonly Authority[], options: Options): void {
  if (options.json) return output.json(authorities);
  const now = Date.now();
  const rows = authorities.flatMap(({ plane, step, active, next, previous, readyAtMs }) => {
    const ready =
      readyAtMs === undefined ? "" : readyAtMs <= now ? "ready" : distance(readyAtMs, now);
    const after = {
      steady: "rotate --prepare",
      prepared: "rotate --activate",
      activated: "rotate --retire",
    }[step];
    const row = (root: Root | undefined, role: string, comes = "") =>
      root
        ? [
            [
              plane,
              role,
              root.fingerprint.slice(0, 16),
              `ends ${distance(root.notAfterMs, now)}`,
              comes,
            ],
          ]
        : [];
    return [
      ...row(active, "signs", [after, ready].filter(Boolean).join(", ")),
      ...row(next, "trusted, signs next"),
      ...row(previous, "trusted still"),
    ];
  });
  output.line(table(rows, ["PLANE", "ROOT", "FINGERPRINT", "", "NEXT STEP"]));
}
