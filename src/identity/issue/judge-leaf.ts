import type { X509Certificate } from "node:crypto";
import type { Plane, PrincipalKind } from "../../model/principal.ts";
import { judgePeer, type Peer } from "../../policy/peer.ts";
import type { Authority } from "../authority/authority.ts";
import { IssueRefused, issueRefusals } from "./refused.ts";

export type JudgedLeaf = Peer & { readonly plane: Plane; readonly isExpired: boolean };

const kinds: readonly PrincipalKind[] = ["service", "gate", "admin", "automation", "auditor"];

/**
 * Whose leaf this is, proven link by link against our own issuing and root keys of that plane, whatever anybody's TLS library
 * said about it: an expired certificate forged under a stranger's authority is reported as merely expired. Everything but the
 * end of the leaf's life is judged here, so that only that is left to excuse. The key must have been proven in a handshake
 * before. Fails closed: throws `unknown_issuer` (the other plane's too), `wrong_purpose`, `bad_identity`, `not_yet_valid`, or
 * `expired` when it is an authority's certificate that has ended.
 */
export function judgeLeaf(
  leaf: X509Certificate,
  plane: Plane,
  options: { readonly authorities: Readonly<Record<Plane, Authority>>; readonly nowMs: number },
): JudgedLeaf {
  const authority = options.authorities[plane];
  const verdict = judgePeer({
    leaf,
    // Ours, never the peer's: what it sent along is not even looked at.
    chain: authority
      .issuers()
      .map(({ issuing }) => issuing)
      .filter((issuing) => leaf.checkIssued(issuing)),
    opensslSays: undefined,
    nowMs: options.nowMs,
    trust: {
      trustDomain: authority.trustDomain,
      bundles: { [plane]: authority.issuers().map(({ root }) => root) },
    },
    expect: { plane, kinds, purpose: "client" },
  });
  if (verdict.ok) return { ...verdict, plane, isExpired: false };
  if (verdict.lapsed) return { ...verdict.lapsed, plane, isExpired: true };
  const { code } = verdict;
  throw new IssueRefused(isOurs(code) ? code : "bad_identity", { message: verdict.detail });
}

function isOurs(code: string): code is keyof typeof issueRefusals {
  return Object.hasOwn(issueRefusals, code);
}
