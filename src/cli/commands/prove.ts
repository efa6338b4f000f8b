import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { Command } from "commander";
import { splitHostPort } from "../../base/address.ts";
import { readCredentials } from "../../identity/credentials/credential-directory.ts";
import { enroll } from "../../identity/enroll/enroll.ts";
import type { Hit } from "../../model/hit.ts";
import type { Register } from "../../model/register.ts";
import { type Context, findContext, withContext, withContextOption } from "../context.ts";
import { Exit } from "../exit.ts";
import { output } from "../output.ts";
import { type Attempt, type FindHit, judge, type Outcome } from "../prove/attempt.ts";
import { shown, standardAttempts } from "../prove/attempts.ts";
import { printOutcome, proofSummary } from "../prove/proof-table.ts";
import { request } from "../prove/request.ts";
import { type Sample, samplesOf } from "../prove/samples.ts";
import { speak } from "../prove/speak.ts";

type Options = { readonly context?: string; readonly gate?: string; readonly json?: boolean };
type Gate = {
  readonly name: string;
  readonly connected: boolean;
  readonly addresses: readonly string[];
};

const canary = "prove";

/** `sallyport prove`: the demo's proof against one's own register and running gates. */
export function command(): Command {
  return withContextOption(new Command("prove"))
    .description("try what your register allows and what must never work, against a running gate")
    .option("--gate <name>", "which gate (default: every one that is connected)")
    .option("--json", "print the attempts as JSON")
    .addHelpText(
      "after",
      `
Sends only GET and HEAD, marks every request with "Sallyport-Canary: prove", and looks each one up in the hit log. The callers'
identities are made for it, with tokens that are recorded, and their keys are thrown away at the end.

Examples:
  sallyport prove
  sallyport prove --gate local --json
Exit code: 0 everything ended as it should; 1 something did not; 2 there is nothing to try; 3 no control plane.`,
    )
    .action(run);
}

async function run(options: Options): Promise<void> {
  await withContext(options, async (context) => {
    const { register } = (await context.call("GET", "/v1/register")).body as { register: Register };
    const { gates } = (await context.call("GET", "/v1/gates")).body as { gates: readonly Gate[] };
    const samples = samplesOf(register, Date.now());
    const first = samples.find((sample) => sample.rule !== undefined);
    if (first === undefined)
      throw new Exit(
        2,
        "no rule of the register lets anybody read anything, so there is nothing harmless to try",
        "add a rule with methods: [GET], or try by hand with sallyport explain",
      );
    const chosen = gates.filter(
      (gate) => gate.connected && (options.gate ?? gate.name) === gate.name,
    );
    if (chosen.length === 0)
      throw new Exit(
        2,
        options.gate === undefined
          ? "no gate is connected"
          : `no gate "${options.gate}" is connected`,
        "sallyport status shows the gates",
      );
    const outcomes: Outcome[] = [];
    const keys = mkdtempSync(join(tmpdir(), "sallyport-prove-"));
    try {
      const identities = await enrolCallers(context, samples, keys);
      const operator = await readCredentials(findContext(options.context));
      const findHit = findHitThrough(context);
      for (const gate of chosen) {
        const data = endpoint(gate.addresses[0]);
        const attempts = [
          ...samples.map((sample) => sampleAttempt(sample, data, identities)),
          ...standardAttempts({
            data,
            control: endpoint(context.api.replace(/^https:\/\//, "")),
            decoy: undefined,
            trustDomain: context.trustDomain,
            allowed: { ...first, credentials: known(identities, first.caller) },
            operator,
            canary,
          }),
        ];
        if (!options.json && chosen.length > 1) output.line(`\n${gate.name}`);
        for (const attempt of attempts) {
          const outcome = await judge(attempt, findHit);
          outcomes.push(outcome);
          if (!options.json) printOutcome(outcome);
        }
      }
    } finally {
      rmSync(keys, { recursive: true, force: true });
    }
    if (options.json) output.json({ attempts: outcomes });
    else output.line(proofSummary(outcomes));
    process.exitCode = outcomes.every((outcome) => outcome.held) ? 0 : 1;
  });
}

type Identities = ReadonlyMap<string, Awaited<ReturnType<typeof readCredentials>>>;

/** A leaf for each caller, by the road that every caller takes. */
async function enrolCallers(
  context: Context,
  samples: readonly Sample[],
  keys: string,
): Promise<Identities> {
  const identities = new Map<string, Awaited<ReturnType<typeof readCredentials>>>();
  for (const caller of new Set(samples.map((sample) => sample.caller))) {
    const { body } = await context.call("POST", "/v1/tokens", { body: { service: caller } });
    const { token } = body as { token: string };
    const out = join(keys, caller);
    await enroll({ token, out, clock: Date.now });
    identities.set(caller, await readCredentials(out));
  }
  return identities;
}

function sampleAttempt(
  sample: Sample,
  data: ReturnType<typeof endpoint>,
  identities: Identities,
): Attempt {
  const { caller, code, host, method, path, rule } = sample;
  const bytes = request(method, path, host, { canary });
  return {
    name: `${caller} ${method} ${host}${path}${rule === undefined ? "" : ` (${rule})`}`,
    expected: code === undefined ? {} : { status: 403, code },
    run: () => speak(data, bytes, shown(known(identities, caller))),
  };
}

/** Asks control, which asks the gates. */
function findHitThrough(context: Context): FindHit {
  return async (which) => {
    const query = "id" in which ? { id: which.id } : { ...which, decision: "refused" };
    for (const deadline = Date.now() + 3_000; Date.now() < deadline; await wait(50)) {
      const { body } = await context.call("GET", "/v1/hits", { query: { ...query, limit: 1 } });
      const [hit] = (body as { hits: Hit[] }).hits;
      if (hit !== undefined) return hit;
    }
    return undefined;
  };
}

function known(identities: Identities, caller: string) {
  const found = identities.get(caller);
  if (found === undefined) throw new Exit(2, `${caller} has no identity`);
  return found;
}

function endpoint(text: string | undefined) {
  const at = splitHostPort(text ?? "");
  if (at === undefined) throw new Exit(2, `not an address: ${text ?? "none"}`, "sallyport status");
  return at;
}
