import { root } from "./fields.ts";
import type { JsonSchema } from "./shape.ts";

/** JSON Schema (draft 2020-12) of the main file, for editors. It is looser than `parseRegister`, never stricter. */
export function generateSchema(): JsonSchema {
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "Sallyport register",
    description: "Every internal port, who owns it, what stands behind it, and who may reach it.",
    ...root.schema,
  };
}
