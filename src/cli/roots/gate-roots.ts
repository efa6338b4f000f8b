import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Log } from "../../base/log.ts";
import { certificatesIn } from "../../base/secure-context.ts";
import { keyId } from "../../base/signature.ts";
import type { HeldPlaneRoots, HeldRoots, Roots } from "../../feed/needs.ts";
import { parseDown } from "../../feed/protocol.ts";
import type { StoredCredentials } from "../../identity/credentials/credential-directory.ts";
import { writeFileDurably } from "../../identity/durable-files.ts";
import { leadsToRoot } from "../../identity/leaf-facts.ts";
import type { Plane } from "../../model/principal.ts";

/** Both sets of a gate's credentials, as they lie on disk. */
export type GateSets = { readonly [plane in Plane]: StoredCredentials };

/**
 * The roots that control last said it trusts. They only take away from what lies in the gate's own bundles, wherever those are used,
 * so it does not matter what a renewal brings that was under way when a root was retired.
 */
export type GateRoots = {
  /** True when this is news. In force at the next look; resolves once it outlives a restart. */
  take(roots: Roots): { readonly isNews: boolean; readonly kept: Promise<void> };
  /** A new enrolment begins anew: its control plane may be another one. */
  forget(): Promise<void>;
  /** The set without roots that were retired. A bundle of it can be empty: then nobody is trusted. */
  narrowed(held: StoredCredentials): StoredCredentials;
  /** What becomes of these sets. Undefined before control said anything. */
  held(sets: GateSets): HeldRoots | undefined;
  /** Whether a renewal would bring something: a root that is trusted, or a leaf under the one that signs. */
  lacks(plane: Plane, held: StoredCredentials): boolean;
};

/** Reads what was kept in `file`; one that cannot be read is none, because control says it all again with the next connection. */
export function openGateRoots(options: { readonly file: string; readonly log: Log }): GateRoots {
  const { file, log } = options;
  let roots = readKept(file);
  let last: Promise<void> = Promise.resolve();

  function keep(text: string): Promise<void> {
    last = last
      .then(() => writeFileDurably(file, text))
      .catch((cause) => log.error({ err: cause }, "which roots are trusted could not be kept"));
    return last;
  }

  function bundleOf(plane: Plane, pem: string): string {
    if (roots === undefined) return pem;
    const trusted = new Set(roots[plane].trusted);
    const all = certificatesIn(pem).map((one) => new X509Certificate(one));
    const kept = all.filter((one) => isRoot(one) && trusted.has(nameOf(one)));
    const links = all.filter((one) => !isRoot(one) && kept.some((root) => one.checkIssued(root)));
    return [...kept, ...links].map(String).join("");
  }

  function narrowed(held: StoredCredentials): StoredCredentials {
    const { identity } = held;
    if (!identity) return held;
    return {
      ...held,
      bundlePem: bundleOf(identity.plane, held.bundlePem),
      identity: { ...identity, controlBundle: bundleOf("control", identity.controlBundle) },
    };
  }

  function heldIn(plane: Plane, { control, data }: GateSets): HeldPlaneRoots {
    const own = plane === "control" ? control : data;
    const bundles =
      plane === "data"
        ? [data.bundlePem]
        : [control, data].map((set) => set.identity?.controlBundle ?? "");
    // Of the control plane each set has its own copy: only what both know helps both to renew.
    const [first = [], ...others] = bundles.map((pem) => rootsIn(pem));
    return {
      trusted: first
        .map(nameOf)
        .filter((name) => others.every((roots) => roots.some((one) => nameOf(one) === name))),
      leaf: leafRoot(own),
    };
  }

  return {
    take(next) {
      const isNews = JSON.stringify(next) !== JSON.stringify(roots);
      roots = next;
      const kept = isNews
        ? keep(`${JSON.stringify({ type: "roots", control: next.control, data: next.data })}\n`)
        : last;
      return { isNews, kept };
    },
    forget() {
      roots = undefined;
      return keep("");
    },
    narrowed,
    held(sets) {
      if (roots === undefined) return undefined;
      const left = { control: narrowed(sets.control), data: narrowed(sets.data) };
      return { control: heldIn("control", left), data: heldIn("data", left) };
    },
    lacks(plane, held) {
      if (roots === undefined) return false;
      const has = (pem: string, wanted: readonly string[]) => {
        const names = rootsIn(pem).map(nameOf);
        return wanted.every((name) => names.includes(name));
      };
      return !(
        has(held.bundlePem, roots[plane].trusted) &&
        has(held.identity?.controlBundle ?? "", roots.control.trusted) &&
        leafRoot(narrowed(held)) === roots[plane].active
      );
    },
  };
}

function readKept(file: string): Roots | undefined {
  try {
    const message = parseDown(readFileSync(file, "utf8").trim());
    return message.type === "roots" ? { control: message.control, data: message.data } : undefined;
  } catch {
    return undefined;
  }
}

/** Of the roots in the set's own bundle the one that its chain leads to. */
function leafRoot({ chainPem, bundlePem }: StoredCredentials): string | null {
  const chain = certificatesIn(chainPem).map((one) => new X509Certificate(one));
  const root = rootsIn(bundlePem).find((one) => leadsToRoot(chain, [one]));
  return root ? nameOf(root) : null;
}

function rootsIn(pem: string): X509Certificate[] {
  return certificatesIn(pem)
    .map((one) => new X509Certificate(one))
    .filter(isRoot);
}

function isRoot(one: X509Certificate): boolean {
  return one.checkIssued(one);
}

function nameOf(root: X509Certificate): string {
  return keyId(root.publicKey.export({ format: "der", type: "spki" }));
}
