import { fork } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import type { TestContext } from "node:test";
import type { ControlConfig } from "../../src/cli/roots/control.ts";
import { type ControlClient, createControlClient } from "../../src/control/client/client.ts";
import { readCredentials } from "../../src/identity/credentials/credential-directory.ts";
import { smallRegister, trustDomain } from "./control-world.ts";

export type ControlProcess = {
  readonly doors: { readonly control: string; readonly join: string };
  /** The first administrator's. */
  readonly admin: ControlClient;
  /** Of the gate that is started beside it: undefined where none was named. */
  readonly gateToken: string | undefined;
  /** Undefined while it runs. */
  exit(): string | undefined;
};

/** The control process as the supervisor starts it, with the small register on ports of the system's choosing; ended after the test. */
export async function startControlProcess(
  t: TestContext,
  stateDir: string,
  more: Partial<ControlConfig> = {},
): Promise<ControlProcess> {
  const text = `${smallRegister}planes:\n${["control", "join", "ops", "data"]
    .map((door) => `  ${door}: { bind: "127.0.0.1:0" }\n`)
    .join("")}`;
  const adminDir = join(stateDir, "admin");
  const config: ControlConfig = {
    stateDir,
    registerFiles: [{ name: "sallyport.yaml", text }],
    adminDir,
    apart: false,
    name: "control",
    ...more,
  };
  const root = join(import.meta.dirname, "../../src/cli/roots/control.ts");
  const child = fork(root, [JSON.stringify(config)], { silent: true, execArgv: [] });
  let admin: ControlClient | undefined;
  t.after(async () => {
    admin?.close();
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGTERM");
    await once(child, "exit");
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr])
    stream?.on("data", (bytes: Buffer) => {
      said = (said + bytes.toString()).slice(-4_000);
    });
  let gateToken: string | undefined;
  const doors = await new Promise<ControlProcess["doors"]>((ready, failed) => {
    child.on("message", (message: { kind: string; token?: string; doors?: never }) => {
      if (message.kind === "gate-token") gateToken = message.token;
      if (message.kind === "ready" && message.doors) ready(message.doors);
    });
    child.once("exit", (code) => failed(new Error(`control ended with ${code}: ${said}`)));
  });
  const credentials = await readCredentials(adminDir);
  const api = `https://${doors.control}`;
  admin = createControlClient({ api, trustDomain, credentials, clock: Date.now });
  const exit = (): string | undefined =>
    child.exitCode === null && child.signalCode === null
      ? undefined
      : `${child.exitCode ?? child.signalCode}: ${said}`;
  return { doors, admin, gateToken, exit };
}
