/** An identity in SPIFFE form: `spiffe://<trust domain>/<kind>/<name>`. Only `parsePrincipal` and `principalOf` make one. */
export type Principal = string & { readonly __brand: "Principal" };

/** The two planes an identity can belong to. Each has a certificate authority of its own. */
export type Plane = "control" | "data";

/** Every kind of identity, and the authority whose leaves may carry it. A gate holds one of each. */
export const principalKinds = {
  service: ["data"],
  gate: ["control", "data"],
  admin: ["control"],
  automation: ["control"],
  auditor: ["control"],
  control: ["control"],
} as const satisfies Record<string, readonly Plane[]>;

export type PrincipalKind = keyof typeof principalKinds;

export type PrincipalParts = {
  readonly trustDomain: string;
  readonly kind: PrincipalKind;
  readonly name: string;
};

const trustDomainForm =
  /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/;
// One label: a name becomes a DNS name in a gate's leaf, a path segment and a file name.
const nameForm = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

/** 1 to 63 of a-z, 0-9 and inner hyphens. */
export function isName(text: string): boolean {
  return nameForm.test(text);
}

/** Lower-case dotted labels, 1 to 253 characters, as SPIFFE-ID section 2.1 has it without `_`. */
export function isTrustDomain(text: string): boolean {
  return trustDomainForm.test(text);
}

/** Fails closed: anything but the one canonical spelling of a known kind is `undefined`. */
export function parsePrincipal(uri: string): PrincipalParts | undefined {
  const match = /^spiffe:\/\/([a-z0-9.-]+)\/([a-z]+)\/([a-z0-9-]+)$/.exec(uri);
  const [, trustDomain = "", kind = "", name = ""] = match ?? [];
  if (!isTrustDomain(trustDomain) || !isName(name) || !Object.hasOwn(principalKinds, kind))
    return undefined;
  return { trustDomain, kind: kind as PrincipalKind, name };
}

/** The canonical SPIFFE URI. Throws a `TypeError` on parts that `parsePrincipal` would not give back. */
export function principalOf(parts: PrincipalParts): Principal {
  const uri = `spiffe://${parts.trustDomain}/${parts.kind}/${parts.name}`;
  if (!parsePrincipal(uri)) throw new TypeError(`not a principal: ${JSON.stringify(uri)}`);
  return uri as Principal;
}

/** `service/web`: how people and the hit log name a principal of the trust domain at hand. */
export function shortName(parts: Pick<PrincipalParts, "kind" | "name">): string {
  return `${parts.kind}/${parts.name}`;
}
