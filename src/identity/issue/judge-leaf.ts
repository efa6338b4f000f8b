import type { X509Certificate } from "node:crypto";
import type { Principal } from "../../model/principal.ts";
import { type Plane, parsePrincipal, principalKinds, principalOf } from "../../model/principal.ts";
import { IssueRefused } from "./refused.ts";

type Chain = { readonly issuing: X509Certificate; readonly root: X509Certificate };

const clientAuth = "1.3.6.1.5.5.7.3.2";

/**
 * Whose leaf this is, proven link by link against our own issuing and root keys, whatever anybody's TLS library said about
 * it: an expired certificate forged under a stranger's authority is reported as merely expired. Everything but the date is
 * judged here, so that only the date is left to excuse. The key must have been proven in a handshake before.
 * Fails closed: throws `unknown_issuer`, `wrong_purpose` or `bad_identity`.
 */
export function judgeLeaf(
  leaf: X509Certificate,
  plane: Plane,
  options: { readonly issuers: readonly Chain[]; readonly trustDomain: string },
): { readonly principal: Principal; readonly notBeforeMs: number; readonly notAfterMs: number } {
  const chain = options.issuers.find(
    ({ issuing, root }) =>
      leaf.checkIssued(issuing) &&
      leaf.verify(issuing.publicKey) &&
      issuing.checkIssued(root) &&
      issuing.verify(root.publicKey),
  );
  if (!chain) throw new IssueRefused("unknown_issuer");
  if (leaf.ca || !leaf.keyUsage?.includes(clientAuth)) throw new IssueRefused("wrong_purpose");
  const principal = principalIn(leaf, plane, options.trustDomain);
  if (!principal) throw new IssueRefused("bad_identity");
  return {
    principal,
    notBeforeMs: Date.parse(leaf.validFrom),
    notAfterMs: Date.parse(leaf.validTo),
  };
}

/** Exactly one URI, of the trust domain, of a kind that the plane has. Node escapes and quotes names that hold a comma, so splitting is safe. */
function principalIn(
  leaf: X509Certificate,
  plane: Plane,
  trustDomain: string,
): Principal | undefined {
  const uris = (leaf.subjectAltName ?? "").split(", ").filter((name) => name.startsWith("URI:"));
  const parts = uris.length === 1 ? parsePrincipal(uris[0]?.slice(4) ?? "") : undefined;
  if (parts?.trustDomain !== trustDomain) return undefined;
  return (principalKinds[parts.kind] as readonly Plane[]).includes(plane)
    ? principalOf(parts)
    : undefined;
}
