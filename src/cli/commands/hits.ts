import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { Command } from "commander";
import { segmentNames } from "../../audit/hit-log/retention.ts";
import { ascii, isChainName, listName } from "../../audit/hit-log/segment.ts";
import { verifyLog } from "../../audit/hit-log/verify.ts";
import { parseDuration } from "../../base/duration.ts";
import { ApiRefused } from "../../control/client/client.ts";
import type { HitVerdict } from "../../control/needs.ts";
import type { ChainHead } from "../../model/chain-head.ts";
import type { Hit } from "../../model/hit.ts";
import { type HitFilter, hitsByDefault } from "../../model/hit-filter.ts";
import { type Context, findContext, withContext, withContextOption } from "../context.ts";
import { Exit } from "../exit.ts";
import { type HitSource, hitsFromControl, hitsFromFiles } from "../hit-source.ts";
import { verdictOf } from "../log-verdict.ts";
import { statePath } from "../open-state.ts";
import { output, table } from "../output.ts";
import { readSetting } from "../settings.ts";

type Place = {
  readonly state?: string;
  readonly dir?: string;
  readonly context?: string;
  readonly api?: string;
  readonly remote?: boolean;
};
type Options = Place & {
  readonly follow?: boolean;
  readonly json?: boolean;
  readonly since?: string;
  readonly caller?: string;
  readonly service?: string;
  readonly refused?: boolean;
  readonly code?: string;
  readonly plane?: string;
  readonly id?: string;
  readonly limit?: string;
};

const shownBeforeFollowing = 10;
const limitMax = 100_000;
/** A full log of 4 GiB at every gate, and then some. */
const walkMaxMs = 15 * 60_000;
const planes = ["data", "control", "join", "decoy"] as const;

/** `sallyport hits` and `sallyport hits verify`. */
export function command(): Command {
  const hits = place(new Command("hits"))
    .description("show what happened on internal ports: every connection, request and action")
    .option("-f, --follow", "keep showing hits as they come")
    .option("--json", "print an array of hits; with --follow one hit a line")
    .option("--since <duration>", "only hits of the last 10m, 2h, 1d …")
    .option("--caller <name>", "only hits of this verified caller: web, or admin/first")
    .option("--service <name>", "only hits on this service")
    .option("--refused", "only what was refused")
    .option("--code <code>", "only hits with this code, as in not_authorized")
    .option("--plane <plane>", `only hits on one door: ${planes.join(", ")}`)
    .option("--id <id>", "only the hit with this id; exit code 1 when there is none")
    .option("--limit <number>", `at most so many, the newest (default: ${hitsByDefault})`)
    .addHelpText(
      "after",
      `
Examples:
  sallyport hits --refused --since 10m
  sallyport hits --follow --service orders
  sallyport hits --id k3f9x2abcd-17 --json
  sallyport hits verify
  sallyport hits --context ops --refused
The newest hit is the last line. Exit code: 0 shown, 1 --id found nothing or refused, 2 wrong usage or no hit log there,
3 no control plane.`,
    )
    .action(show);
  hits.addCommand(
    place(new Command("verify"))
      .description("check that no line of the hit log was changed, removed or put in")
      .option("--json", "print { ok, chains, problems, absent } as JSON")
      .option(
        "--anchors <file>",
        "heads that were kept elsewhere, a JSON array of { chain, sequence, head }: finds cut ends and chains computed anew",
      )
      .addHelpText(
        "after",
        `
Examples:
  sallyport hits verify
  sallyport hits verify --state /var/lib/sallyport --json
Exit code: 0 whole, 1 broken or a gate could not be asked, 2 wrong usage or no hit log there, 3 no control plane.`,
      )
      .exitOverride()
      .action((_options, self: Command) => verify(self.optsWithGlobals())),
  );
  return hits;
}

function place(command: Command): Command {
  return withContextOption(command)
    .option(
      "--state <dir>",
      "the state directory (default: SALLYPORT_STATE, else .sallyport here or above)",
    )
    .option("--dir <dir>", "one hit log's own directory, instead of all of a state directory")
    .option(
      "--remote",
      "ask the control plane and all its gates, also where there are hit logs here",
    );
}

/** Whether to ask control: when that was said, or when nothing lies here and a control plane is known. Throws `Exit`. */
function asksControl({ api, context, dir, remote, state }: Place): boolean {
  const isSaid = remote === true || context !== undefined || api !== undefined;
  const isFiles = dir !== undefined || state !== undefined;
  if (isSaid && isFiles)
    throw new Exit(
      2,
      "--state and --dir read files, --context and --remote ask a control plane",
      "leave one of them out",
    );
  return isSaid || (!isFiles && logsIn(nearestState()).length === 0 && isContextKnown());
}

function isContextKnown(): boolean {
  try {
    findContext(undefined);
    return true;
  } catch (cause) {
    if (cause instanceof Exit) return false;
    throw cause;
  }
}

async function show(options: Options): Promise<void> {
  const filter = filterOf(options);
  if (asksControl(options))
    await withContext(options, (context) => showFrom(hitsFromControl(context), filter, options));
  else await showFrom(hitsFromFiles(hitDirs(options)), filter, options);
}

async function showFrom(source: HitSource, filter: HitFilter, options: Options): Promise<void> {
  if (options.follow) return await follow(source, filter, options);
  const hits = await collect(source.find(filter));
  hits.reverse();
  if (options.json) output.line(asciiJson(hits));
  else if (hits.length > 0) output.line(table(hits.map(row), heading));
  else output.note("no hits match");
  if (options.id !== undefined && hits.length === 0)
    throw new Exit(1, `no hit has the id ${options.id}`, "it may have been deleted by retention");
}

async function follow(source: HitSource, filter: HitFilter, options: Options): Promise<void> {
  // A reader that goes away (`| head`) ends us without a word.
  process.stdout.on("error", () => process.exit(0));
  const limit = options.limit || options.since ? filter.limit : shownBeforeFollowing;
  // Opened first: a hit that comes while the old ones are read is in both, and shown once.
  const coming = await source.follow(withoutLimit(filter));
  const before = await collect(source.find({ ...filter, ...(limit && { limit }) }));
  const shown = new Set(before.map(({ id }) => id));
  const print = (hit: Hit): void =>
    output.line(options.json ? asciiJson(hit) : followRow(row(hit)));
  before.reverse().forEach(print);
  for await (const hit of coming) if (!shown.delete(hit.id)) print(hit);
}

async function verify(
  options: Place & { readonly json?: boolean; readonly anchors?: string },
): Promise<void> {
  const { anchors, dir, json } = options;
  if (asksControl(options)) {
    if (anchors !== undefined)
      throw new Exit(2, "--anchors is for files", "control holds the anchors of all its gates");
    return await withContext(options, async (context) =>
      tellVerdict(await verdictFrom(context.call), json === true),
    );
  }
  const dirs = hitDirs(options);
  const told =
    dir === undefined && anchors === undefined
      ? await verdictBeside(options.state ?? nearestState())
      : undefined;
  if (told !== undefined && typeof told !== "string") return tellVerdict(told, json === true);
  const report = await verifyLog(dirs, readAnchors(anchors));
  if (json) output.line(asciiJson({ ...report, absent: [] }));
  else printVerdict({ ...verdictOf(report), absent: [] });
  if (typeof told === "string")
    output.note(`read without the heads that control keeps, because ${plain(told)}`);
  if (anchors === undefined)
    output.note(
      "hint: without anchors, lines cut from a chain's very end are not missed, nor a chain that was taken out of the list as well",
    );
  if (!report.ok) process.exitCode = 1;
}

async function verdictFrom(ask: Context["ask"]): Promise<HitVerdict> {
  const { body } = await ask("GET", "/v1/hits/verify", { timeoutMs: walkMaxMs });
  return body as HitVerdict;
}

/** What the control process of this state directory finds, which holds anchors; else a sentence that says why it was not asked. */
async function verdictBeside(home: string): Promise<HitVerdict | string> {
  const admin = join(home, "admin");
  if (!existsSync(join(admin, "context.json"))) return "there is no administrator in this state";
  try {
    return await withContext({ context: admin }, ({ ask }) => verdictFrom(ask));
  } catch (cause) {
    if (cause instanceof Exit || cause instanceof ApiRefused) return cause.message;
    throw cause;
  }
}

function tellVerdict(verdict: HitVerdict, isJson: boolean): void {
  if (isJson) output.line(asciiJson(verdict));
  else printVerdict(verdict);
  for (const gate of verdict.absent)
    output.note(`gate ${plain(gate)} could not be asked: its hit log was not verified`);
  if (!verdict.ok || verdict.absent.length > 0) process.exitCode = 1;
}

function printVerdict({ ok, chains, problems }: HitVerdict): void {
  for (const problem of problems)
    output.line(
      `${plain(whereIs(problem))}: ${output.paint("red", plain(problem.kind))}: ${plain(problem.says)}`,
    );
  const shown = chains.filter((chain) => chain.lines > 0 || !chain.ok);
  const rows = shown.map((chain) => [
    plain(chain.chain),
    plain(chain.writer ?? chain.gate ?? ""),
    plain(chain.kind ?? ""),
    `${chain.lines}`,
    chain.lines > 0 ? `${chain.first}-${chain.last}` : "",
    chain.ok ? output.paint("green", "whole") : output.paint("red", "broken"),
    [
      chain.pruned ? "older lines were deleted by retention" : "",
      chain.lost > 0 ? `${chain.lost} hits could not be written, and it says so` : "",
      chain.torn > 0 ? `${chain.torn} lines at the end of a write were torn` : "",
    ]
      .filter((note) => note !== "")
      .join("; "),
  ]);
  if (rows.length > 0)
    output.line(table(rows, ["CHAIN", "WRITER", "KIND", "LINES", "IDS", "STATE", ""]));
  const lines = shown.reduce((sum, chain) => sum + chain.lines, 0);
  if (ok) output.line(`${lines} lines in ${shown.length} chains: none changed, removed or put in`);
  else output.note(`error: the hit log is not what was written: ${problems.length} problems`);
}

function whereIs({ chain, file, gate, line }: HitVerdict["problems"][number]): string {
  const at = file === undefined ? chain : line === undefined ? file : `${file}:${line}`;
  return gate === undefined ? at : `gate ${gate} ${at}`;
}

/** The hit logs of control and of every gate that keeps its state here. Throws `Exit`. */
function hitDirs({ dir, state }: Place): string[] {
  if (dir !== undefined) {
    if (isLog(dir)) return [resolve(dir)];
    throw new Exit(
      2,
      `${dir} is no hit log's directory`,
      "it has a chains.jsonl; to read a whole state directory, use --state",
    );
  }
  const home = state ?? nearestState();
  const found = logsIn(home);
  if (found.length > 0) return found;
  throw new Exit(
    2,
    state === undefined && readSetting("state") === undefined && !existsSync(home)
      ? "there is no .sallyport here or above, and so no hit log"
      : `there is no hit log in ${home}`,
    "sallyport up makes one; name its state directory with --state",
  );
}

function logsIn(home: string): string[] {
  const gates = join(home, "gates");
  const names = existsSync(gates) ? readdirSync(gates).sort() : [];
  const dirs = [join(home, "control", "hits"), ...names.map((name) => join(gates, name, "hits"))];
  return dirs.filter(isLog);
}

/** Also where somebody took the list of chains away: that is for `verify` to say. */
function isLog(dir: string): boolean {
  if (existsSync(join(dir, listName))) return true;
  const names = existsSync(dir) ? readdirSync(dir).filter(isChainName) : [];
  return names.some((name) => segmentNames(join(dir, name)).length > 0);
}

function nearestState(): string {
  for (let folder = process.cwd(); ; folder = dirname(folder)) {
    const path = statePath(undefined, folder);
    if (existsSync(path) || folder === dirname(folder)) return path;
  }
}

function filterOf(options: Options): HitFilter {
  const { caller, code, id, refused, service, since } = options;
  const sinceMs = since === undefined ? undefined : parseDuration(since);
  if (since !== undefined && sinceMs === undefined)
    throw new Exit(2, `--since "${plain(since)}" is no duration`, "write 30s, 10m, 2h or 1d");
  const plane = planes.find((name) => name === options.plane);
  if (options.plane !== undefined && plane === undefined)
    throw new Exit(
      2,
      `--plane "${plain(options.plane)}" is no door`,
      `one of ${planes.join(", ")}`,
    );
  return {
    limit: limitOf(options.limit),
    ...(id !== undefined && { id }),
    ...(sinceMs !== undefined && { sinceMs: Date.now() - sinceMs }),
    ...(caller !== undefined && { caller }),
    ...(service !== undefined && { service }),
    ...(refused && { decision: "refused" as const }),
    ...(code !== undefined && { code }),
    ...(plane !== undefined && { plane }),
  };
}

function limitOf(text: string | undefined): number {
  if (text === undefined) return hitsByDefault;
  const limit = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  if (limit < 1 || limit > limitMax)
    throw new Exit(2, `--limit "${plain(text)}" is no number from 1 to ${limitMax}`);
  return limit;
}

function withoutLimit({ limit: _, ...filter }: HitFilter): HitFilter {
  return filter;
}

function readAnchors(path: string | undefined): ChainHead[] {
  if (path === undefined) return [];
  const hint = "a JSON array of { chain, sequence, head }";
  let anchors: unknown;
  try {
    anchors = JSON.parse(readFileSync(path, "utf8"));
  } catch (cause) {
    throw new Exit(
      2,
      `${path} cannot be read: ${cause instanceof Error ? cause.message : cause}`,
      hint,
    );
  }
  if (!Array.isArray(anchors) || !anchors.every(isHead))
    throw new Exit(2, `${path} holds no anchors`, hint);
  return anchors;
}

function isHead(value: unknown): value is ChainHead {
  if (typeof value !== "object" || value === null) return false;
  const { chain, head, sequence } = value as Partial<ChainHead>;
  return typeof chain === "string" && typeof head === "string" && Number.isSafeInteger(sequence);
}

const heading = ["TIME", "", "CALLER", "WHAT", "STATUS", "WHY", "ID"];

/** One hit as cells: when, the decision, who, what, the status, the rule or the code, the id. */
function row(hit: Hit): string[] {
  const colour = { allowed: "green", refused: "red", fault: "yellow" } as const;
  return [
    timeOf(hit.at),
    output.paint(
      colour[hit.decision] ?? "yellow",
      hit.decision === "allowed" ? "ok" : plain(hit.decision),
    ),
    plain(whoIs(hit)),
    plain(whatIs(hit)),
    hit.status ? `${hit.status}` : "",
    plain(hit.code ?? hit.rule ?? ""),
    plain(hit.id),
  ];
}

function whoIs({ caller, claimed, kind, peer }: Hit): string {
  if (caller !== undefined) return caller.replace(/^service\//, "");
  if (kind === "process") return "";
  const from = kind === "sum" ? peer : peer?.replace(/:\d+$/, "");
  return claimed === undefined ? `(${from ?? "unknown"})` : `(says ${claimed})`;
}

const widthMax = 60;

function whatIs(hit: Hit): string {
  const { action, count, detail, kind, local, method, of, path, plane, port, service } = hit;
  // As callers and explain write it: the port called http goes by the service's own name.
  const named = port === undefined || port === "http" ? service : `${port}.${service}`;
  const target = service === undefined ? (local ?? plane) : named;
  const what = {
    request: `${method ?? ""} ${target}${path ?? ""}`,
    connection: `connection to ${target}`,
    close: `end of ${of ?? "a hit"}`,
    action: `${action ?? "action"}${detail ? ` ${detail}` : ""}`,
    process: `${action ?? "process"}${detail ? ` ${detail}` : ""}`,
    sum: of ? `${count ?? 0} more like ${of}` : "counted from here on",
  }[kind];
  const text = what ?? kind;
  return text.length > widthMax ? `${text.slice(0, widthMax - 1)}…` : text;
}

/** `17:02:03.123` today, `11-22 17:02:03` before. */
function timeOf(at: number): string {
  const time = new Date(at);
  const two = (value: number, width = 2): string => String(value).padStart(width, "0");
  const clock = [time.getHours(), time.getMinutes(), time.getSeconds()]
    .map((n) => two(n))
    .join(":");
  return time.toDateString() === new Date(Date.now()).toDateString()
    ? `${clock}.${two(time.getMilliseconds(), 3)}`
    : `${two(time.getMonth() + 1)}-${two(time.getDate())} ${clock}`;
}

/** Widths that most hits fit in: when following there is no other row to look at. */
const followWidths = [14, 7, 20, 44, 6, 20, 0];

function followRow(cells: readonly string[]): string {
  return cells
    .map((cell, i) => {
      const width = stripVTControlCharacters(cell).length;
      return cell + " ".repeat(Math.max(0, (followWidths[i] ?? 0) - width));
    })
    .join("  ")
    .trimEnd();
}

/** What peers sent is shown, never obeyed: control, direction and half characters become escapes. */
function plain(text: string): string {
  return text.replace(
    /[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu,
    (unit) => `\\u{${(unit.codePointAt(0) ?? 0).toString(16)}}`,
  );
}

async function collect(hits: AsyncIterable<Hit>): Promise<Hit[]> {
  const all: Hit[] = [];
  for await (const hit of hits) all.push(hit);
  return all;
}

function asciiJson(value: unknown): string {
  return ascii(JSON.stringify(value));
}
