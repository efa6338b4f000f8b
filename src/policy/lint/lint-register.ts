import type { Problem } from "../../base/problem.ts";
import type { Register } from "../../model/register.ts";
import { lintBinds } from "./lint-binds.ts";
import { lintCallers } from "./lint-callers.ts";
import { lintNames } from "./lint-names.ts";
import { lintRules } from "./lint-rules.ts";
import { lintTime } from "./lint-time.ts";
import { lintUpstreams } from "./lint-upstreams.ts";

/** Where a path of the register is written, if it is. */
export type Locate = (
  path: string,
) => { readonly file: string; readonly line: number; readonly column: number } | undefined;

/** What a lint says; `path` is turned into a place afterwards. */
export type Remark = Problem & { readonly path: string };

export type Lint = (
  register: Register,
  nowMs: number,
  isDamaged: (path: string) => boolean,
) => Remark[];

const lints: readonly Lint[] = [
  lintNames,
  lintBinds,
  lintUpstreams,
  lintRules,
  lintCallers,
  lintTime,
];

/**
 * What is wrong with a register that can be read: contradictions and dangers (`error`), oddities (`warning`), what expired or soon
 * will (`time`). `isDamaged` says which paths were not read whole, so that nothing is concluded from what is merely missing.
 */
export function lintRegister(
  register: Register,
  nowMs: number,
  locate: Locate,
  isDamaged: (path: string) => boolean = () => false,
): Problem[] {
  return lints
    .flatMap((lint) => lint(register, nowMs, isDamaged))
    .map((remark) => ({ ...remark, ...locate(remark.path) }));
}
