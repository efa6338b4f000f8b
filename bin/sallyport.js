#!/usr/bin/env node
// Plain JavaScript that even an old Node can read: it finds a runtime that can run the rest, or says so.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const major = Number(process.versions.node.split(".")[0]);
const built = join(root, "dist", "cli", "main.js");
const source = join(root, "src", "cli", "main.ts");
// A clone runs its sources unbuilt; the published package has no src.
const entry = existsSync(source) ? source : built;
const needed = entry === source ? 24 : 22;

if (major < needed) {
  const own = join(root, "node_modules", ".bin", process.platform === "win32" ? "node.exe" : "node");
  if (existsSync(own) && !process.env.SALLYPORT_RELAUNCHED) {
    const env = { ...process.env, SALLYPORT_RELAUNCHED: "1" };
    const run = spawnSync(own, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: "inherit", env });
    process.exitCode = run.status ?? 1;
  } else {
    console.error(`sallyport needs Node ${needed} or newer; this is Node ${process.versions.node}.`);
    process.exitCode = 2;
  }
} else {
  await import(pathToFileURL(entry).href);
}
