import { X509Certificate } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Credentials } from "../../src/base/credentials.ts";
import { silentLog } from "../../src/base/log.ts";
import { gateName, startHere } from "../../src/cli/supervisor/start-here.ts";
import { version } from "../../src/cli/version.ts";
import { createControlClient } from "../../src/control/client/client.ts";
import { readCredentials } from "../../src/identity/credentials/credential-directory.ts";
import { enroll } from "../../src/identity/enroll/enroll.ts";
import { countLines } from "../count-lines.ts";
import { job, type Peer } from "../job.ts";
import { cores, pin } from "../processes.ts";

/** The gate as it really runs, and the identities that it and control made: every other peer uses them too. */
export type Gate = Peer & {
  readonly caller: Credentials;
  readonly callerSerial: string;
  readonly callerUri: string;
  /** Its leaf for `job.host` and the roots of the data plane. */
  readonly server: Credentials;
};

/** Control and a gate with one worker, by a register: what `sallyport up` runs. Both keep their state in `dir`. */
export async function startGate(dir: string, originPort: number): Promise<Gate> {
  const stateDir = join(dir, "state");
  const said: string[] = [];
  const supervisor = startHere({
    stateDir,
    files: [{ name: join(dir, "sallyport.yaml"), text: register(originPort) }],
    drainMs: 3_000,
    log: silentLog,
    workers: 1,
    onLine: (name, line) => said.push(`${name}: ${line}`),
  });
  try {
    await supervisor.ready;
    const port = Number(/:(\d+)$/.exec(supervisor.doors()[gateName]?.data ?? "")?.[1]);
    const pid = supervisor.pids()[gateName];
    if (!port || pid === undefined) throw new Error("the gate opened no data door");
    const callerDir = join(dir, job.caller);
    const adminDir = join(stateDir, "admin");
    const api = createControlClient({
      ...(JSON.parse(readFileSync(join(adminDir, "context.json"), "utf8")) as {
        api: string;
        trustDomain: string;
      }),
      credentials: await readCredentials(adminDir),
      clock: Date.now,
    });
    const { body } = await api.call("POST", "/v1/tokens", { body: { service: job.caller } });
    api.close();
    const { token } = body as { token: string };
    const enrolled = await enroll({ token, out: callerDir, clock: Date.now });
    pin(pid, cores.proxy);
    return {
      name: "sallyport",
      version,
      pid,
      port,
      logLines: () => countLines(hitFiles(join(stateDir, "gates", gateName, "hits"))),
      caller: enrolled.credentials,
      callerSerial: new X509Certificate(enrolled.credentials.chainPem).serialNumber,
      callerUri: enrolled.principal,
      server: await serverLeaf(join(stateDir, "gates", gateName)),
      close: () => supervisor.close(),
    };
  } catch (cause) {
    await supervisor.close();
    throw new Error(`${cause instanceof Error ? cause.message : cause}\n${said.join("\n")}`);
  }
}

/** Asked for once the gate knows its register: it may come a moment after the door opened. */
async function serverLeaf(home: string): Promise<Credentials> {
  const file = join(home, "names.json");
  const { bundlePem } = await readCredentials(join(home, "data"));
  const deadline = Date.now() + 10_000;
  for (;;) {
    // As `identity/names` keeps them: the leaf, then numbers of its key and its issuing certificates.
    const kept = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : undefined;
    const [leaf, key, issuing] = kept?.names[job.host] ?? [];
    if (leaf !== undefined)
      return { keyPem: kept.texts[key], chainPem: leaf + kept.texts[issuing], bundlePem };
    if (Date.now() > deadline) throw new Error(`the gate has no leaf for ${job.host}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function hitFiles(dir: string): string[] {
  return readdirSync(dir, { recursive: true, encoding: "utf8" })
    .filter((file) => /\d\.jsonl$/.test(file))
    .map((file) => join(dir, file));
}

function register(originPort: number): string {
  return `version: 1
trustDomain: ${job.trustDomain}
planes:
  control: { bind: "127.0.0.1:0" }
  join:    { bind: "127.0.0.1:0" }
  ops:     { bind: "127.0.0.1:0" }
  data:    { bind: "127.0.0.1:0" }
services:
  ${job.caller}: { owner: storefront }
  ${job.host}:
    owner: commerce
    ports:
      http: { protocol: http, upstreams: ["127.0.0.1:${originPort}"] }
    allow:
      - { id: web-reads-orders, from: ${job.caller}, methods: [GET, POST], paths: ["${job.allowedPrefix}**"] }
    deny:
      - { id: no-debug, from: "*", paths: ["${job.allowedPrefix}debug/**"] }
`;
}
