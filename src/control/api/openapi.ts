import { createApp, describe } from "./app.ts";
import type { ApiWorld } from "./operation.ts";

/** The text of `schema/openapi.json`: OpenAPI 3.1, two spaces, a newline at the end. The same on every machine. */
export function generateOpenApi(): string {
  // Adding routes asks nothing of the world; only answering does.
  const app = createApp({ needs: {}, store: {}, registry: {} } as unknown as ApiWorld);
  return `${JSON.stringify(describe(app), null, 2)}\n`;
}
