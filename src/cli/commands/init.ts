import { writeFile } from "node:fs/promises";
import { userInfo } from "node:os";
import { cancel, confirm, intro, isCancel, outro, text } from "@clack/prompts";
import { Command } from "commander";
import { BadInput } from "../../base/problem.ts";
import { isName, isTrustDomain } from "../../model/principal.ts";
import { checkRegister } from "../../policy/lint/check-register.ts";
import { Exit } from "../exit.ts";
import { type FirstRegister, writeFirstRegister } from "../first-register.ts";
import { registerFile } from "../load-register.ts";
import { output } from "../output.ts";

type Options = {
  readonly trustDomain?: string;
  readonly owner?: string;
  readonly service: readonly string[];
  readonly allow: readonly string[];
  readonly out: string;
  readonly yes?: boolean;
  readonly force?: boolean;
  readonly json?: boolean;
};

/** `sallyport init`: writes a first register that passes `check`, by asking or by flags. */
export function command(): Command {
  const collect = (value: string, all: readonly string[]) => [...all, value];
  return new Command("init")
    .description("write a first register, by asking or by flags")
    .option("--trust-domain <name>", "what every identity begins with, such as shop.internal")
    .option("--owner <name>", "who answers for the services (default: your user name)")
    .option(
      "--service <name=port>",
      "a service and where it listens: orders=9001, orders=[::1]:9001, orders=unix:/run/orders.sock, or web for one that only calls; repeatable",
      collect,
      [],
    )
    .option("--allow <caller:service>", "who may call whom; repeatable", collect, [])
    .option("--out <file>", "where to write it", registerFile)
    .option("--yes", "ask nothing; without --service: two services to start from")
    .option("--force", "replace a file that is there")
    .option("--json", "print { out, trustDomain, services, allow } as JSON; asks nothing")
    .addHelpText(
      "after",
      `
Examples:
  sallyport init
  sallyport init --trust-domain shop.internal --service web --service orders=9001 --allow web:orders --yes
Exit code: 0 written, 2 not written.`,
    )
    .action(run);
}

async function run(options: Options): Promise<void> {
  const asks = !options.yes && options.service.length === 0;
  if (asks && (options.json || !(process.stdin.isTTY && output.isTerminal)))
    throw new Exit(
      2,
      options.json ? "with --json nothing is asked" : "there is no terminal to ask on",
      "say --service name=port (and --allow caller:service), or --yes for two services to start from",
    );
  const first = asks ? await askForAll(options) : fromFlags(options);
  const written = writeFirstRegister(first);
  const { problems } = checkRegister([{ name: options.out, text: written }], Date.now());
  // What was asked for may contradict itself; nothing that `check` refuses is written.
  if (problems.some((problem) => problem.severity === "error"))
    throw new BadInput(problems.filter((problem) => problem.severity === "error"));
  await write(options, written);
  const { trustDomain, services, allow } = first;
  if (options.json) return output.json({ out: options.out, trustDomain, services, allow });
  output.line(`wrote ${options.out}: ${services.map((each) => each.name).join(", ")}`);
  output.note(`next: sallyport check${options.out === registerFile ? "" : ` ${options.out}`}`);
}

async function write(options: Options, written: string): Promise<void> {
  try {
    await writeFile(options.out, written, { flag: options.force ? "w" : "wx" });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "EEXIST")
      throw new Exit(
        2,
        `${options.out} is there already`,
        "--force replaces it; --out names another",
      );
    throw new Exit(
      2,
      `cannot write ${options.out}: ${code ?? String(cause)}`,
      "name a file in a directory that is there, and where you may write, with --out",
    );
  }
}

function fromFlags(options: Options): FirstRegister {
  const example = options.service.length === 0;
  const services = example ? ["web", "orders=9001"] : options.service;
  const allow = example && options.allow.length === 0 ? ["web:orders"] : options.allow;
  return {
    trustDomain: checked(
      options.trustDomain ?? "example.internal",
      isTrustDomain,
      "--trust-domain",
    ),
    owner: ownerOf(options),
    services: readServices(services),
    allow: readAllow(allow, readServices(services)),
  };
}

function ownerOf(options: Options): string {
  if (options.owner !== undefined) return options.owner;
  try {
    return userInfo().username || "somebody";
  } catch {
    return "somebody"; // a container's user may have no name
  }
}

function readServices(texts: readonly string[]): FirstRegister["services"] {
  const services = texts.map((each) => {
    const at = each.indexOf("=");
    const name = checked(at < 0 ? each : each.slice(0, at), isName, "--service");
    const target = at < 0 ? undefined : each.slice(at + 1);
    if (target === undefined) return { name };
    if (
      target === "" ||
      (/^\d+$/.test(target) && !(Number(target) >= 1 && Number(target) <= 65_535))
    )
      throw new Exit(2, `${each}: a port is a number from 1 to 65535`, `--service ${name}=9001`);
    return { name, upstream: /^\d+$/.test(target) ? `127.0.0.1:${target}` : target };
  });
  const twice = services.find(
    (each, i) => services.findIndex((other) => other.name === each.name) < i,
  );
  if (twice) throw new Exit(2, `the service ${twice.name} is named twice`);
  return services;
}

function readAllow(
  texts: readonly string[],
  services: FirstRegister["services"],
): FirstRegister["allow"] {
  return texts.map((each) => {
    const [caller = "", service = "", more] = each.split(":");
    if (more !== undefined || service === "")
      throw new Exit(2, `--allow ${each} is not caller:service`, "write --allow web:orders");
    for (const name of [caller, service])
      if (!services.some((known) => known.name === name))
        throw new Exit(
          2,
          `--allow ${each}: ${name} is no service of this register`,
          `add --service ${name}`,
        );
    if (!services.find((known) => known.name === service)?.upstream)
      throw new Exit(
        2,
        `--allow ${each}: ${service} offers nothing that could be called`,
        `say where it listens: --service ${service}=9001`,
      );
    return { caller, service };
  });
}

function checked(value: string, isRight: (value: string) => boolean, flag: string): string {
  if (isRight(value)) return value;
  throw new Exit(
    2,
    `${flag} ${JSON.stringify(value)} cannot be used`,
    flag === "--trust-domain"
      ? "lower-case dotted labels, such as shop.internal"
      : "1 to 63 of a-z, 0-9 and inner hyphens",
  );
}

async function askForAll(options: Options): Promise<FirstRegister> {
  intro("A first register: every internal port, and who may reach it.");
  const trustDomain = await ask({
    message: "Trust domain: what every identity begins with",
    initialValue: options.trustDomain ?? "example.internal",
    validate: (value) =>
      isTrustDomain(value ?? "") ? undefined : "lower-case dotted labels, such as shop.internal",
  });
  const owner = await ask({
    message: "Who answers for these services?",
    initialValue: ownerOf(options),
    validate: (value) => ((value ?? "").trim() === "" ? "a team or a person" : undefined),
  });
  const services: FirstRegister["services"][number][] = [];
  for (;;) {
    const written = await ask({
      message:
        services.length === 0
          ? "A service and where it listens, name=port (or a name alone, if it only calls)"
          : "Another service (nothing: that was all)",
      placeholder: services.length === 0 ? "orders=9001" : "web",
      validate: (value) => {
        if (!value) return services.length === 0 ? "one at least" : undefined;
        return said(() => readServices([...services.map((each) => each.name), value]));
      },
    });
    if (written === "") break;
    services.push(...readServices([written]));
  }
  const allow: FirstRegister["allow"][number][] = [];
  for (const service of services.filter((each) => each.upstream !== undefined))
    for (const caller of services) {
      if (caller === service) continue;
      const answer = await confirm({ message: `May ${caller.name} call ${service.name}?` });
      if (isCancel(answer)) return stop();
      if (answer) allow.push({ caller: caller.name, service: service.name });
    }
  outro("That is all.");
  return { trustDomain, owner, services, allow };
}

async function ask(question: Parameters<typeof text>[0]): Promise<string> {
  const answer = await text(question);
  return isCancel(answer) ? stop() : (answer ?? "").trim();
}

function stop(): never {
  cancel("Nothing was written.");
  throw new Exit(2, "");
}

/** The sentence of what was thrown, for the prompt to show. */
function said(attempt: () => unknown): string | undefined {
  try {
    attempt();
    return undefined;
  } catch (cause) {
    return cause instanceof Error ? cause.message : String(cause);
  }
}
