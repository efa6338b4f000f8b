import { lookup } from "node:dns/promises";
import { networkInterfaces } from "node:os";
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

/** Every address of this machine; a link-local IPv6 address carries its interface, without which it cannot be bound. */
export function localAddresses(): readonly LocalAddress[] {
  return Object.entries(networkInterfaces()).flatMap(([name, addresses = []]) =>
    addresses.map(({ address, family, internal, cidr }) => {
      const isLinkLocal = family === "IPv6" && /^fe[89ab]/i.test(address);
      return { address: isLinkLocal ? `${address}%${name}` : address, family, internal, cidr };
    }),
  );
}
