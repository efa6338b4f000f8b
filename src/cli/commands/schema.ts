import { Command } from "commander";
import { generateSchema } from "../../model/register/generate-schema.ts";
import { output } from "../output.ts";

/** `sallyport schema`: what editors complete and check `sallyport.yaml` with. */
export function command(): Command {
  return new Command("schema")
    .description("print the JSON Schema of the register, for editors")
    .option("--json", "the same: a JSON Schema is JSON")
    .addHelpText(
      "after",
      `
Examples:
  sallyport schema > sallyport.schema.json
Then, as the first line of sallyport.yaml (for the YAML language server):
  # yaml-language-server: $schema=./sallyport.schema.json
Exit code: 0.`,
    )
    .action(() => output.json(generateSchema()));
}
