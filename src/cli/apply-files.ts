import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Problem } from "../base/problem.ts";
import { ApiRefused, createControlClient } from "../control/client/client.ts";
import { readCredentials } from "../identity/credentials/credential-directory.ts";

export type ApplyAnswer = {
  /** What gates serve by now, `epoch.version`; undefined when nothing was published. */
  readonly published?: string;
  readonly changes: number;
  readonly problems: readonly Problem[];
  /** Why the control plane said no. */
  readonly refused?: string;
};

/**
 * Publishes a register through the API as the administrator whose credentials lie in `adminDir`, whatever stands there now:
 * for whoever's file is the source of truth. Rejects with `ApiUnreachable`; a refusal is an answer.
 */
export async function applyFiles(
  adminDir: string,
  files: readonly { readonly name: string; readonly text: string }[],
): Promise<ApplyAnswer> {
  const context = JSON.parse(readFileSync(join(adminDir, "context.json"), "utf8")) as {
    api: string;
    trustDomain: string;
  };
  const credentials = await readCredentials(adminDir);
  const client = createControlClient({ ...context, credentials, clock: () => Date.now() });
  try {
    const { body } = await client.call("PUT", "/v1/register", {
      query: { force: true },
      body: { files },
    });
    const { published, snapshot, changes, problems } = body as {
      published: boolean;
      snapshot?: string;
      changes: readonly unknown[];
      problems: readonly Problem[];
    };
    return {
      ...(published && snapshot !== undefined && { published: snapshot }),
      changes: changes.length,
      problems,
    };
  } catch (cause) {
    if (!(cause instanceof ApiRefused)) throw cause;
    return { changes: 0, problems: cause.problems, refused: cause.message };
  } finally {
    client.close();
  }
}
