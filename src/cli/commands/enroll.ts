import { readFile, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { performance } from "node:perf_hooks";
import { Command } from "commander";
import {
  CredentialsUnusable,
  readCredentials,
  type StoredCredentials,
} from "../../identity/credentials/credential-directory.ts";
import { enroll, TokenUnreadable } from "../../identity/enroll/enroll.ts";
import { JoinRefused, JoinUnreachable, joinRequest } from "../../identity/enroll/join-request.ts";
import { joinTrust } from "../../identity/renew/renew.ts";
import { startRenewal } from "../../identity/renew/start-renewal.ts";
import { Exit } from "../exit.ts";
import { firstCall, quoted } from "../first-call.ts";
import { output } from "../output.ts";
import { readSetting } from "../settings.ts";

type Options = {
  readonly tokenFile?: string;
  readonly token?: string | true;
  readonly out?: string;
  readonly renew?: string | true;
  readonly hook?: string;
  readonly json?: boolean;
};

/** `sallyport enroll`: 0 enrolled, 1 refused, 2 wrong usage, 3 the join door cannot be reached. */
export function command(): Command {
  const made = new Command("enroll")
    .description("turn an enrolment token into a key and a certificate, and keep them fresh")
    .argument("[misplaced...]")
    .usage("--token-file FILE --out DIR [--renew]  |  enroll --renew DIR")
    .option("--token-file <file>", "the token; - reads standard input (default: SALLYPORT_TOKEN)")
    .option("--out <dir>", "where key.pem, chain.pem and bundle.pem go (0600 in a 0700 directory)")
    .option("--renew [dir]", "stay, and renew at two thirds of each certificate's life")
    .option(
      "--hook <command>",
      "run by /bin/sh after each renewal, with SALLYPORT_DIR and SALLYPORT_PRINCIPAL set",
    )
    .option("--json", "print what was written as JSON")
    .addHelpText(
      "after",
      `
Examples:
  sallyport enroll --token-file web.token --out web
  sallyport token create --service web | sallyport enroll --token-file - --out web
  sallyport enroll --token-file web.token --out web --renew --hook "systemctl reload nginx"
  sallyport enroll --renew web
A token is never an argument: arguments are seen by every process of the machine, and kept in the shell's history.
Exit code: 0 done, 1 refused (with --renew: the certificate expired, and no grace lets it be renewed), 2 wrong usage, 3 the control plane cannot be reached.`,
    );
  // Known only to be refused with a better sentence than "unknown option".
  const misplaced = made.createOption("--token [token]").hideHelp();
  return made.addOption(misplaced).action(run);
}

async function run(misplaced: readonly string[], options: Options): Promise<void> {
  refuseMisplaced(misplaced, options);
  if (typeof options.renew === "string") {
    if (options.out !== undefined || options.tokenFile !== undefined)
      throw new Exit(2, "--renew DIR takes no token and no --out", "enrol with: --out DIR --renew");
    return explained(() => stay(resolve(options.renew as string), options));
  }
  if (options.out === undefined)
    throw new Exit(
      2,
      "say where the credentials go",
      "sallyport enroll --token-file FILE --out DIR",
    );
  if (options.hook !== undefined && !options.renew)
    throw new Exit(2, "--hook runs after renewals, so it needs --renew");
  const out = resolve(options.out);
  await explained(async () => {
    const held = options.renew ? await heldIn(out) : undefined;
    if (held) {
      output.note(`${out} holds ${held.identity?.principal}; no token was used`);
      if (options.json) output.json(summaryOf(out, held));
    } else await enrolInto(out, options);
    if (options.renew) await stay(out, options);
  });
}

function refuseMisplaced(misplaced: readonly string[], options: Options): void {
  const seen = [...misplaced, typeof options.token === "string" ? options.token : ""];
  if (seen.some((text) => text.includes("sp1.")))
    throw new Exit(
      2,
      "a token on the command line is burnt: every process of this machine can see it, and the shell keeps it",
      "make a new one and hand it over in a file (--token-file FILE), on standard input (--token-file -) or in SALLYPORT_TOKEN",
    );
  if (options.token !== undefined)
    throw new Exit(2, "there is no --token", "write --token-file FILE, or set SALLYPORT_TOKEN");
  if (misplaced.length > 0)
    throw new Exit(
      2,
      `what is ${JSON.stringify(misplaced[0])}?`,
      "options say it: sallyport enroll --token-file FILE --out DIR",
    );
}

/** Credentials that can go on by themselves. A container that starts again finds its token spent and its directory full. */
async function heldIn(out: string): Promise<StoredCredentials | undefined> {
  try {
    const held = await readCredentials(out);
    const isOver = Date.parse(held.identity?.notAfter ?? "") <= Date.now();
    return held.identity && !isOver ? held : undefined;
  } catch (cause) {
    if (cause instanceof CredentialsUnusable) return undefined;
    throw cause;
  }
}

async function enrolInto(out: string, options: Options): Promise<void> {
  const token = await readToken(options);
  const { principal, credentials } = await enroll({ token, out, clock: Date.now });
  const { identity } = credentials;
  if (options.json) return output.json(summaryOf(out, credentials));
  output.line(`${principal} until ${identity?.notAfter}`);
  output.line(`wrote ${out}/key.pem, chain.pem, bundle.pem and identity.json`);
  output.line();
  output.line("Next:");
  for (const line of await nextSteps(out, credentials)) output.line(`  ${line}`);
  if (!options.renew) output.line(`  sallyport enroll --renew ${quoted(out)}    # keeps it fresh`);
}

function summaryOf(dir: string, { identity }: StoredCredentials): object {
  const { principal, plane, serial, notAfter } = identity ?? {};
  return { principal, dir, plane, serial, notAfter };
}

/** A call that works when pasted, where the control plane knows one; else what stands in the way, or a line to fill in. */
async function nextSteps(out: string, held: StoredCredentials): Promise<string[]> {
  const { identity } = held;
  if (identity?.plane !== "data") return [`sallyport status --context ${quoted(out)}`];
  const found = await joinRequest({
    join: identity.join,
    trust: joinTrust(held, identity),
    nowMs: Date.now(),
    method: "GET",
    path: "/join/v1/discover",
    deadlineMs: 2_000,
  }).catch(() => undefined);
  return firstCall(found, out, identity.principal);
}

async function readToken(options: Options): Promise<string> {
  const { tokenFile } = options;
  if (tokenFile === "-") return readStandardInput();
  if (tokenFile === undefined) {
    const fromEnvironment = readSetting("token");
    if (fromEnvironment !== undefined) return fromEnvironment;
    throw new Exit(
      2,
      "there is no token",
      "make one with sallyport token create --service NAME --out NAME.token, then: --token-file NAME.token (or -, or SALLYPORT_TOKEN)",
    );
  }
  try {
    const { mode, size } = await stat(tokenFile);
    if ((mode & 0o077) !== 0 && process.platform !== "win32")
      output.note(`warning: ${tokenFile} can be read by others; chmod 600 ${tokenFile}`);
    if (size > tokenBytesMax) throw new Exit(2, `${tokenFile} is too large to be a token`);
    return await readFile(tokenFile, "utf8");
  } catch (cause) {
    if (cause instanceof Exit) throw cause;
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT")
      throw new Exit(2, `cannot read ${tokenFile}: there is no such file`, makeOne);
    throw new Exit(2, `cannot read ${tokenFile}: ${(cause as Error).message}`, makeOne);
  }
}

const tokenBytesMax = 4_096;

async function readStandardInput(): Promise<string> {
  if (process.stdin.isTTY) output.note("paste the token, then press Ctrl-D");
  let text = "";
  for await (const piece of process.stdin) {
    text += piece;
    if (text.length > tokenBytesMax) throw new Exit(2, "standard input is too long to be a token");
  }
  return text;
}

/** Until somebody ends it, or the certificate has expired and nothing but a token helps: then it throws the refusal. */
async function stay(dir: string, options: Options): Promise<void> {
  const say = (fields: object, message: string) => output.note(lineOf(fields, message));
  const ended = Promise.withResolvers<void>();
  const renewal = await startRenewal({
    dir,
    clock: Date.now,
    monotonic: () => performance.now(),
    random: Math.random,
    log: { info: say, warn: say, error: say },
    onOver: ended.reject,
    ...(options.hook !== undefined && { hook: { command: options.hook, env: hookEnvironment() } }),
  });
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => ended.resolve());
  output.note(`renewing ${dir}; Ctrl-C ends this`);
  try {
    await ended.promise;
  } finally {
    await renewal.close();
  }
}

/** All of ours but the token, which is nobody else's business. */
function hookEnvironment(): Record<string, string | undefined> {
  const { SALLYPORT_TOKEN: _, ...rest } = process.env;
  return rest;
}

/** `the certificate was renewed (serial 4a…, not after …)`: for people, with the time first. */
function lineOf(fields: object, message: string): string {
  const known = Object.entries(fields).filter(([, value]) => value !== undefined && value !== "");
  const said = known.map(([name, value]) => `${name} ${String(value)}`).join(", ");
  return `${new Date().toISOString()} ${message}${said ? ` (${said})` : ""}`;
}

/** What can be expected to go wrong, as exit codes with a next step. */
async function explained(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (cause) {
    if (cause instanceof TokenUnreadable) throw new Exit(2, cause.message, makeOne);
    if (cause instanceof CredentialsUnusable) throw new Exit(2, cause.message, cause.hint);
    if (cause instanceof JoinUnreachable)
      throw new Exit(
        3,
        cause.message,
        "is the control plane running, and its join door reachable from here?",
      );
    if (cause instanceof JoinRefused)
      throw new Exit(1, `${cause.message} (${cause.code})`, hints[cause.code]);
    // The directory was there a moment ago, and the token may be spent: only the key that lies there may ask again.
    const { message, syscall } = cause as NodeJS.ErrnoException;
    if (syscall !== undefined)
      throw new Exit(
        2,
        `the credentials could not be written: ${message}`,
        "mend that and run the same command again: the same key is given the same certificate while the token lives",
      );
    throw cause;
  }
}

const makeOne = "make a new one: sallyport token create --service NAME --out NAME.token";

const hints: Readonly<Record<string, string>> = {
  token_unknown: makeOne,
  token_expired: makeOne,
  token_spent: `if it was not you, somebody else has this token: its certificates were revoked. Otherwise ${makeOne}`,
  expired:
    "nothing but a token lets it in again: sallyport token create --service NAME --out NAME.token, then sallyport enroll --token-file NAME.token --out DIR (or give the service grace in the register, and run this again)",
  wrong_network: "enrol from where the token may be used, or make one with another --from",
  not_registered: "add the service to the register and apply it",
  revoked: "ask an administrator; a new token lets it in again",
  csr_invalid: "a gate's token is for sallyport gate",
};
