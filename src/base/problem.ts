/** One thing that is wrong with something a person wrote, where it is, and what to do about it. */
export type Problem = {
  /** Stable id, kebab-case: `unknown-key`, `rule-shadowed`. */
  readonly code: string;
  /** `error` refuses the input; `warning` and `time` never do (`time`: something expired or soon will). */
  readonly severity: "error" | "warning" | "time";
  readonly message: string;
  /** The way out, a sentence: `did you mean "upstreams"?`. */
  readonly hint?: string;
  readonly file?: string;
  /** 1-based. */
  readonly line?: number;
  /** 1-based, in UTF-16 units. */
  readonly column?: number;
  /** Path inside the document: `services.orders.allow[0].methods`. */
  readonly path?: string;
};

/** `file:line:column` as far as it is known. */
export function place(problem: Problem): string {
  return [problem.file, problem.line, problem.column]
    .filter((part) => part !== undefined)
    .join(":");
}

/** Input that cannot be used. Carries every problem found, never only the first. */
export class BadInput extends Error {
  readonly problems: readonly Problem[];
  constructor(problems: readonly Problem[]) {
    super(problems.map((problem) => `${place(problem)} ${problem.message}`.trim()).join("\n"));
    this.problems = problems;
  }
}
