import type { X509Certificate } from "node:crypto";
import { shortName } from "../../model/principal.ts";
import type { RefusalCode } from "../../model/refusal.ts";
import { isRevoked, judgePeer, type Trust } from "../../policy/peer.ts";
import type { View } from "../../policy/view.ts";
import type { Secured } from "../accept/arrivals.ts";
import type { Caller } from "./caller.ts";

/** Why a peer is turned away. `claimed` is only what it said. */
export type Stranger = {
  readonly code: RefusalCode;
  /** Set once the key was proven: the identity is real, it just may not come in. */
  readonly caller?: Caller;
  readonly claimed?: string;
  readonly detail: string;
};

/**
 * Who it is, from the leaf whose key the handshake proved, before a byte of the peer's is parsed. Fails closed: no certificate, another
 * issuer, another plane, another kind, wrong dates, no view, not registered, revoked: each is a reason of its own.
 */
export function identify(
  secured: Pick<Secured, "leaf" | "opensslSays">,
  view: View | undefined,
  with_: { trust: Trust; nowMs: number },
): { readonly caller: Caller } | { readonly stranger: Stranger } {
  const judged = judgePeer({
    leaf: secured.leaf,
    chain: chainOf(secured.leaf),
    opensslSays: secured.opensslSays,
    nowMs: with_.nowMs,
    trust: with_.trust,
    expect: { plane: "data", kinds: ["service"], purpose: "client" },
  });
  if (!judged.ok) {
    const { code, claimed, detail } = judged;
    return { stranger: { code, detail, ...(claimed !== undefined && { claimed }) } };
  }
  const caller: Caller = {
    name: judged.principal.name,
    uri: judged.uri,
    shortName: shortName(judged.principal),
    serial: judged.serial,
    notBeforeMs: judged.notBeforeMs,
    notAfterMs: judged.notAfterMs,
    root: judged.root,
  };
  const code = whyNotIn(caller, view);
  return code === undefined ? { caller } : { stranger: { code, caller, detail: caller.uri } };
}

/** Fails closed: whom the view does not know, or knows to be revoked, is not let in. Asked again with every new view. */
export function whyNotIn(caller: Caller, view: View | undefined): RefusalCode | undefined {
  if (view === undefined) return "no_view";
  if (isRevoked(view.revocations, caller)) return "revoked";
  if (!view.services.has(caller.name)) return "not_registered";
  return undefined;
}

/** What the peer sent above its leaf, as OpenSSL linked it; bounded, because the last one may name itself. */
function chainOf(leaf: X509Certificate | undefined): readonly X509Certificate[] {
  const chain: X509Certificate[] = [];
  let next = leaf?.issuerCertificate;
  while (next !== undefined && chain.length < 4) {
    chain.push(next);
    next = next.issuerCertificate;
  }
  return chain;
}
