import { readFileSync } from "node:fs";

/** The version of the package, as package.json has it: beside `src` in a clone, beside `dist` when installed. */
export const version: string = (
  JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
    version: string;
  }
).version;
