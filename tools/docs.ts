import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { renderSettingsDoc } from "../src/cli/settings.ts";
import { generateOpenApi } from "../src/control/api/openapi.ts";
import { generateSchema } from "../src/model/register/generate-schema.ts";

/**
 * `npm run docs` writes every generated file; with `--check` it writes nothing and ends non-zero where one is out of date. What is
 * generated: the settings page, the picture of imports, the description of the API and the register's JSON Schema.
 */
const generated: Readonly<Record<string, () => string>> = {
  "docs/settings.md": renderSettingsDoc,
  "docs/imports.mmd": importPicture,
  "schema/openapi.json": generateOpenApi,
  "schema/sallyport.schema.json": () => `${JSON.stringify(generateSchema(), null, 2)}\n`,
};

const checking = process.argv.includes("--check");
for (const [file, make] of Object.entries(generated)) {
  const text = make();
  if (existsSync(file) && readFileSync(file, "utf8") === text) continue;
  if (!checking) writeFileSync(file, text);
  else {
    process.stdout.write(`${file} is out of date: npm run docs\n`);
    process.exitCode = 1;
  }
}

/** Rooms as nodes, imports between them as arrows: a new arrow shows in the diff. */
function importPicture(): string {
  const arrows = new Set<string>();
  const src = "src";
  for (const entry of readdirSync(src, { recursive: true, encoding: "utf8" })) {
    if (!entry.endsWith(".ts") || entry.endsWith(".test.ts")) continue;
    const from = room(entry);
    for (const [, target] of readFileSync(join(src, entry), "utf8").matchAll(
      /\bfrom\s+"(\.[^"]+)"/g,
    )) {
      const to = room(normalize(join(dirname(entry), target ?? "")));
      if (to !== from) arrows.add(`  ${from} --> ${to}`);
    }
  }
  return `graph TD\n${[...arrows].sort().join("\n")}\n`;
}

/** `proxy/accept` is the room of `proxy/accept/listen.ts`; files right in an organ are the organ's own. */
function room(file: string): string {
  const parts = file.split("/");
  return parts.length > 2 ? `${parts[0]}/${parts[1]}` : (parts[0] ?? "");
}
