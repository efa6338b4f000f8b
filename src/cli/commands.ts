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
    name: "explain",
    summary: "say whether a call would be let through, by which rule, and why not by the others",
    load: () => import("./commands/explain.ts"),
  },
];
