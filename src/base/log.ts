/** The program's own log (not the hit log): structured fields first, then a sentence. Never given a secret. */
export type Log = {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
};

/** Says nothing: for pure code under test. */
export const silentLog: Log = { info() {}, warn() {}, error() {} };
