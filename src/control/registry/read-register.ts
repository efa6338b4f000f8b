import type { Problem } from "../../base/problem.ts";
import type { Register } from "../../model/register.ts";

/** One file of a register as a person wrote it. */
export type RegisterFile = { readonly name: string; readonly text: string };

/** Parses and lints. All problems in one go; the register is there when none of them is an error. */
export type ReadRegister = (
  files: readonly RegisterFile[],
  nowMs: number,
) => { readonly register?: Register; readonly problems: readonly Problem[] };
