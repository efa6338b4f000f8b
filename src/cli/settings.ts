/** One environment variable that sallyport reads. What belongs to the register is in the register, not here. */
type Setting = {
  readonly env: string;
  /** What holds without it, as a person would write it; empty: nothing. */
  readonly value: string;
  readonly why: string;
};

/** The one place where an environment variable is named, defaulted and explained. `sallyport settings` and docs/settings.md print it. */
export const settings = {
  state: {
    env: "SALLYPORT_STATE",
    value: ".sallyport beside the register",
    why: "where keys, the store and the hit log lie; --state wins over it",
  },
  context: {
    env: "SALLYPORT_CONTEXT",
    value: "the nearest .sallyport/admin at or above the working directory",
    why: "which control plane commands talk to, and as whom; --context wins over it",
  },
  token: {
    env: "SALLYPORT_TOKEN",
    value: "",
    why: "an enrolment token for enroll, where neither a file nor standard input will do; never an argument, and never handed on to child processes",
  },
  log: {
    env: "SALLYPORT_LOG",
    value: "text",
    why: "how the program's own log is written to standard error: text for people, json for collectors",
  },
  drainMs: {
    env: "SALLYPORT_DRAIN_MS",
    value: "30000",
    why: "how long a gate may take to finish what it has begun before it is killed; 30 s is what orchestrators usually give",
  },
  debug: {
    env: "SALLYPORT_DEBUG",
    value: "",
    why: "when set, a fault of sallyport's own is shown with its stack",
  },
  noColor: {
    env: "NO_COLOR",
    value: "",
    why: "when set, nothing is coloured, as https://no-color.org asks",
  },
} as const satisfies Record<string, Setting>;

/** The variable's text; undefined when it is not set or empty. */
export function readSetting(name: keyof typeof settings): string | undefined {
  return process.env[settings[name].env] || undefined;
}

/** `SALLYPORT_DRAIN_MS`, ms. Throws a `RangeError` that says what was expected: a time-out must not be guessed. */
export function readDrainMs(): number {
  const text = readSetting("drainMs") ?? settings.drainMs.value;
  if (!/^\d{1,7}$/.test(text))
    throw new RangeError(`${settings.drainMs.env} is "${text}"; write milliseconds, 0 to 9999999`);
  return Number(text);
}

/** `docs/settings.md`, generated. */
export function renderSettingsDoc(): string {
  const rows = Object.values(settings).map(
    ({ env, value, why }) => `| \`${env}\` | ${value || "not set"} | ${why} |`,
  );
  return `${[
    "# Settings",
    "",
    "What decides who may reach what is in the register. These environment variables are about the program itself.",
    "",
    "| variable | without it | why |",
    "|---|---|---|",
    ...rows,
  ].join("\n")}\n`;
}
