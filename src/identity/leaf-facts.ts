import { X509Certificate } from "node:crypto";
import { certificatesIn } from "../base/secure-context.ts";
import {
  type Principal,
  type PrincipalParts,
  parsePrincipal,
  principalOf,
} from "../model/principal.ts";

/** What a leaf says about itself. Believe it only once the chain is judged. */
export type LeafFacts = {
  readonly leaf: X509Certificate;
  readonly principal: Principal;
  readonly parts: PrincipalParts;
  /** Lower-case hex. */
  readonly serial: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
};

/** Undefined unless it names exactly one principal, in its canonical spelling. Node quotes names that hold a comma, so splitting is safe. */
export function factsOf(leaf: X509Certificate): LeafFacts | undefined {
  const uris = (leaf.subjectAltName ?? "").split(", ").filter((name) => name.startsWith("URI:"));
  const parts = uris.length === 1 ? parsePrincipal(uris[0]?.slice(4) ?? "") : undefined;
  if (!parts) return undefined;
  return {
    leaf,
    principal: principalOf(parts),
    parts,
    serial: leaf.serialNumber.toLowerCase(),
    notBeforeMs: Date.parse(leaf.validFrom),
    notAfterMs: Date.parse(leaf.validTo),
  };
}

/** The first certificate of a chain. Throws when there is none, or when it names no principal. */
export function leafOf(chainPem: string): LeafFacts {
  const [first] = certificatesIn(chainPem);
  const facts = first === undefined ? undefined : factsOf(new X509Certificate(first));
  if (!facts) throw new Error("the chain does not begin with a leaf that names a principal");
  return facts;
}

/**
 * Whether the first certificate leads, link by link and by signature, over the second to one of the roots. Fails closed; says
 * nothing about dates of the leaf, names or usage.
 */
export function leadsToRoot(
  chain: readonly X509Certificate[],
  roots: readonly X509Certificate[],
): boolean {
  const [leaf, issuing] = chain;
  return (
    leaf !== undefined &&
    issuing !== undefined &&
    !leaf.ca &&
    issuing.ca &&
    leaf.checkIssued(issuing) &&
    leaf.verify(issuing.publicKey) &&
    roots.some(
      (root) =>
        root.ca &&
        root.checkIssued(root) &&
        root.verify(root.publicKey) &&
        issuing.checkIssued(root) &&
        issuing.verify(root.publicKey),
    )
  );
}
