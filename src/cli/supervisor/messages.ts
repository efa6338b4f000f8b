/** What a root says to its supervisor over IPC. */
export type FromChild =
  /** Wants `copies` duplicates of one listening descriptor. `id` is chosen by the child and comes back in every answer. */
  | {
      readonly kind: "listen";
      readonly id: number;
      /** An IP literal that the bind guard has passed. */
      readonly host: string;
      /** 0: one of the supervisor's choosing, the same again after a restart. */
      readonly port: number;
      readonly copies: number;
    }
  | { readonly kind: "release"; readonly host: string; readonly port: number }
  | { readonly kind: "ready"; readonly doors: Doors }
  /** Anything else goes to `onMessage`. */
  | { readonly kind: string };

/** What a supervisor says to a root. */
export type ToChild =
  /** One duplicate, with the handle beside the message; `port` is the bound one. */
  | {
      readonly kind: "descriptor";
      readonly id: number;
      readonly host: string;
      readonly port: number;
    }
  | {
      readonly kind: "listen-failed";
      readonly id: number;
      readonly host: string;
      readonly port: number;
      /** `EADDRINUSE`, `EACCES` … */
      readonly code: string;
      /** What is wrong and what to do about it, for people. */
      readonly message: string;
    }
  | { readonly kind: "drain" };

/** Name of a door → `host:port` it was bound to. */
export type Doors = Readonly<Record<string, string>>;

/** A listening socket as `node:net` has it inside, and as it crosses to a child. */
export type Descriptor = {
  /** Undefined on Windows. */
  readonly fd?: number;
  getsockname(out: { address?: string; port?: number; family?: string }): number;
  close(done?: () => void): void;
};

/** More copies than any machine has cores: a child that asks for more is wrong. */
export const copiesMax = 256;
