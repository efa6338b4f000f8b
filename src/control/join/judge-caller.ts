import type { X509Certificate } from "node:crypto";
import type { TLSSocket } from "node:tls";
import type { Plane, PrincipalKind } from "../../model/principal.ts";
import {
  chainOf,
  judgePeer,
  type Peer,
  type PeerVerdict,
  publicKeyOf,
  type Trust,
} from "../../policy/peer.ts";

/**
 * Whose leaf the handshake proved, as one plane and the given kinds see it. Fails closed: `policy/peer` says why not.
 * OpenSSL judged against the roots of both planes together, so its word cannot stand for either of them alone.
 */
export function judgeCaller(
  socket: TLSSocket,
  options: {
    readonly plane: Plane;
    readonly kinds: readonly PrincipalKind[];
    readonly trust: Trust;
    readonly nowMs: number;
  },
): {
  readonly leaf: X509Certificate | undefined;
  /** SHA-256 of its SPKI, base64url; empty, which no record is, without a leaf. */
  readonly publicKey: string;
  readonly verdict: PeerVerdict;
} {
  const leaf = socket.getPeerX509Certificate();
  const verdict = judgePeer({
    leaf,
    chain: leaf ? chainOf(leaf) : [],
    opensslSays: socket.authorizationError ? String(socket.authorizationError) : undefined,
    nowMs: options.nowMs,
    trust: options.trust,
    expect: { plane: options.plane, kinds: options.kinds, purpose: "client" },
  });
  return { leaf, publicKey: leaf ? publicKeyOf(leaf) : "", verdict };
}

/**
 * For renewal, which either plane may ask for, also with a leaf whose date is all that is wrong: then `isLapsed` is true and issuing
 * decides about grace. Fails closed as `judgeCaller`; the refusal is the plane's that knew the leaf best.
 */
export function judgeRenewer(
  socket: TLSSocket,
  options: { readonly trust: Trust; readonly nowMs: number },
): Renewer {
  let refusal: Extract<PeerVerdict, { ok: false }> | undefined;
  for (const plane of ["data", "control"] as const) {
    const kinds = renewing[plane];
    const { leaf, verdict } = judgeCaller(socket, { plane, kinds, ...options });
    if (verdict.ok && leaf) return { ok: true, leaf, plane, peer: verdict, isLapsed: false };
    if (verdict.ok) break;
    if (verdict.lapsed && leaf)
      return { ok: true, leaf, plane, peer: verdict.lapsed, isLapsed: true };
    // "The other plane's" is no reason here: that plane is asked as well.
    if (!refusal || refusal.code === "other_plane") refusal = verdict;
  }
  return {
    ok: false,
    refusal: refusal ?? { ok: false, code: "no_certificate", detail: "none presented" },
  };
}

/** The control plane renews its own leaf itself; it has no business at its own door. */
const renewing: Readonly<Record<Plane, readonly PrincipalKind[]>> = {
  data: ["service", "gate"],
  control: ["gate", "admin", "automation", "auditor"],
};

export type Renewer =
  | {
      readonly ok: true;
      readonly leaf: X509Certificate;
      readonly plane: Plane;
      readonly peer: Peer;
      readonly isLapsed: boolean;
    }
  | { readonly ok: false; readonly refusal: Extract<PeerVerdict, { ok: false }> };
