import { Exit } from "./exit.ts";

/** Commands that open a port need what only Node 24 has (OpenSSL 3.5, its `node:sqlite`). Throws `Exit` on an older one. */
export function needNode24(command: string, version = process.versions.node): void {
  if (Number(version.split(".")[0]) < 24)
    throw new Exit(
      2,
      `sallyport ${command} opens ports and needs Node 24 or newer; this is Node ${version}`,
    );
}
