import type { Command } from "commander";

type Entry = {
  readonly name: string;
  readonly summary: string;
  readonly hidden?: boolean;
  /** Each file in `commands/` exports `command()`, a complete commander command with its examples. */
  readonly load: () => Promise<{ command(): Command }>;
};

/** Every command, in the order people meet them. */
export const commands: readonly Entry[] = [
  {
    name: "init",
    summary: "write a first register, by asking or by flags",
    load: () => import("./commands/init.ts"),
  },
  {
    name: "check",
    summary: "read the register and say everything that is wrong with it, in one run",
    load: () => import("./commands/check.ts"),
  },
  {
    name: "explain",
    summary: "say whether a call would be let through, by which rule, and why not by the others",
    load: () => import("./commands/explain.ts"),
  },
  {
    name: "up",
    summary: "run a control plane and a gate on this machine, from a register",
    load: () => import("./commands/up.ts"),
  },
  {
    name: "prove",
    summary: "try what the register allows and what must never work, against a running gate",
    load: () => import("./commands/prove.ts"),
  },
  {
    name: "schema",
    summary: "print the JSON Schema of the register, for editors",
    load: () => import("./commands/schema.ts"),
  },
  {
    name: "apply",
    summary: "publish the register: shows what changes, asks, and tells every gate",
    load: () => import("./commands/apply.ts"),
  },
  {
    name: "diff",
    summary: "say what applying the register would change",
    load: () => import("./commands/diff.ts"),
  },
  {
    name: "status",
    summary: "say how control, gates and identities are, and what can be gone around",
    load: () => import("./commands/status.ts"),
  },
  {
    name: "history",
    summary: "list the versions of the register, who made them, when and why",
    load: () => import("./commands/history.ts"),
  },
  {
    name: "rollback",
    summary: "publish the register of an older version again; revocations stay",
    load: () => import("./commands/rollback.ts"),
  },
  {
    name: "token",
    summary: "make, list and void single-use enrolment tokens",
    load: () => import("./commands/token.ts"),
  },
  {
    name: "revoke",
    summary: "stop admitting a principal, or one certificate with all that were renewed from it",
    load: () => import("./commands/revoke.ts"),
  },
  {
    name: "ca",
    summary: "look at the two certificate authorities, and rotate them",
    load: () => import("./commands/ca.ts"),
  },
  {
    name: "enroll",
    summary: "turn an enrolment token into a key and a certificate, and keep them fresh",
    load: () => import("./commands/enroll.ts"),
  },
  {
    name: "hits",
    summary: "show every hit on internal ports, follow them, verify the log",
    load: () => import("./commands/hits.ts"),
  },
  {
    name: "control",
    summary: "run the control plane alone; its gates are elsewhere",
    load: () => import("./commands/control.ts"),
  },
  {
    name: "gate",
    summary: "run one gate; its control plane is elsewhere",
    load: () => import("./commands/gate.ts"),
  },
  {
    name: "render",
    summary: "write what a register means for another tool: compose",
    load: () => import("./commands/render.ts"),
  },
  {
    name: "settings",
    summary: "print the environment variables that sallyport reads",
    load: () => import("./commands/settings.ts"),
  },
  {
    name: "completion",
    summary: "print a completion script for a shell",
    // Handed the table, which it cannot import: the table imports it.
    load: async () => {
      const completion = await import("./commands/completion.ts");
      return { command: () => completion.command(commands) };
    },
  },
];
