import type { X509Certificate } from "node:crypto";
import { type Plane, principalKinds } from "../../model/principal.ts";
import { factsOf, type LeafFacts, leadsToRoot } from "../leaf-facts.ts";
import { IssueRefused } from "./refused.ts";

type Issuer = { readonly issuing: X509Certificate; readonly root: X509Certificate };

const clientAuth = "1.3.6.1.5.5.7.3.2";

/**
 * Whose leaf this is and of which plane, proven link by link against our own issuing and root keys, whatever anybody's TLS
 * library said about it: an expired certificate forged under a stranger's authority is reported as merely expired.
 * Everything but the date is judged here, so that only the date is left to excuse. The key must have been proven in a handshake
 * before. Fails closed: throws `unknown_issuer`, `wrong_purpose` or `bad_identity`.
 */
export function judgeLeaf(
  leaf: X509Certificate,
  options: {
    readonly issuers: Readonly<Record<Plane, readonly Issuer[]>>;
    readonly trustDomain: string;
  },
): LeafFacts & { readonly plane: Plane } {
  const plane = (["control", "data"] as const).find((plane) =>
    options.issuers[plane].some(({ issuing, root }) => leadsToRoot([leaf, issuing], [root])),
  );
  if (!plane) throw new IssueRefused("unknown_issuer");
  if (!leaf.keyUsage?.includes(clientAuth)) throw new IssueRefused("wrong_purpose");
  const facts = factsOf(leaf);
  if (
    facts?.parts.trustDomain !== options.trustDomain ||
    !(principalKinds[facts.parts.kind] as readonly Plane[]).includes(plane)
  )
    throw new IssueRefused("bad_identity");
  return { ...facts, plane };
}
