import type { X509Certificate } from "node:crypto";
import type { Revocation } from "../model/snapshot.ts";
import { isTrustedRoot, type Trust } from "../policy/peer.ts";
import type { View } from "../policy/view.ts";
import { bounds } from "./bounds.ts";
import { whyNotIn } from "./identify/identify.ts";
import type { Session } from "./session.ts";

/** Every open session of a worker, findable by who it belongs to, so that a revocation cuts it without a search. */
export class Sessions {
  readonly #byCaller = new Map<string, Set<Session>>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Fails closed: false when this caller has all the connections it may have. */
  add(session: Session): boolean {
    const of = this.#byCaller.get(session.caller.name) ?? new Set();
    if (of.size >= bounds.connectionsPerCaller) return false;
    of.add(session);
    this.#byCaller.set(session.caller.name, of);
    this.#size++;
    return true;
  }

  remove(session: Session): void {
    const of = this.#byCaller.get(session.caller.name);
    if (of?.delete(session) !== true) return;
    this.#size--;
    if (of.size === 0) this.#byCaller.delete(session.caller.name);
  }

  /** Cuts what a revocation covers, ahead of the view that will say the same. */
  revoke(revocation: Revocation): void {
    const [, name = ""] = revocation.principal.split("/");
    for (const session of [...(this.#byCaller.get(name) ?? [])]) {
      const { shortName, serial, notBeforeMs } = session.caller;
      if (shortName !== revocation.principal) continue;
      const isMeant =
        revocation.serial === undefined
          ? notBeforeMs <= revocation.at
          : revocation.serial === serial || revocation.lineage !== undefined;
      // With a lineage, which leaves descend from it is only known to control: its successors re-enter by themselves.
      if (isMeant) session.cut("revoked");
    }
  }

  /** Cuts whoever came in under a root that is trusted no more. */
  retrust(trust: Trust): void {
    const known = new Map<X509Certificate, boolean>();
    for (const session of this.#all()) {
      const { root } = session.caller;
      const isTrusted = known.get(root) ?? isTrustedRoot(root, trust, "data");
      known.set(root, isTrusted);
      if (!isTrusted) session.cut("unknown_issuer");
    }
  }

  /** Asks everything that is open again under a new view. */
  reconsider(view: View): void {
    for (const session of this.#all()) {
      const code = whyNotIn(session.caller, view);
      if (code !== undefined) session.cut(code);
      else session.reconsider(view);
    }
  }

  sweep(monotonicMs: number, clockMs: number): void {
    for (const session of this.#all()) session.sweep(monotonicMs, clockMs);
  }

  drain(): void {
    for (const session of this.#all()) session.drain();
  }

  /** Cuts everything that is left. */
  close(): void {
    for (const session of this.#all()) session.cut("draining");
  }

  #all(): Session[] {
    return [...this.#byCaller.values()].flatMap((of) => [...of]);
  }
}
