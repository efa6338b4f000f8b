import { resolve } from "node:path";
import { Command } from "commander";
import { parseCidr, suggestCidr } from "../../base/address.ts";
import { parseDuration } from "../../base/duration.ts";
import { demandWritable, writeFileDurably } from "../../identity/durable-files.ts";
import { tokenLifeMs } from "../../model/issued.ts";
import { isName } from "../../model/principal.ts";
import { distance, withContext, withContextOption } from "../context.ts";
import { Exit } from "../exit.ts";
import { quoted } from "../first-call.ts";
import { output, table } from "../output.ts";

type Options = { readonly context?: string; readonly api?: string; readonly json?: boolean };
type CreateOptions = Options & {
  readonly service?: string;
  readonly gate?: string;
  readonly role?: string;
  readonly name?: string;
  readonly owner?: readonly string[];
  readonly for?: readonly string[];
  readonly from?: readonly string[];
  readonly ttl?: string;
  readonly out?: string;
};

type Token = {
  readonly id: string;
  readonly principal: string;
  readonly role?: string;
  readonly createdBy: string;
  readonly expiresMs: number;
  readonly from: readonly string[];
  readonly spentMs?: number;
};

/** `sallyport token create | list | delete`. */
export function command(): Command {
  const token = new Command("token")
    .description("make, list and void single-use enrolment tokens")
    .addHelpText(
      "after",
      `
Examples:
  sallyport token create --service web --out web.token
  sallyport token list
  sallyport token delete 0948dc2f9ebf0ca1
Exit code: 0 done; 1 refused; 2 wrong usage; 3 no control plane.`,
    );
  token.addCommand(
    withContextOption(new Command("create"))
      .description("make a token with which a service, a gate or an operator enrols once")
      .option("--service <name>", "a service of the register")
      .option("--gate <name>", "a gate")
      .option("--role <role>", "admin, deployer, enroller or auditor; needs --name")
      .option("--name <name>", "of the operator")
      .option("--owner <owners...>", "for a deployer: owners whose services it may change")
      .option(
        "--for <services...>",
        "for an enroller: services it may make tokens for; * is every one",
      )
      .option("--from <ranges...>", "networks the enrolment must come from, as in 10.20.0.0/16")
      .option("--ttl <duration>", "how long it may be used (default: 10m; 1m to 24h)")
      .option("--out <file>", "write it there (0600) instead of to standard output")
      .option("--json", "print { token, record } as JSON")
      .addHelpText(
        "after",
        `
Examples:
  sallyport token create --service web --out web.token
  sallyport token create --gate g1 --out g1.token --ttl 1h
  sallyport token create --role auditor --name ann --out ann.token
  sallyport token create --role deployer --name ci --owner commerce finance --out ci.token
The token is shown once. Exit code: 0 made; 1 refused; 2 wrong usage; 3 no control plane.`,
      )
      .exitOverride()
      .action(create),
  );
  token.addCommand(
    withContextOption(new Command("list"))
      .description("list tokens that have not expired; never their secrets")
      .option("--json", "print an array of tokens as JSON")
      .addHelpText(
        "after",
        `
Examples:
  sallyport token list
  sallyport token list --json
Exit code: 0 shown; 1 refused; 2 wrong usage; 3 no control plane.`,
      )
      .exitOverride()
      .action(list),
  );
  token.addCommand(
    withContextOption(new Command("delete"))
      .description("make a token void")
      .argument("<id>", "as token list shows it")
      .option("--json", "print { deleted } as JSON")
      .addHelpText(
        "after",
        `
Examples:
  sallyport token delete 0948dc2f9ebf0ca1
The id is what token list shows. Exit code: 0 void; 1 refused; 2 wrong usage; 3 no control plane.`,
      )
      .exitOverride()
      .action(remove),
  );
  return token;
}

async function create(options: CreateOptions): Promise<void> {
  const { service, gate, role, name } = options;
  if ([service, gate, role].filter((given) => given !== undefined).length !== 1)
    throw new Exit(
      2,
      "a token is for one: --service, --gate or --role",
      "sallyport token create --service web --out web.token",
    );
  if ((role === undefined) !== (name === undefined))
    throw new Exit(2, "--role and --name go together", "--role auditor --name ann");
  if (options.owner && role !== "deployer") throw new Exit(2, "--owner is for --role deployer");
  if (options.for && role !== "enroller") throw new Exit(2, "--for is for --role enroller");
  const named = { "--service": service, "--gate": gate, "--name": name };
  for (const [option, given] of Object.entries(named))
    if (given !== undefined && !isName(given))
      throw new Exit(2, `${option} "${given}" is no name`, "1 to 63 of a-z, 0-9 and inner hyphens");
  for (const each of options.for ?? [])
    if (each !== "*" && !isName(each))
      throw new Exit(
        2,
        `--for "${each}" is no name of a service`,
        '--for web orders, or --for "*"',
      );
  for (const each of options.from ?? []) refuseNoRange(each);
  const ttlMs = options.ttl === undefined ? undefined : readLife(options.ttl);
  const { out } = options;
  if (out !== undefined) await keptFor(out, () => demandWritable(resolve(out)));
  const body = {
    ...(service !== undefined && { service }),
    ...(gate !== undefined && { gate }),
    ...(role !== undefined && { role, name, owners: options.owner, services: options.for }),
    from: options.from,
    ttlMs,
  };
  await withContext(options, async (context) => {
    const reply = await context.call("POST", "/v1/tokens", { body });
    const made = reply.body as { token: string; record: Token };
    if (out !== undefined)
      await keptFor(
        out,
        () => writeFileDurably(resolve(out), `${made.token}\n`),
        `its token was made: sallyport token delete ${made.record.id}, and make another`,
      );
    if (options.json) {
      // With --out the secret is in the file, and only there.
      output.json(options.out === undefined ? made : { record: made.record, out: options.out });
      return;
    }
    if (options.out === undefined) output.line(made.token);
    const file = quoted(options.out ?? "FILE");
    const { principal, expiresMs } = made.record;
    output.note(
      `for ${principal}, once, until ${new Date(expiresMs).toISOString()} (${distance(expiresMs, Date.now())})`,
    );
    output.note(
      gate === undefined
        ? `use it with: sallyport enroll --token-file ${file} --out ${principal.split("/")[1]}`
        : `use it with: sallyport gate --name ${gate} --join-token-file ${file}`,
    );
  });
}

/** 1m to 24h. Throws `Exit`. */
function readLife(text: string): number {
  const { min, max } = tokenLifeMs;
  const ttlMs = parseDuration(text);
  if (ttlMs !== undefined && ttlMs >= min && ttlMs <= max) return ttlMs;
  const wrong = ttlMs === undefined ? "no duration" : ttlMs > max ? "too long" : "too short";
  throw new Exit(2, `--ttl "${text}" is ${wrong}: a token lives from 1m to 24h`, "write --ttl 1h");
}

function refuseNoRange(text: string): void {
  if (parseCidr(text) !== undefined) return;
  const meant = suggestCidr(text);
  throw new Exit(
    2,
    `--from "${text}" is no range of addresses`,
    meant === undefined ? "write --from 10.20.0.0/16" : `did you mean ${meant}?`,
  );
}

/** What the file system says no to, in a sentence. Throws `Exit`. */
async function keptFor(
  out: string,
  work: () => Promise<void>,
  hint = "no token was made; name a file in a directory that is there with --out",
): Promise<void> {
  try {
    await work();
  } catch (cause) {
    throw new Exit(2, `cannot write ${out}: ${(cause as Error).message}`, hint);
  }
}

async function list(options: Options): Promise<void> {
  await withContext(options, async (context) => {
    const { tokens } = (await context.call("GET", "/v1/tokens")).body as { tokens: Token[] };
    if (options.json) return output.json(tokens);
    if (tokens.length === 0) return output.note("there are no tokens that can still be used");
    const now = Date.now();
    const rows = tokens.map(({ id, principal, role, createdBy, expiresMs, from, spentMs }) => [
      id,
      principal,
      role ?? "",
      createdBy,
      distance(expiresMs, now),
      spentMs === undefined ? "unused" : `used ${distance(spentMs, now)}`,
      from.join(" "),
    ]);
    output.line(table(rows, ["ID", "FOR", "ROLE", "BY", "EXPIRES", "STATE", "FROM"]));
  });
}

async function remove(id: string, options: Options): Promise<void> {
  if (!/^[0-9a-f]{16,64}$/.test(id))
    throw new Exit(
      2,
      `"${id}" is no token's id`,
      "sallyport token list shows them; the token itself is never an argument",
    );
  await withContext(options, async (context) => {
    const { body } = await context.call("DELETE", `/v1/tokens/${id}`);
    if (options.json) output.json(body);
    else output.line(`void: ${id}`);
  });
}
