import {
  type Cidr,
  cidrContains,
  cidrCovers,
  classifyAddress,
  parseCidr,
} from "../../base/address.ts";
import type { Bind, Register } from "../../model/register.ts";

/** Our own doors, as the register names them. */
export const doorNames = ["control", "join", "ops", "data"] as const;

export type PlacedBind = { readonly bind: Bind; readonly door: string; readonly path: string };

/** Every address that we listen on ourselves, decoys included. */
export function bindsOf({ planes }: Register): readonly PlacedBind[] {
  const doors = doorNames.flatMap((door) =>
    planes[door].binds.map((bind, i) => ({ bind, door, path: `planes.${door}.bind[${i}]` })),
  );
  const decoys = planes.decoys.map((bind, i) => ({
    bind,
    door: "a decoy",
    path: `planes.decoys[${i}]`,
  }));
  return [...doors, ...decoys];
}

/** The ranges of a network of the register; none for a name that is not one. */
export function rangesOf(register: Register, network: string): readonly Cidr[] {
  const texts = Object.hasOwn(register.networks, network) ? register.networks[network] : undefined;
  return (texts ?? []).flatMap((text) => parseCidr(text) ?? []);
}

/** Whether an upstream or a bind at `host:port` can be the same socket as the bind. Port 0 is never another's. */
export function mayMeet(
  register: Register,
  bind: Bind,
  other: { readonly host: string; readonly port: number; readonly kind?: Bind["kind"] },
): boolean {
  if (bind.port === 0 || bind.port !== other.port) return false;
  const [mine, theirs] = [hostsOf(register, bind), hostsOf(register, other)];
  return mine.some((a) => theirs.some((b) => overlaps(a, b)));
}

type Hosts = string | Cidr;

function hostsOf(
  register: Register,
  { host, kind }: { readonly host: string; readonly kind?: Bind["kind"] },
): readonly Hosts[] {
  if (kind === "network") return rangesOf(register, host);
  return host === "localhost" ? ["127.0.0.1", "::1"] : [host];
}

function overlaps(a: Hosts, b: Hosts): boolean {
  if (typeof a === "string" && typeof b === "string")
    return a === b || (isWildcard(a) && isAddress(b)) || (isWildcard(b) && isAddress(a));
  if (typeof a === "string") return overlaps(b, a);
  // A wildcard takes the port on every address, those of a network among them.
  if (typeof b === "string") return isWildcard(b) || cidrContains(a, b);
  return cidrCovers(a, b) || cidrCovers(b, a);
}

function isWildcard(host: string): boolean {
  return classifyAddress(host) === "wildcard";
}

function isAddress(host: string): boolean {
  return /^[\d.]+$/.test(host) || host.includes(":");
}
