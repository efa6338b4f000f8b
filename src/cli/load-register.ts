import { existsSync } from "node:fs";
import { open, readdir } from "node:fs/promises";
import { basename, dirname, join, relative, resolve } from "node:path";
import { BadInput, type Problem } from "../base/problem.ts";
import { fileBytesMax, type SourceFile } from "../model/register/read-yaml.ts";
import type { Register } from "../model/register.ts";
import { checkRegister } from "../policy/lint/check-register.ts";
import { Exit } from "./exit.ts";

export const registerFile = "sallyport.yaml";

export type ReadRegister = {
  /** Only when there is no error. */
  readonly register?: Register;
  readonly problems: readonly Problem[];
  /** The main file first, then `sallyport.d/*.yaml` beside it; named as a person here would name them. */
  readonly files: readonly SourceFile[];
  /** Of the main file. */
  readonly text: string;
  /** Absolute, of the main file. */
  readonly path: string;
};

/**
 * The register in `path`, by default `sallyport.yaml` here or in the nearest directory above, read, merged with `sallyport.d/` and
 * linted. Throws `BadInput` with every problem when it has errors, `Exit` 2 when it is not there.
 */
export async function loadRegister(
  path?: string,
): Promise<ReadRegister & { readonly register: Register }> {
  const read = await readRegister(path);
  const { register } = read;
  if (!register) throw new BadInput(read.problems);
  return { ...read, register };
}

/** As `loadRegister`, but errors in the register are left in `problems`. */
export async function readRegister(path?: string): Promise<ReadRegister> {
  const main = path === undefined ? await findRegister() : await readText(resolve(path));
  if (!main)
    throw new Exit(
      2,
      path === undefined ? `there is no ${registerFile} here or above` : `there is no file ${path}`,
      'run "sallyport init" to write one, or name the file',
    );
  const folder = dirname(main.path);
  const parts = await readParts(join(folder, "sallyport.d"));
  const files = [main, ...parts].map(({ path, text }) => ({ name: shortName(path), text }));
  const { register, problems } = checkRegister(files, Date.now());
  const all = [...problems, ...(await overlayProblems(main.path))];
  const rest = { problems: all, files, text: main.text, path: main.path };
  return register ? { register, ...rest } : rest;
}

type Text = { readonly path: string; readonly text: string };

async function findRegister(): Promise<Text | undefined> {
  for (let folder = process.cwd(); ; folder = dirname(folder)) {
    const found = await readText(join(folder, registerFile));
    if (found || folder === dirname(folder)) return found;
  }
}

async function readParts(folder: string): Promise<readonly Text[]> {
  const names = await readdir(folder).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT" || cause.code === "ENOTDIR") return [];
    throw new Exit(
      2,
      `cannot read ${shortName(folder)}: ${cause.code}`,
      "every file of a register has to be read: mend that, or move the directory away",
    );
  });
  const parts: Text[] = [];
  for (const name of names
    .filter((each) => /\.ya?ml$/.test(each) && !each.startsWith("."))
    .sort()) {
    const part = await readText(join(folder, name));
    if (part) parts.push(part);
  }
  return parts;
}

/** Overlays are described, not built yet. One that lies there has no effect, and nobody should believe otherwise. */
async function overlayProblems(path: string): Promise<Problem[]> {
  const name = basename(path);
  const stem = name.replace(/\.ya?ml$/, "");
  const names = await readdir(dirname(path)).catch(() => []);
  return names
    .filter(
      (each) =>
        each.startsWith(`${stem}.`) && /^[a-z0-9-]+\.ya?ml$/.test(each.slice(stem.length + 1)),
    )
    .sort()
    .map((each) => ({
      code: "not-supported-yet",
      severity: "warning",
      message: `overlays are not supported yet: ${each} has no effect on ${name}`,
      hint: "keep one whole register for each environment, and name it on the command line",
      file: shortName(join(dirname(path), each)),
      line: 1,
      column: 1,
    }));
}

/** Reads no more than can be a register, whatever the file is; `undefined` when there is none. */
async function readText(path: string): Promise<Text | undefined> {
  try {
    await using file = await open(path, "r");
    const bytes = Buffer.alloc(fileBytesMax + 1);
    let length = 0;
    while (length < bytes.length) {
      const { bytesRead } = await file.read(bytes, length, bytes.length - length, null);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    // A byte order mark stays in: places are counted by the reader, which knows about it.
    const decoder = new TextDecoder("utf-8", { fatal: length < bytes.length, ignoreBOM: true });
    return { path, text: decoder.decode(bytes.subarray(0, length)) };
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    if (code === "ERR_ENCODING_INVALID_ENCODED_DATA")
      throw new Exit(2, `${shortName(path)} is not UTF-8`, "save it as UTF-8");
    if (code === "EISDIR")
      throw new Exit(
        2,
        `${shortName(path)} is a directory, not a register`,
        existsSync(join(path, registerFile))
          ? `name the file in it: ${shortName(join(path, registerFile))}`
          : "name the file; Docker makes an empty directory of a mounted file that is not there",
      );
    throw new Exit(
      2,
      `cannot read ${shortName(path)}: ${code ?? String(cause)}`,
      code === "EACCES" || code === "EPERM"
        ? `this user may not read it: ls -l ${shortName(path)}`
        : "name a file that can be read",
    );
  }
}

/** Relative where the file lies below the working directory. */
function shortName(path: string): string {
  const near = relative(process.cwd(), path);
  return near !== "" && !near.startsWith("..") ? near : path;
}
