import { Command } from "commander";
import { parseDuration } from "../../base/duration.ts";
import { withContext, withContextOption } from "../context.ts";
import { Exit } from "../exit.ts";
import { output } from "../output.ts";

type Options = {
  readonly context?: string;
  readonly api?: string;
  readonly json?: boolean;
  readonly serial?: string;
  readonly plane?: string;
  readonly wait?: string | true;
};

/** `sallyport revoke`: 0 revoked, 1 refused or (with --wait) not confirmed everywhere, 2 wrong usage, 3 no control plane. */
export function command(): Command {
  return withContextOption(new Command("revoke"))
    .description(
      "stop admitting a principal, or one certificate with all that were renewed from it",
    )
    .argument("[principal]", "kind/name: service/web, gate/g1, admin/ann")
    .option("--serial <hex>", "one certificate, with its whole line of renewals")
    .option("--plane <plane>", "of the serial: data or control (default: whichever has it)")
    .option(
      "--wait [duration]",
      "wait for every gate to confirm, and fail when one has not (default: 10s)",
    )
    .option("--json", "print { revocation, snapshot, tokens, confirmed, missing } as JSON")
    .addHelpText(
      "after",
      `
Examples:
  sallyport revoke service/web
  sallyport revoke service/web --wait
  sallyport revoke --serial 74afa1f99bdce5a8aabaa64a728cb190
Connected gates cut what is open within a second. The principal may enrol again with a new token; to keep a
service out for good, take it out of the register as well.
Exit code: 0 revoked; 1 refused, or with --wait a gate has not confirmed; 2 wrong usage; 3 no control plane.`,
    )
    .action(run);
}

async function run(principal: string | undefined, options: Options): Promise<void> {
  const { serial, plane } = options;
  if ((principal === undefined) === (serial === undefined))
    throw new Exit(
      2,
      "name a principal or a --serial, one of the two",
      "sallyport revoke service/web",
    );
  if (plane !== undefined && plane !== "data" && plane !== "control")
    throw new Exit(2, `--plane "${plane}" is no plane`, "data or control");
  const waitMs = waitOf(options.wait);
  const body = serial === undefined ? { principal } : { serial: serialOf(serial), plane };
  await withContext(options, async (context) => {
    const reply = await context.call("POST", "/v1/revocations", { body, query: { waitMs } });
    const done = reply.body as {
      revocation: { principal: string; serial?: string };
      tokens: number;
      confirmed: string[];
      missing: string[];
    };
    if (options.json) output.json(done);
    else {
      const { principal: whom, serial: which } = done.revocation;
      output.line(`revoked: ${whom}${which ? `, serial ${which} and all renewed from it` : ""}`);
      if (done.confirmed.length > 0) output.note(`confirmed by ${done.confirmed.join(", ")}`);
      if (done.tokens > 0) output.note(`enrolment tokens that are void now: ${done.tokens}`);
    }
    if (done.missing.length === 0) return;
    const says = `not confirmed by ${done.missing.join(", ")}: it may still be admitted there`;
    if (options.wait !== undefined)
      throw new Exit(
        1,
        says,
        "sallyport status says which gates are away; one that comes back gets it first of all",
      );
    output.note(`warning: ${says}`);
  });
}

/** However openssl, browsers and the hit log write it. */
function serialOf(text: string): string {
  const serial = text
    .toLowerCase()
    .replaceAll(":", "")
    .replace(/^(serial=|0x)/, "");
  if (/^[0-9a-f]{1,40}$/.test(serial)) return serial;
  throw new Exit(
    2,
    `--serial "${text}" is no serial`,
    "1 to 40 hex digits, as sallyport hits --json and openssl x509 -serial print them",
  );
}

function waitOf(wait: string | true | undefined): number {
  if (wait === undefined) return 1_000;
  const waitMs = wait === true ? 10_000 : parseDuration(wait);
  if (waitMs === undefined || waitMs > 30_000)
    throw new Exit(2, `--wait "${wait}" is no duration up to 30s`, "write 5s");
  return waitMs;
}
