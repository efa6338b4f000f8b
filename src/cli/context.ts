import { existsSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import type { Command } from "commander";
import { splitHostPort } from "../base/address.ts";
import { formatDuration } from "../base/duration.ts";
import {
  ApiRefused,
  ApiUnreachable,
  type CallOptions,
  type ControlClient,
  createControlClient,
  type Reply,
} from "../control/client/client.ts";
import {
  CredentialsUnusable,
  readCredentials,
  type StoredCredentials,
} from "../identity/credentials/credential-directory.ts";
import { writeFileDurably } from "../identity/durable-files.ts";
import { parsePrincipal, shortName } from "../model/principal.ts";
import { Exit } from "./exit.ts";
import { output } from "./output.ts";
import { printProblems } from "./print-problems.ts";
import { readSetting } from "./settings.ts";

/** A control plane that commands talk to, and as whom. */
export type Context = {
  /** `https://127.0.0.1:7440`. */
  readonly api: string;
  /** Short form: `admin/first`. */
  readonly principal: string;
  readonly trustDomain: string;
  /** Throws `Exit`: 3 when nobody is there, 1 when refused, with every problem printed. */
  call(
    method: Parameters<ControlClient["call"]>[0],
    path: string,
    more?: CallOptions,
  ): Promise<Reply>;
  /** As `call`, but a refusal is thrown as `ApiRefused`, for the caller to look at. */
  ask(
    method: Parameters<ControlClient["call"]>[0],
    path: string,
    more?: CallOptions,
  ): Promise<Reply>;
};

/** The option that every command with a control plane has. */
export function withContextOption(command: Command): Command {
  return command
    .option(
      "--context <dir>",
      "credentials and address of the control plane (default: SALLYPORT_CONTEXT, else the nearest .sallyport/admin)",
    )
    .option(
      "--api <url>",
      "its address, once, for credentials that were just enrolled: kept in the context",
    );
}

/** Finds the context, does the work with it, and releases its connections. Throws `Exit`. */
export async function withContext<T>(
  options: { readonly context?: string; readonly api?: string },
  work: (context: Context) => Promise<T>,
): Promise<T> {
  const dir = findContext(options.context, options.api !== undefined);
  const credentials = await readCredentials(dir).catch((cause) => {
    if (cause instanceof CredentialsUnusable) throw new Exit(2, cause.message, cause.hint);
    throw cause;
  });
  const written =
    options.api === undefined ? readContextFile(dir) : newContext(options.api, credentials);
  const { api, principal, trustDomain } = written;
  const client = createControlClient({ api, trustDomain, credentials, clock: () => Date.now() });
  const ask: Context["ask"] = async (method, path, more) => {
    try {
      const reply = await client.call(method, path, more);
      // Only once it has answered: an address with a slip in it is not worth keeping.
      if (options.api !== undefined)
        await writeFileDurably(join(dir, "context.json"), `${JSON.stringify(written, null, 2)}\n`);
      return reply;
    } catch (cause) {
      if (cause instanceof ApiUnreachable) throw new Exit(3, cause.message, cause.hint);
      throw cause;
    }
  };
  const parts = parsePrincipal(principal);
  try {
    return await work({
      api,
      principal: parts ? shortName(parts) : principal,
      trustDomain,
      ask,
      call: async (...asked) => {
        try {
          return await ask(...asked);
        } catch (cause) {
          throw cause instanceof ApiRefused ? refusal(cause, dir) : cause;
        }
      },
    });
  } finally {
    client.close();
  }
}

/** What the control plane said no to, in the words of the command line. Prints its problems. */
export function refusal(cause: ApiRefused, dir?: string): Exit {
  printProblems(cause.problems);
  const hit = cause.hit === undefined ? "" : `, hit ${cause.hit}`;
  const isOurs = ["no_certificate", "unknown_issuer", "expired", "not_an_operator", "revoked"];
  const hint =
    cause.hint ??
    (isOurs.includes(cause.code)
      ? `the credentials${dir ? ` in ${dir}` : ""} are no longer good: sallyport up renews them when it starts, an operator elsewhere enrols again with a new token`
      : undefined);
  return new Exit(1, `${cause.message} (${cause.code}${hit})`, hint);
}

/** What a change at the control plane has come to at the gates. */
export function printConfirmations(body: {
  readonly confirmed: readonly string[];
  readonly missing: readonly string[];
}): void {
  if (body.confirmed.length > 0) output.note(`in force at ${body.confirmed.join(", ")}`);
  if (body.missing.length > 0)
    output.note(
      `not confirmed yet by ${body.missing.join(", ")}: a gate that is away gets it when it comes back`,
    );
}

/** `3m` from now or ago, by the largest two units. */
export function distance(atMs: number, nowMs: number): string {
  const text = formatDuration(Math.round(Math.abs(atMs - nowMs) / 1_000) * 1_000);
  const short = /^(?:\d+[a-z]+){1,2}/.exec(text)?.[0] ?? text;
  return atMs <= nowMs ? `${short} ago` : `in ${short}`;
}

/** True when somebody at a terminal says yes. Throws `Exit` where nobody can be asked. */
export async function confirm(question: string): Promise<boolean> {
  if (!process.stdin.isTTY || !process.stderr.isTTY)
    throw new Exit(2, "nothing was done: nobody can be asked here", "say --yes to go ahead");
  const { confirm: ask, isCancel } = await import("@clack/prompts");
  // On standard error: the result may be redirected.
  const answer = await ask({ message: question, initialValue: false, output: process.stderr });
  return !isCancel(answer) && answer;
}

/** The directory of credentials that a command speaks with. Throws `Exit`. */
export function findContext(option: string | undefined, isNew = false): string {
  const named = option ?? readSetting("context");
  if (named !== undefined) {
    const dir = resolve(named);
    if (isNew || existsSync(join(dir, "context.json"))) return dir;
    throw new Exit(
      2,
      `${named} is no context: there is no context.json in it`,
      "name a directory of an operator's credentials; the first time with --api https://HOST:PORT",
    );
  }
  const state = readSetting("state");
  if (state !== undefined && existsSync(join(state, "admin", "context.json")))
    return resolve(state, "admin");
  for (let folder = process.cwd(); ; folder = dirname(folder)) {
    const dir = join(folder, ".sallyport", "admin");
    if (existsSync(join(dir, "context.json"))) return dir;
    if (folder === dirname(folder)) break;
  }
  throw new Exit(
    3,
    "no control plane is known here: there is no .sallyport/admin here or above",
    "start one with sallyport up, or name a context with --context or SALLYPORT_CONTEXT",
  );
}

type Written = { readonly api: string; readonly principal: string; readonly trustDomain: string };

function newContext(api: string, { identity }: StoredCredentials): Written {
  const parts = parsePrincipal(identity?.principal ?? "");
  if (!identity || !parts)
    throw new Exit(2, "these credentials do not say whose they are: there is no identity.json");
  const address = api.startsWith("https://") ? splitHostPort(api.slice(8)) : undefined;
  if (!address) throw new Exit(2, `--api "${api}" is no address`, "write https://HOST:7440");
  return { api, principal: identity.principal, trustDomain: parts.trustDomain };
}

function readContextFile(dir: string): Written {
  const path = join(dir, "context.json");
  try {
    const found = JSON.parse(readFileSync(path, "utf8")) as Partial<Record<string, unknown>>;
    const { api, principal, trustDomain } = found;
    if (
      typeof api === "string" &&
      typeof principal === "string" &&
      typeof trustDomain === "string" &&
      api.startsWith("https://")
    )
      return { api, principal, trustDomain };
  } catch (cause) {
    throw new Exit(2, `${path} cannot be read: ${(cause as Error).message}`);
  }
  throw new Exit(
    2,
    `${path} does not name a control plane`,
    "it needs api, principal, trustDomain",
  );
}
