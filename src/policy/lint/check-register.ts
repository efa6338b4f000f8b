import type { Problem } from "../../base/problem.ts";
import { parseRegister } from "../../model/register/parse.ts";
import type { SourceFile } from "../../model/register/read-yaml.ts";
import type { Register } from "../../model/register.ts";
import { lintRegister } from "./lint-register.ts";

/**
 * Reads and lints the files of a register, the main one first. Every problem of both in one run, in the order of the files.
 * Fails closed: one `error` of either, and there is no register.
 */
export function checkRegister(
  files: readonly SourceFile[],
  nowMs: number,
): { readonly register?: Register; readonly problems: readonly Problem[] } {
  const parsed = parseRegister(files);
  const remarks = parsed.draft
    ? lintRegister(parsed.draft, nowMs, parsed.locate, parsed.isDamaged)
    : [];
  const order = new Map(files.map((file, i) => [file.name, i]));
  const problems = [...parsed.problems, ...remarks].sort(
    (a, b) =>
      (order.get(a.file ?? "") ?? 0) - (order.get(b.file ?? "") ?? 0) ||
      (a.line ?? 0) - (b.line ?? 0) ||
      (a.column ?? 0) - (b.column ?? 0),
  );
  const isSound = problems.every((problem) => problem.severity !== "error");
  return { ...(isSound && parsed.register ? { register: parsed.register } : {}), problems };
}
