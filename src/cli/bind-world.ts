import { lookup } from "node:dns/promises";
import * as net from "node:net";
import { type NetworkInterfaceInfo, networkInterfaces } from "node:os";
import type { BindWorld, LocalAddress } from "../base/guard.ts";

/** This machine, as the bind guard asks about it; host names are looked up as every other program here would. */
export function bindWorld(networks: BindWorld["networks"]): BindWorld {
  return {
    networks,
    interfaces: localAddresses,
    resolve: async (host) =>
      (await lookup(host, { all: true, order: "verbatim" })).map(({ address }) => address),
    nowMs: Date.now(),
  };
}

/**
 * Every address of this machine; a link-local IPv6 address carries its interface, without which it cannot be bound. Node lists only
 * interfaces whose link is up: an address that was here stays in the list for as long as it can be bound, so that a cable
 * that is pulled for a moment closes no door.
 */
export function localAddresses(): readonly LocalAddress[] {
  const listed = Object.entries(networkInterfaces()).flatMap(([name, addresses = []]) =>
    addresses.map(({ address, family, internal, cidr }) => {
      const isLinkLocal = family === "IPv6" && /^fe[89ab]/i.test(address);
      return { address: isLinkLocal ? `${address}%${name}` : address, family, internal, cidr };
    }),
  );
  const now = new Set(listed.map(({ address }) => address));
  for (const one of listed) seen.set(one.address, one);
  for (const [address, one] of seen) {
    if (now.has(address)) continue;
    if (isAssigned(address)) listed.push(one);
    else seen.delete(address);
  }
  return listed;
}

type Listed = Pick<NetworkInterfaceInfo, "address" | "family" | "internal" | "cidr">;
const seen = new Map<string, Listed>();

type Handle = { close(): void };

/** Whether the kernel would still bind the address. Nothing listens: the handle is closed before anybody could connect. */
function isAssigned(address: string): boolean {
  const bind = (
    net as unknown as {
      _createServerHandle(
        host: string,
        port: number,
        family: 4 | 6,
        fd: -1,
        flags: 0,
      ): Handle | number;
    }
  )._createServerHandle;
  const handle = bind(address, 0, address.includes(":") ? 6 : 4, -1, 0);
  if (typeof handle === "number") return false;
  handle.close();
  return true;
}
