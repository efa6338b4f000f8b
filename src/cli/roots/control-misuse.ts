import type { Clock } from "../../base/clock.ts";
import type { RecordHit } from "../../control/needs.ts";
import type { Registry } from "../../control/registry/registry.ts";
import type { ControlStore } from "../../control/store/store.ts";
import type { IssuanceOptions } from "../../identity/issue/issuance.ts";
import type { IssuedRecord } from "../../model/issued.ts";
import { parsePrincipal, shortName } from "../../model/principal.ts";
import type { Warning } from "../../model/warning.ts";

/** What is done when issuing finds that a token or a key has two holders. */
export function answerMisuse(options: {
  readonly store: Pick<ControlStore, "isRevoked">;
  readonly registry: Pick<Registry, "revoke">;
  readonly record: RecordHit;
  readonly raise: (warning: Warning) => void;
  readonly clock: Clock;
  /** `control/control`: who revokes. */
  readonly by: string;
}): Pick<IssuanceOptions, "onTokenReuse" | "onLineageFork"> {
  const { by, clock, raise, record, registry, store } = options;

  async function revokeLeaves(leaves: readonly IssuedRecord[]): Promise<void> {
    const lines = new Map(leaves.map((leaf) => [`${leaf.plane} ${leaf.lineage}`, leaf]));
    for (const leaf of lines.values()) {
      // Whoever goes on showing the spent token must not make a new snapshot of it each time.
      if (await store.isRevoked(leaf)) continue;
      const { plane, serial } = leaf;
      const { revocation } = await registry.revoke({ author: { name: by }, plane, serial });
      const { principal } = revocation;
      record(
        {
          at: clock(),
          plane: "join",
          kind: "action",
          decision: "allowed",
          caller: by,
          action: "revoke",
          detail: `${principal} serial ${serial}: its token came with a second key`,
        },
        { essential: true },
      );
    }
  }

  return {
    onTokenReuse: async (token, issued) => {
      raise({
        id: `token-reuse:${token.hash.slice(0, 16)}`,
        at: clock(),
        detector: "token-reuse",
        severity: "critical",
        says: `an enrolment token of ${nameOf(token.principal)} came with a second key: one of the two was not meant to have it, and what it bought is revoked`,
        hits: [],
        count: 1,
      });
      await revokeLeaves(issued);
    },
    onLineageFork: async (leaf) => {
      raise({
        id: `lineage-fork:${leaf.lineage}`,
        at: clock(),
        detector: "lineage-fork",
        severity: "critical",
        says: `a certificate of ${nameOf(leaf.principal)} was renewed twice with two keys: its key was copied. Revoke it: sallyport revoke --serial ${leaf.serial}`,
        hits: [],
        count: 1,
      });
    },
  };
}

function nameOf(principal: string): string {
  const parts = parsePrincipal(principal);
  return parts ? shortName(parts) : principal;
}
