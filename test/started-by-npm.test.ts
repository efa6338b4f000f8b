import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { makeToken } from "../src/identity/token.ts";

const launcher = join(import.meta.dirname, "..", "bin", "sallyport.js");
/** Node that says it is an old one: the launcher then starts itself under the clone's own. */
const asOld = [
  "--import",
  `data:text/javascript,${encodeURIComponent("Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.20.2' } })")}`,
];

/** A command that lasts until it is ended: it enrols at a server that never answers. Seen from there, it lives as long as its connection. */
async function startBelowShell(
  t: TestContext,
  options: { readonly script?: string; readonly nodeArgs?: readonly string[] },
): Promise<{ readonly socket: Socket; readonly killShell: () => void }> {
  const folder = await mkdtemp(join(tmpdir(), "sallyport-npm-"));
  t.after(() => rm(folder, { recursive: true }));
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const { token } = makeToken({ fingerprint: "A".repeat(43), join: `127.0.0.1:${port}` });
  await writeFile(join(folder, "token"), token, { mode: 0o600 });
  const args = [...(options.nodeArgs ?? []), launcher, "enroll"];
  const { npm_lifecycle_event: _, npm_lifecycle_script: __, ...env } = process.env;
  const shell = spawn(
    "sh",
    // Not the shell's last word, or it would become what it starts.
    ["-c", '"$0" "$@"; true', process.execPath, ...args, "--token-file", "token", "--out", "out"],
    {
      cwd: folder,
      stdio: "ignore",
      env: {
        ...env,
        ...(options.script !== undefined && {
          npm_lifecycle_event: "start",
          npm_lifecycle_script: options.script,
        }),
      },
    },
  );
  const [socket] = (await once(server, "connection")) as [Socket];
  socket.on("error", () => {}).resume();
  t.after(() => socket.destroy()); // which also ends what waits for an answer
  return { socket, killShell: () => shell.kill("SIGKILL") };
}

test("what npm started ends with it, also under another Node; what is meant to stay stays", {
  skip: process.platform === "win32" && "there a process never learns that its parent is gone",
}, async (t) => {
  const script = "node bin/sallyport.js up --demo";
  const enders = await Promise.all([
    startBelowShell(t, { script }),
    startBelowShell(t, { script: "sallyport enroll" }),
    startBelowShell(t, { script, nodeArgs: asOld }),
  ]);
  const stayers = await Promise.all([
    startBelowShell(t, {}),
    startBelowShell(t, { nodeArgs: asOld }),
    startBelowShell(t, { script: "nohup sallyport enroll &" }),
    startBelowShell(t, { script: "sallyport enroll > log 2>&1 &" }),
    startBelowShell(t, { script: "sh start-everything.sh" }),
  ]);
  // Sooner than the command would give up by itself.
  const signal = AbortSignal.timeout(6_000);
  const ended = enders.map(({ socket }) => once(socket, "close", { signal }));
  // These lose their shell first, and so had longer to notice.
  for (const { killShell } of stayers) killShell();
  for (const { killShell } of enders) killShell();
  await Promise.all(ended);
  for (const [i, { socket }] of stayers.entries())
    assert.equal(socket.readableEnded || socket.destroyed, false, `row ${i} has to stay`);
});
