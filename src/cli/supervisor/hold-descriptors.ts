import * as net from "node:net";
import { getSystemErrorName } from "node:util";
import { formatHostPort, parseAddress } from "../../base/address.ts";
import { assertBound } from "../../base/guard.ts";
import type { Given } from "./given-descriptors.ts";
import type { Descriptor } from "./messages.ts";

/** Why an address could not be held; the message says what to do. */
export class ListenFailed extends Error {
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

export type Held = {
  readonly owner: string;
  readonly host: string;
  /** As asked for: 0 where any port would do. */
  readonly askedPort: number;
  readonly port: number;
  readonly handle: Descriptor;
  /** Set when it was bound by whoever started us. */
  readonly given?: Given;
};

/** Addresses one program may hold: far more than a register names, far fewer than the kernel has descriptors. */
const heldMax = 512;

/**
 * Listening descriptors that outlive the children who serve them: while this end is open the kernel keeps accepting into
 * the backlog, and the child that comes next finds it. Each address is bound once; children get duplicates.
 */
export function holdDescriptors(given: readonly Given[] = []) {
  const held = new Set<Held>();
  /** Bound by whoever started us, and nobody's door yet. */
  const spare = new Set(given);

  return {
    /**
     * The descriptor of an address: given, held already, or bound now. `nth` tells apart several wishes of one owner for any port
     * (0) of one host. Fails closed: only an IP literal is bound, the kernel's answer is checked against it, and an address
     * that another child holds is refused. Throws `ListenFailed`.
     */
    hold(owner: string, wish: { host: string; port: number }, nth: number): Held {
      const address = parseAddress(wish.host);
      if (!address || !Number.isInteger(wish.port) || wish.port < 0 || wish.port > 65_535)
        throw new ListenFailed(
          "EINVAL",
          `${formatHostPort(wish.host, wish.port)} is not an IP address and a port`,
        );
      const host = address.text;
      const here = [...held].filter((one) => one.host === host);
      const known =
        wish.port === 0
          ? here.filter((one) => one.owner === owner && one.askedPort === 0)[nth]
          : here.find((one) => one.port === wish.port);
      if (known && known.owner !== owner)
        throw new ListenFailed(
          "EADDRINUSE",
          `${formatHostPort(host, wish.port)} is held by "${known.owner}" of this same program; give "${owner}" another port in the register`,
        );
      if (known) return known;
      if (held.size >= heldMax)
        throw new ListenFailed("EMFILE", `${heldMax} addresses are held already`);
      const ready = [...spare].find((one) => one.host === host && one.port === wish.port);
      if (ready) {
        const one = { owner, ...ready, askedPort: wish.port, given: ready };
        spare.delete(ready);
        held.add(one);
        return one;
      }
      const handle = bind(host, address.family, wish.port);
      const out: { address?: string; port?: number } = {};
      // libuv reports an address in use only here: bind itself has kept it to itself.
      const failure = handle.getsockname(out);
      if (failure !== 0) {
        handle.close();
        throw explain(failure, host, wish.port);
      }
      const bound = { address: out.address ?? "", port: out.port ?? 0 };
      try {
        assertBound(bound, [{ host, port: wish.port }]);
      } catch (cause) {
        handle.close();
        throw new ListenFailed("EFAULT", (cause as Error).message);
      }
      const one = { owner, host, askedPort: wish.port, port: bound.port, handle };
      held.add(one);
      return one;
    },

    /** Closes this end. The address stays open until the last duplicate in a child is closed too. */
    release(owner: string, address: { host: string; port: number }): void {
      const host = parseAddress(address.host)?.text;
      for (const one of held)
        if (one.owner === owner && one.host === host && one.port === address.port) drop(one);
    },

    /** Closes what the owner holds and `keep` does not name: what an earlier life of it wanted and this one does not. */
    releaseAllBut(owner: string, keep: ReadonlySet<Held>): void {
      for (const one of held) if (one.owner === owner && !keep.has(one)) drop(one);
    },

    /** What was given and is no door: `host:port`. */
    spare: (): string[] => [...spare].map(({ host, port }) => formatHostPort(host, port)),

    closeAll(): void {
      for (const one of held) drop(one);
      for (const one of spare) one.handle.close();
      spare.clear();
    },
  };

  function drop(one: Held): void {
    held.delete(one);
    // What was given stays bound by the one who gave it: it could not be bound again.
    if (one.given) spare.add(one.given);
    else one.handle.close();
  }
}

/** The kernel's own flag (`uv.h`): `::` then means IPv6, not IPv4 as well, so that a bind means what it says. */
const ipv6Only = 1;

/**
 * Binds without listening. `net.Server` cannot do that, and one that listens would also accept; `node:cluster` uses this
 * same function to hand sockets to its workers, which is why it is there although the documentation does not name it.
 */
function bind(host: string, family: 4 | 6, port: number): Descriptor {
  const { _createServerHandle: create } = net as unknown as {
    _createServerHandle(
      host: string,
      port: number,
      family: 4 | 6,
      fd: number,
      flags: number,
    ): Descriptor | number;
  };
  const handle = create(host, port, family, -1, family === 6 ? ipv6Only : 0);
  if (typeof handle === "number") throw explain(handle, host, port);
  return handle;
}

function explain(failure: number, host: string, port: number): ListenFailed {
  const code = getSystemErrorName(failure);
  const where = formatHostPort(host, port);
  const says: Readonly<Record<string, string>> = {
    EADDRINUSE: `${where} is in use by another program: "ss -ltnp 'sport = :${port}'" shows which; stop it, or give this door another port in the register`,
    EACCES: `${where} needs a privilege: ports below 1024 are for root or CAP_NET_BIND_SERVICE; take a port from 1024 up`,
    EADDRNOTAVAIL: `${where} is not an address of this machine: "ip addr" shows which are; bind to one of them or to the name of a network`,
    EAFNOSUPPORT: `${where} cannot be bound: this machine has no IPv${host.includes(":") ? 6 : 4}`,
  };
  return new ListenFailed(code, says[code] ?? `${where} cannot be bound: ${code}`);
}
