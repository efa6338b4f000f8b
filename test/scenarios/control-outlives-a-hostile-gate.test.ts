import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { request } from "node:https";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { Credentials } from "../../src/base/credentials.ts";
import { clientContext } from "../../src/base/secure-context.ts";
import { enrollGate } from "../../src/identity/enroll/enroll.ts";
import { type ControlProcess, startControlProcess } from "../harness/control-process.ts";
import { until } from "../harness/until.ts";

test("a gate that was taken over stops neither control nor what others are told", async (t) => {
  const stateDir = mkdtempSync(join(tmpdir(), "sallyport-hostile-"));
  const control = await startControlProcess(t, stateDir, { localGate: "local" });
  // After control has ended: its last hits would bring the directory back.
  t.after(() => rmSync(stateDir, { recursive: true, force: true }));
  const { admin } = control;
  const gate = await enrollGate({
    token: control.gateToken ?? "",
    controlOut: join(stateDir, "g", "control"),
    dataOut: join(stateDir, "g", "data"),
    clock: Date.now,
  });
  const status = async () =>
    (await admin.call("GET", "/v1/status")).body as {
      gates: { name: string; addresses: string[]; connected: boolean }[];
      warnings: { id: string; gate?: string }[];
    };

  const deep = `${"[".repeat(300_000)}${"]".repeat(300_000)}`;
  const nested = await feedOf(t, control, gate.control);
  nested.write(`{"type":"status","addresses":[],"servedNames":[],"counters":{"a":${deep}}}\n`);
  await until("it is cut off", () => nested.closed);
  assert.equal((await status()).gates[0]?.connected, false);

  const painted = await feedOf(t, control, gate.control);
  const addresses = ["\u001b]0;owned\u0007\u009b2J"];
  say(painted, { type: "status", addresses, servedNames: [], counters: {} });
  await until(
    "it is told",
    async () => (await status()).gates[0]?.addresses[0] === "?]0;owned??2J",
  );
  const warning = { at: 1, detector: "d", severity: "critical", says: "s", hits: [], count: 1 };
  for (let i = 0; i < 1_500; i++)
    say(painted, { type: "warning", warning: { ...warning, id: `w${i}` } });
  await comes("it is heard", async () =>
    (await status()).warnings.some((one) => one.id === "w1499"),
  );
  const { warnings } = await status();
  assert.equal(warnings.filter((one) => one.gate === "local").length, 100);

  for (let page = 0; page < 20; page++) {
    const heads = Array.from({ length: 1_000 }, (_, i) => ({
      chain: `c${page}-${i}`,
      sequence: 1,
      head: "00",
    }));
    say(painted, { type: "heads", heads });
  }
  await comes("it is warned of", async () =>
    (await status()).warnings.some((one) => one.id === "too-many-chains:gate/local"),
  );

  await admin.call("POST", "/v1/revocations", { body: { principal: "gate/local" } });
  await until("it is cut off", () => painted.closed);
  assert.equal(control.exit(), undefined);
});

/** `until` for what has to be asked for. */
async function comes(what: string, holds: () => Promise<boolean>): Promise<void> {
  let found = false;
  let isAsking = false;
  await until(what, () => {
    if (!isAsking && !found) {
      isAsking = true;
      void holds().then((answer) => {
        found = answer;
        isAsking = false;
      });
    }
    return found;
  });
}

function say(feed: Socket, message: object): void {
  feed.write(`${JSON.stringify(message)}\n`);
}

/** A feed that has said hello, to say on it what no gate of ours says. */
async function feedOf(
  t: TestContext,
  { doors }: ControlProcess,
  credentials: Credentials,
): Promise<Socket> {
  const [host, port] = doors.join.split(":");
  const feed = await new Promise<Socket>((resolve, reject) => {
    const asking = request({
      ...clientContext(credentials),
      host,
      port,
      path: "/join/v1/feed",
      headers: { connection: "Upgrade", upgrade: "sallyport-feed/1" },
      agent: false,
      checkServerIdentity: () => undefined,
    });
    asking.on("error", reject);
    asking.on("response", (answer) => reject(new Error(`refused: ${answer.statusCode}`)));
    asking.on("upgrade", (_answer, socket) => resolve(socket));
    asking.end();
  });
  t.after(() => feed.destroy());
  feed.on("error", () => {});
  feed.resume();
  const versions = { sallyport: "0.1.0", node: "24" };
  const hello = { type: "hello", protocol: "sallyport-feed/1", gate: "local", boot: "b", versions };
  say(feed, { ...hello, running: null, addresses: [], servedNames: [] });
  return feed;
}
