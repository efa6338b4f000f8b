/** 0 ok · 1 findings or refused · 2 wrong usage or could not analyse · 3 control plane unreachable. */
export type ExitCode = 0 | 1 | 2 | 3;

/** Ends a command: what is wrong, what to do next, and the exit code. Never shown with a stack. */
export class Exit extends Error {
  readonly code: ExitCode;
  readonly hint: string | undefined;
  constructor(code: ExitCode, message: string, hint?: string) {
    super(message);
    this.code = code;
    this.hint = hint;
  }
}
