import { createHash, type X509Certificate } from "node:crypto";
import {
  type Plane,
  type Principal,
  type PrincipalKind,
  type PrincipalParts,
  parsePrincipal,
  principalKinds,
  principalOf,
} from "../model/principal.ts";
import type { RefusalCode } from "../model/refusal.ts";
import type { Revocation } from "../model/snapshot.ts";
import type { Revocations } from "./view.ts";

/** The roots this process knows, and their issuing certificates, by plane. The other plane's are only there to tell its leaves from a stranger's. */
export type Trust = {
  readonly trustDomain: string;
  readonly bundles: {
    readonly data?: readonly X509Certificate[];
    readonly control?: readonly X509Certificate[];
  };
};

export type PeerQuestion = {
  /** The certificate whose key the handshake proved; `undefined`: none was presented. */
  readonly leaf: X509Certificate | undefined;
  /**
   * What the peer sent along, in any order (`chainOf`). At most the first four are looked at. Node 24 empties OpenSSL's list at the
   * first `getPeerX509Certificate()`, and makes that call itself where OpenSSL has no objection (`onServerSocketSecure`), so a
   * server sees it of refused peers only: the issuing certificates must be in the bundle.
   */
  readonly chain: readonly X509Certificate[];
  /** `authorizationError` as text; `undefined` when OpenSSL had no objection. */
  readonly opensslSays: string | undefined;
  readonly nowMs: number;
  readonly trust: Trust;
  readonly expect: {
    readonly plane: Plane;
    readonly kinds: readonly PrincipalKind[];
    /** What the peer is in this handshake. */
    readonly purpose: "client" | "server";
  };
};

export type Peer = {
  readonly principal: PrincipalParts;
  readonly uri: Principal;
  /** Lower-case hex. */
  readonly serial: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** Which root of ours it led to, so that what is open can be asked again when that one is trusted no more. */
  readonly root: X509Certificate;
};

export type PeerVerdict =
  | ({ readonly ok: true } & Peer)
  | {
      readonly ok: false;
      readonly code: RefusalCode;
      /** What the certificate says of itself. Never to be believed; printable, at most 256 characters. */
      readonly claimed?: string;
      /** For our log: what is wrong, and OpenSSL's word. */
      readonly detail: string;
      /** Only when `code` is `expired` and the date of the leaf is all that is wrong: who it was, for renewal within the grace. */
      readonly lapsed?: Peer;
    };

/**
 * Judges a peer's certificate. Fails closed.
 *
 * OpenSSL's word is never enough, in either direction: it names one failure of several (an expired leaf of a stranger's making is
 * reported as expired, like one of ours), so every link is verified here again, leaf to issuing certificate to root, by name, key and
 * date; and where OpenSSL objects although nothing is found here, the peer is refused all the same.
 *
 * Asked in this order, so that the first reason is the one that matters most: `no_certificate`, `unknown_issuer` or `other_plane`,
 * `wrong_purpose`, `bad_identity`, `not_yet_valid` or `expired`, then `handshake_failed` for what only OpenSSL sees.
 * Costs two signature checks for a new issuing certificate, one afterwards.
 */
export function judgePeer(question: PeerQuestion): PeerVerdict {
  const { leaf, opensslSays, trust, expect, nowMs } = question;
  const word = opensslSays === undefined ? "" : ` (OpenSSL: ${printable(opensslSays)})`;
  if (!leaf) return { ok: false, code: "no_certificate", detail: `none presented${word}` };
  let claimed: string | undefined;
  const no = (code: RefusalCode, detail: string): PeerVerdict => ({
    ok: false,
    code,
    ...(claimed && { claimed }),
    detail: `${detail}${word}`,
  });
  try {
    claimed = printable(leaf.subjectAltName ?? leaf.subject ?? "");
    const path = findPath(leaf, question.chain, trust, expect.plane, nowMs);
    if (!path) {
      const other = expect.plane === "data" ? "control" : "data";
      return findPath(leaf, question.chain, trust, other, nowMs)
        ? no("other_plane", `issued for the ${other} plane`)
        : no("unknown_issuer", `no path to a root of the ${expect.plane} plane`);
    }
    const names = subjectNames(leaf);
    if (!names) return no("bad_identity", "its names are missing, malformed or of another type");
    const [uri, ...others] = names.uris;
    const principal = uri !== undefined && others.length === 0 ? parsePrincipal(uri) : undefined;
    const unfit = purposeProblem(leaf, names.dns.length > 0, principal?.kind, expect.purpose);
    if (unfit) return no("wrong_purpose", unfit);
    if (!principal) return no("bad_identity", "it must name exactly one principal");
    const unwanted = identityProblem(principal, trust, expect);
    if (unwanted) return no("bad_identity", unwanted);
    const peer: Peer = {
      principal,
      uri: principalOf(principal),
      serial: leaf.serialNumber.toLowerCase(),
      notBeforeMs: leaf.validFromDate.getTime(),
      notAfterMs: leaf.validToDate.getTime(),
      root: path.root,
    };
    for (const [link, certificate] of [
      ["root", path.root] as const,
      ["issuing", path.issuing] as const,
    ]) {
      const code = dateProblem(certificate, nowMs);
      if (code) return no(code, `the date of the ${link} certificate`);
    }
    const code = dateProblem(leaf, nowMs);
    if (code === "expired" && nowMs > peer.notAfterMs) {
      const detail = `not valid after ${leaf.validToDate.toISOString()}${word}`;
      return { ok: false, code, ...(claimed && { claimed }), detail, lapsed: peer };
    }
    if (code) return no(code, `valid from ${leaf.validFrom} to ${leaf.validTo}`);
    if (opensslSays !== undefined) return no("handshake_failed", "refused by OpenSSL alone");
    return { ok: true, ...peer };
  } catch (cause) {
    // A certificate that Node could parse but not read any further.
    return no("bad_identity", `unreadable: ${printable(String(cause))}`);
  }
}

/** Whether a root that a peer led to is still one of a plane's. Fails closed. */
export function isTrustedRoot(root: X509Certificate, trust: Trust, plane: Plane): boolean {
  return (trust.bundles[plane] ?? []).some((one) => one === root || one.raw.equals(root.raw));
}

/**
 * The certificates that came along with a leaf, as Node links them. At most four. Only the first object that a socket's
 * `getPeerX509Certificate()` gives has them.
 */
export function chainOf(leaf: X509Certificate): readonly X509Certificate[] {
  const chain: X509Certificate[] = [];
  let next = leaf.issuerCertificate;
  while (next && chain.length < chainMax && !chain.includes(next)) {
    chain.push(next);
    next = next.issuerCertificate;
  }
  return chain;
}

/**
 * SHA-256 of the certificate's SPKI, base64url: what issuing recorded of its key. Whoever has the record compares, since a stolen
 * issuing key can sign any serial and any name.
 */
export function publicKeyOf(leaf: X509Certificate): string {
  const spki = leaf.publicKey.export({ format: "der", type: "spki" });
  return createHash("sha256").update(spki).digest("base64url");
}

export type RevocableLeaf = {
  /** Short form of the principal: `service/web`. */
  readonly shortName: string;
  /** Lower-case hex. */
  readonly serial: string;
  /** Serial of the first leaf of its line, where it is known. */
  readonly lineage?: string | undefined;
  readonly notBeforeMs: number;
};

/** How long before their issue our leaves say they begin, ms: for peers whose clocks are behind. */
const backdateMs = 60_000;

/**
 * Whether the leaf is out: by its serial, by its line, or because it was issued before its principal was revoked. Certificates count
 * in whole seconds, so one issued within the same second after the revocation cannot be told from an older one, and is out too.
 */
export function isRevoked(revocations: Revocations, leaf: RevocableLeaf): boolean {
  const revokedMs = revocations.principals.get(leaf.shortName);
  return (
    (revokedMs !== undefined && !(leaf.notBeforeMs + backdateMs > revokedMs)) ||
    revocations.serials.has(leaf.serial) ||
    // The first leaf of a line bears the line's name itself.
    revocations.lineages.has(leaf.lineage ?? leaf.serial)
  );
}

/** Tables of who is out. */
export function indexRevocations(list: readonly Revocation[]): Revocations {
  const principals = new Map<string, number>();
  const serials = new Set<string>();
  const lineages = new Set<string>();
  for (const { principal, serial, lineage, at } of list) {
    if (serial !== undefined) serials.add(serial);
    if (lineage !== undefined) lineages.add(lineage);
    if (serial === undefined && lineage === undefined)
      principals.set(principal, Math.max(at, principals.get(principal) ?? at));
  }
  return { principals, serials, lineages, all: list };
}

/** Ours is one issuing certificate long; a little room for a peer that sends the root or an older one along. */
const chainMax = 4;

type Path = { readonly issuing: X509Certificate; readonly root: X509Certificate };

/**
 * The issuing certificate that signed the leaf, under a root of ours: exactly the shape that our authorities have, so a leaf that a root
 * signed itself, or one behind two issuing certificates, has no path. Of several paths the one that is valid now.
 */
function findPath(
  leaf: X509Certificate,
  chain: readonly X509Certificate[],
  trust: Trust,
  plane: Plane,
  nowMs: number,
): Path | undefined {
  const { roots, issuers } = partsOf(trust.bundles[plane] ?? none);
  let found: Path | undefined;
  for (const issuing of [...issuers, ...chain.slice(0, chainMax)]) {
    if (!issuing.ca || !leaf.checkIssued(issuing)) continue;
    const root = rootOf(issuing, roots, nowMs);
    if (!root || !leaf.verify(issuing.publicKey)) continue;
    found = { issuing, root };
    if (!dateProblem(issuing, nowMs) && !dateProblem(root, nowMs)) break;
  }
  return found;
}

const none: readonly X509Certificate[] = [];
const parts = new WeakMap<
  readonly X509Certificate[],
  { readonly roots: readonly X509Certificate[]; readonly issuers: readonly X509Certificate[] }
>();

/** A bundle taken apart, once: what signed itself is a root, everything else can only be a link to one. */
function partsOf(bundle: readonly X509Certificate[]): {
  readonly roots: readonly X509Certificate[];
  readonly issuers: readonly X509Certificate[];
} {
  let known = parts.get(bundle);
  if (known === undefined) {
    const isRoot = (one: X509Certificate): boolean => one.checkIssued(one);
    known = { roots: bundle.filter(isRoot), issuers: bundle.filter((one) => !isRoot(one)) };
    parts.set(bundle, known);
  }
  return known;
}

/**
 * Which issuing certificates were proven under a set of roots: a gate sees the same one or two in every handshake, and a signature
 * check costs a tenth of a millisecond. Only proven ones get in, so strangers cannot fill it.
 */
const proven = new WeakMap<readonly X509Certificate[], Map<string, X509Certificate>>();

function rootOf(
  issuing: X509Certificate,
  roots: readonly X509Certificate[],
  nowMs: number,
): X509Certificate | undefined {
  const name = issuing.fingerprint256;
  const known = proven.get(roots)?.get(name);
  if (known && !dateProblem(known, nowMs)) return known;
  let found: X509Certificate | undefined;
  for (const root of roots) {
    // A root is not its own issuing certificate: leaves signed by a root directly are none of ours.
    if (root.fingerprint256 === name) return undefined;
    if (!root.ca || !issuing.checkIssued(root) || !issuing.verify(root.publicKey)) continue;
    found = root;
    if (!dateProblem(root, nowMs)) break;
  }
  if (found) {
    const map = proven.get(roots) ?? new Map<string, X509Certificate>();
    proven.set(roots, map.set(name, found));
  }
  return found;
}

/** RFC 5280 section 4.1.2.5: both ends are inside. Fails closed without a clock. */
function dateProblem(
  certificate: X509Certificate,
  nowMs: number,
): "expired" | "not_yet_valid" | undefined {
  if (nowMs < certificate.validFromDate.getTime()) return "not_yet_valid";
  return nowMs <= certificate.validToDate.getTime() ? undefined : "expired";
}

type Names = { readonly uris: readonly string[]; readonly dns: readonly string[] };

/**
 * The subject's alternative names. Node quotes every value with a comma, a quote, a backslash or anything unprintable in it, a NUL
 * byte included, so splitting at the comma is safe once a quote refuses the whole. Fails closed: a name of another type, or a second
 * extension of the kind (Node shows only one), and there are no names.
 */
function subjectNames(leaf: X509Certificate): Names | undefined {
  const text = leaf.subjectAltName;
  const first = leaf.raw.indexOf(subjectAltNameOid);
  if (!text || first === -1 || leaf.raw.indexOf(subjectAltNameOid, first + 1) !== -1)
    return undefined;
  const uris: string[] = [];
  const dns: string[] = [];
  for (const part of text.split(", ")) {
    if (!/^(?:URI|DNS):[\x21-\x7e]+$/.test(part) || /["'\\,]/.test(part)) return undefined;
    (part.startsWith("URI:") ? uris : dns).push(part.slice(4));
  }
  return { uris, dns };
}

/** 2.5.29.17 in DER, tag and length included. */
const subjectAltNameOid = Buffer.from("0603551d11", "hex");
const serverAuth = "1.3.6.1.5.5.7.3.1";
const clientAuth = "1.3.6.1.5.5.7.3.2";

/** Only gates and the control plane serve. A caller's leaf that could also serve, or be found by DNS name, would pose as a service. */
function purposeProblem(
  leaf: X509Certificate,
  hasDns: boolean,
  kind: PrincipalKind | undefined,
  purpose: "client" | "server",
): string | undefined {
  const usage = leaf.keyUsage ?? []; // Node's name for the extended key usage
  if (leaf.ca) return "it is a certificate authority's";
  if (!usage.includes(purpose === "client" ? clientAuth : serverAuth))
    return `its extended key usage does not allow it to be a ${purpose}`;
  if (kind === undefined || kind === "gate" || kind === "control") return undefined;
  if (usage.includes(serverAuth)) return `a leaf of /${kind}/ must not be usable as a server's`;
  return hasDns ? `a leaf of /${kind}/ must not carry DNS names` : undefined;
}

function identityProblem(
  principal: PrincipalParts,
  trust: Trust,
  expect: PeerQuestion["expect"],
): string | undefined {
  if (principal.trustDomain !== trust.trustDomain)
    return `trust domain ${principal.trustDomain} is not ours`;
  if (!(principalKinds[principal.kind] as readonly Plane[]).includes(expect.plane))
    return `/${principal.kind}/ is no identity of the ${expect.plane} plane`;
  return expect.kinds.includes(principal.kind)
    ? undefined
    : `/${principal.kind}/ is not let in here, only ${expect.kinds.join(", ")}`;
}

function printable(text: string): string {
  return text.slice(0, 256).replaceAll(/[^\x20-\x7e]/g, "?");
}
