import { Command } from "commander";
import { didYouMean } from "../../model/register/nearest.ts";
import type { Register } from "../../model/register.ts";
import { type Explanation, explain } from "../../policy/explain.ts";
import { Exit } from "../exit.ts";
import { loadRegister } from "../load-register.ts";
import { output, table } from "../output.ts";

type Options = { readonly file?: string; readonly json?: boolean; readonly at?: string };

/** `sallyport explain`: 0 allowed, 1 refused, 2 a name that the register does not know or a register that cannot be read. */
export function command(): Command {
  return new Command("explain")
    .description(
      "say whether a call would be let through, by which rule, and why not by the others",
    )
    .argument("<caller>", "name of the calling service")
    .argument("<method>", "GET, POST, …")
    .argument("<target>", "service/path, or the URL that the caller would use")
    .option("-f, --file <path>", "the register (default: sallyport.yaml here or above)")
    .option("--at <time>", "decide for this moment: 2027-03-01 or 2027-03-01T09:00Z (default: now)")
    .option("--json", "print the explanation as JSON")
    .addHelpText(
      "after",
      `
Examples:
  sallyport explain web GET orders/orders/7
  sallyport explain web GET http://orders/orders/7
  sallyport explain billing POST orders/orders --at 2027-03-01T09:00Z
Exit code: 0 allowed, 1 refused, 2 the question or the register is wrong.`,
    )
    .action(run);
}

async function run(
  caller: string,
  method: string,
  target: string,
  options: Options,
): Promise<void> {
  const nowMs = options.at === undefined ? Date.now() : readTime(options.at);
  const upper = method.toUpperCase();
  if (!/^[A-Z][A-Z-]{0,31}$/.test(upper))
    throw new Exit(2, `${JSON.stringify(method)} is not a method`, "write GET, POST, PUT, …");
  const { register } = await loadRegister(options.file);
  const answer = explain(register, { caller: nameOf(caller), method: upper, target, nowMs });
  refuseUnknown(answer, register, nameOf(caller), target);
  if (options.json) output.json({ caller: nameOf(caller), method: upper, target, ...answer });
  else print(nameOf(caller), upper, target, answer);
  process.exitCode = answer.allowed ? 0 : 1;
}

/** The hit log says `service/web`; people paste that. */
function nameOf(caller: string): string {
  return caller.startsWith("service/") ? caller.slice("service/".length) : caller;
}

/** A name nobody knows is a mistake in the question, not a refusal. */
function refuseUnknown(
  answer: Explanation,
  register: Register,
  caller: string,
  target: string,
): void {
  const names = Object.keys(register.services);
  const known = `registered: ${names.join(", ")}`;
  if (!Object.hasOwn(register.services, caller))
    throw new Exit(2, `no service is called ${caller}`, didYouMean(caller, names, known));
  if (answer.code === "bad_host")
    throw new Exit(
      2,
      `cannot read the target ${target}`,
      "write service/path or http://service/path",
    );
  if (answer.code !== "unknown_service") return;
  const host = target.replace(/^https?:\/\//i, "").split(/[/:?]/, 1)[0] ?? "";
  if (Object.hasOwn(register.services, host)) return;
  const hosts = names.flatMap((name) => [
    name,
    ...(register.services[name]?.hosts ?? []),
    ...Object.keys(register.services[name]?.ports ?? {}).map((port) => `${port}.${name}`),
  ]);
  throw new Exit(2, `no service is called ${host}`, didYouMean(host, hosts, known));
}

function print(caller: string, method: string, target: string, answer: Explanation): void {
  const verdict = answer.allowed
    ? output.paint("green", "allowed")
    : output.paint("red", `refused (${answer.code})`);
  output.line(
    `${verdict}  ${caller} ${method} ${target}${answer.rule ? ` by ${answer.rule}` : ""}`,
  );
  if (answer.path)
    output.line(`service ${answer.service}, port ${answer.port}, path ${answer.path}`);
  if (answer.considered.length > 0) {
    const rows = answer.considered.map(({ rule, effect, matched, because }) => [
      rule,
      effect,
      matched ? "yes" : "no",
      because,
    ]);
    output.line();
    output.line(table(rows, ["RULE", "EFFECT", "MATCHES", "BECAUSE"]));
  }
  output.line();
  output.line(answer.hint);
}

/** Fails on what could mean two moments: a time of day needs `Z` or an offset. */
function readTime(text: string): number {
  const form = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:\d\d))?$/;
  const ms = form.test(text) ? Date.parse(text) : Number.NaN;
  if (!(ms > 0))
    throw new Exit(
      2,
      `${JSON.stringify(text)} is not a time`,
      "write 2027-03-01T09:00Z or 2027-03-01T09:00+01:00; a date alone is its midnight in UTC",
    );
  return ms;
}
