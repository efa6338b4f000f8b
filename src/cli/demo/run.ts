import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { splitHostPort } from "../../base/address.ts";
import type { Endpoint } from "../../base/guard.ts";
import { createControlClient } from "../../control/client/client.ts";
import { readCredentials } from "../../identity/credentials/credential-directory.ts";
import { enroll } from "../../identity/enroll/enroll.ts";
import { applyFiles } from "../apply-files.ts";
import { Exit } from "../exit.ts";
import { quoted } from "../first-call.ts";
import { openState } from "../open-state.ts";
import { output } from "../output.ts";
import { programLog } from "../program-log.ts";
import { judge, type Outcome } from "../prove/attempt.ts";
import { findHitIn } from "../prove/find-hit.ts";
import { printOutcome, proofSummary } from "../prove/proof-table.ts";
import { controlName, gateName, startHere } from "../supervisor/start-here.ts";
import { demoAttempts } from "./attempts.ts";
import { expiredLeaf } from "./expired-leaf.ts";
import { demoRegister } from "./register.ts";
import { startServices } from "./services.ts";

const callers = ["web", "orders", "billing", "intern", "ghost"] as const;
const fileName = "sallyport.yaml";

/**
 * `sallyport up --demo`: a control plane, a gate and three services in a temporary directory, real identities, and a table of attempts with
 * what was expected and what happened. Stays up until Ctrl-C unless `once`. Returns the exit code: 0 only when every attempt held.
 */
export async function runDemo(options: { once: boolean; json: boolean }): Promise<0 | 1> {
  const note = options.json ? () => undefined : (text: string) => output.note(text);
  const dir = mkdtempSync(join(tmpdir(), "sallyport-demo-"));
  const services = await startServices();
  const files = (ghost: boolean) => [
    { name: join(dir, fileName), text: demoRegister(services.ports, { ghost }) },
  ];
  writeFileSync(join(dir, fileName), files(false)[0]?.text ?? "");
  const stateDir = openState(join(dir, ".sallyport"));
  const said: string[] = [];
  const supervisor = startHere({
    stateDir,
    files: files(true),
    drainMs: 3_000,
    log: programLog({ demo: true }),
    onLine: (name, line) => said.push(`${name}: ${line}`),
  });
  const stop = new Promise<void>((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
      process.once(signal, () => resolve());
  });
  try {
    note("starting a control plane, a gate and three services …");
    await supervisor.ready;
    const doors = supervisor.doors();
    const data = endpoint(doors[gateName]?.data);
    const control = endpoint(doors[controlName]?.control);
    const adminDir = join(stateDir, "admin");
    const context = JSON.parse(readFileSync(join(adminDir, "context.json"), "utf8")) as {
      api: string;
      trustDomain: string;
    };
    const operator = await readCredentials(adminDir);
    const api = createControlClient({ ...context, credentials: operator, clock: Date.now });
    note("issuing identities to web, orders, billing, intern and ghost …");
    for (const name of callers) {
      const { body } = await api.call("POST", "/v1/tokens", { body: { service: name } });
      await enroll({
        token: (body as { token: string }).token,
        out: join(dir, name),
        clock: Date.now,
      });
    }
    const [web, orders, billing, intern, ghost] = await Promise.all(
      callers.map((name) => readCredentials(join(dir, name))),
    );
    if (!web || !orders || !billing || !intern || !ghost) throw new Error("an identity is missing");
    // Taken out again: its certificate is as valid as before, and worth nothing.
    await applyFiles(adminDir, files(false));
    const expired = await expiredLeaf(stateDir, context.trustDomain, "web");
    const attempts = demoAttempts(
      {
        data,
        control,
        decoy: doors[gateName]?.decoy0 ? endpoint(doors[gateName]?.decoy0) : undefined,
        trustDomain: context.trustDomain,
        allowed: {
          caller: "web",
          credentials: web,
          host: "orders",
          method: "GET",
          path: "/orders/7",
        },
        operator,
        canary: "demo",
      },
      { web, orders, billing, intern, ghost, expired },
      {
        async revokeIntern() {
          await api.call("POST", "/v1/revocations", { body: { principal: "service/intern" } });
        },
      },
    );
    const findHit = findHitIn([
      join(stateDir, "gates", gateName, "hits"),
      join(stateDir, "control", "hits"),
    ]);
    const outcomes: Outcome[] = [];
    for (const attempt of attempts) {
      const outcome = await judge(attempt, findHit);
      outcomes.push(outcome);
      if (!options.json) printOutcome(outcome);
    }
    api.close();
    if (options.json) output.json({ attempts: outcomes });
    else output.line(proofSummary(outcomes));
    if (!options.json) await printWarnings(said);
    if (!options.once) {
      printNext(dir, data);
      await stop;
    }
    return outcomes.every((outcome) => outcome.held) ? 0 : 1;
  } catch (cause) {
    // What the processes had to say about it: until now it was kept back.
    for (const line of said) output.note(line);
    throw cause;
  } finally {
    await supervisor.close();
    await services.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

/** What early warning made of the attempts: the decoy, for one, is nobody's mistake. It goes by control, which takes a moment. */
async function printWarnings(said: readonly string[]): Promise<void> {
  const raised = () =>
    said.filter((line) => line.startsWith("control: ") && line.includes(" detector="));
  for (const deadline = Date.now() + 3_000; raised().length === 0 && Date.now() < deadline; )
    await wait(50);
  for (const line of raised())
    output.line(
      output.paint(
        "yellow",
        `early warning: ${/(?:error|warning): (.*?) process=/.exec(line)?.[1] ?? line}`,
      ),
    );
}

function printNext(dir: string, data: Endpoint): void {
  const as = (name: string) => quoted(join(dir, "web", `${name}.pem`));
  const state = quoted(join(dir, ".sallyport"));
  const register = quoted(join(dir, fileName));
  const sallyport = howItWasStarted();
  output.line(`
It stays up until Ctrl-C. In another terminal, call a service as web:

  curl --cacert ${as("bundle")} --cert ${as("chain")} --key ${as("key")} \\
       --connect-to orders:443:${data.host}:${data.port} https://orders/orders/7

What was recorded, and that nothing in it was changed:

  ${sallyport} hits --state ${state} --limit 20
  ${sallyport} hits verify --state ${state}

Why a call is allowed or refused (the register is ${register}):

  ${sallyport} explain web DELETE orders/orders/7 --file ${register}
`);
}

/** The command that works when pasted into another terminal in this directory; never one that a registry would be asked for. */
function howItWasStarted(): string {
  const path = relative(process.cwd(), process.argv[1] ?? "");
  if (path === join("bin", "sallyport.js")) return `node ${path}`;
  return path === join("node_modules", ".bin", "sallyport") ? "npx sallyport" : "sallyport";
}

function endpoint(text: string | undefined): Endpoint {
  const at = splitHostPort(text ?? "");
  if (!at) throw new Exit(2, "a door did not open", "look at what was logged above");
  return at;
}
