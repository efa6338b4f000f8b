#!/usr/bin/env node
// Plain JavaScript that even an old Node can read: it finds a runtime that can run the rest, or says so.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const built = join(root, "dist", "cli", "main.js");
const source = join(root, "src", "cli", "main.ts");
// A clone runs its sources unbuilt; the published package has no src.
const isClone = existsSync(source);
const needed = isClone ? 24 : 22;
const isInstalled = !isClone || existsSync(join(root, "node_modules"));
const own = join(root, "node_modules", ".bin", process.platform === "win32" ? "node.exe" : "node");

endWithStarter();
if (Number(process.versions.node.split(".")[0]) >= needed) {
  if (isInstalled) await import(pathToFileURL(isClone ? source : built).href);
  else stop(`sallyport has no dependencies yet: run "npm ci" in ${root}.`);
} else if (existsSync(own) && !process.env.SALLYPORT_RELAUNCHED) {
  relaunch();
} else if (isClone && !isInstalled) {
  stop(`sallyport needs Node ${needed} or newer, and this is Node ${process.versions.node}: "npm ci" in ${root} brings one.`);
} else {
  stop(`sallyport needs Node 24 or newer, and this is Node ${process.versions.node}.`);
}

/** Runs the same command line under the clone's own Node, and ends as that ends. */
function relaunch() {
  const env = { ...process.env, SALLYPORT_RELAUNCHED: String(process.pid) };
  const run = spawn(own, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: "inherit", env });
  // A terminal gives Ctrl-C to both of us, and a second one would end the drain; whoever kills by id knows only this process.
  process.on("SIGINT", () => process.stdin.isTTY || run.kill("SIGINT"));
  for (const signal of ["SIGTERM", "SIGHUP"]) process.on(signal, () => run.kill(signal));
  run.on("error", (cause) => stop(`sallyport could not start ${own}: ${cause.message}`));
  run.on("exit", (code, signal) => {
    process.exitCode = code ?? 128 + constants.signals[signal];
  });
}

/**
 * npm tells only its shell to end, and a shell takes nobody along: we would stay, and nobody would know. So whoever npm started,
 * or we ourselves under another Node, ends as for SIGTERM when the process above is gone.
 */
function endWithStarter() {
  const { npm_lifecycle_event: event, npm_lifecycle_script: script = "", SALLYPORT_RELAUNCHED: launcher } = process.env;
  // The variables are inherited by everything below the script. What was put into the background there (nohup, &) is meant to stay.
  const isScript = event !== undefined && /^\s*("?\S*node(\.exe)?"?\s+)?\S*\bsallyport(\.js|\.cmd)?"?(\s|$)/.test(script);
  const isInBackground = /(^|[^&>])&($|[^&>\d])/.test(script);
  const starter = process.ppid;
  if (!(isScript && !isInBackground) && launcher !== String(starter)) return;
  const watch = setInterval(() => {
    // Windows goes on naming a parent that is gone.
    if (process.ppid === starter) return;
    clearInterval(watch);
    process.kill(process.pid, "SIGTERM");
  }, 500);
  watch.unref();
}

function stop(sentence) {
  console.error(sentence);
  process.exitCode = 2;
}
