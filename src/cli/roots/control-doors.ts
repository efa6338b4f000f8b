import { formatHostPort } from "../../base/address.ts";
import { admitsFrom, type Endpoint, resolveBind } from "../../base/guard.ts";
import type { Running } from "../../base/lifecycle.ts";
import type { Log } from "../../base/log.ts";
import { place } from "../../base/problem.ts";
import type { Door, Register } from "../../model/register.ts";
import { bindWorld, localAddresses } from "../bind-world.ts";

/** One door of ours, open on every address that its binds mean now. */
export type FollowedDoor<Opened> = Running & {
  /** Opens and closes what the register and this machine's interfaces have come to mean. */
  follow(register: Register): Promise<void>;
  opened(): readonly Opened[];
  /** `host:port` of the first address, as callers elsewhere should dial it; undefined: none is open. */
  address(): string | undefined;
  /** Why an address is not open. */
  problems(): readonly string[];
};

type Open<Opened> = {
  readonly opened: Opened;
  readonly address: Endpoint;
  /** What callers should dial: the bind's host name where it is one. */
  readonly dial: string;
  /** Text of the bind that opened it. */
  readonly bind: string;
  admits: (ip: string) => boolean;
};

/**
 * Follows a door's binds through the guard. Fails closed: an address that may not be bound is not, and one that may no longer
 * be is closed; who may connect is looked up for each connection. Never rejects: what could not be opened is in `problems`.
 */
export function followDoor<Opened extends Running>(options: {
  readonly name: "control" | "join";
  readonly open: (
    endpoint: Endpoint,
    admits: (ip: string) => boolean,
  ) => Promise<{ readonly opened: Opened; readonly address: Endpoint }>;
  /** Where a door with port 0 was before; 0: nowhere. */
  readonly remembered: {
    port(door: string): Promise<number>;
    keep(door: string, port: number): Promise<void>;
  };
  readonly log: Log;
}): FollowedDoor<Opened> {
  const { log, name, open } = options;
  const doors = new Map<string, Open<Opened>>();
  let problems: readonly string[] = [];
  let last: Promise<void> = Promise.resolve();

  async function follow(register: Register): Promise<void> {
    const door: Door = register.planes[name];
    const wanted = new Set<string>();
    const found: string[] = [];
    const unsure = new Set<string>();
    for (const bind of door.binds) {
      const resolved = await resolveBind(bind, bindWorld(register.networks));
      for (const problem of resolved.problems)
        found.push(`${place(problem)} ${problem.message}`.trim());
      const closing = resolved.problems.filter(({ severity }) => severity !== "warning");
      if (closing.length > 0 && closing.every(({ code }) => code === "bind-unresolved"))
        unsure.add(bind.text);
      for (const endpoint of resolved.addresses) {
        const key = formatHostPort(endpoint.host, endpoint.port);
        if (wanted.has(key)) continue;
        wanted.add(key);
        const admits = admitsFrom(
          door.from,
          { bind, host: endpoint.host },
          { networks: register.networks, interfaces: localAddresses },
        );
        const standing = doors.get(key);
        if (standing) {
          standing.admits = admits;
          continue;
        }
        try {
          const state: { admits: (ip: string) => boolean } = { admits };
          const { opened, address } = await openAgain(endpoint, (ip) => state.admits(ip));
          const host = bind.kind === "hostname" ? bind.host : address.host;
          doors.set(
            key,
            Object.assign(state, {
              opened,
              address,
              dial: formatHostPort(host, address.port),
              bind: bind.text,
            }),
          );
          log.info({ door: name }, `open on ${formatHostPort(address.host, address.port)}`);
        } catch (cause) {
          found.push(reasonOf(cause, key));
        }
      }
    }
    for (const [key, { bind, opened }] of doors) {
      // A name that could not be looked up this time closes nothing that it opened; other binds it does not excuse.
      if (wanted.has(key) || unsure.has(bind)) continue;
      doors.delete(key);
      log.info({ door: name }, `no longer open on ${key}`);
      await opened.close();
    }
    for (const problem of found) if (!problems.includes(problem)) log.warn({ door: name }, problem);
    problems = found;
  }

  async function openAgain(endpoint: Endpoint, admits: (ip: string) => boolean) {
    if (endpoint.port !== 0) return await open(endpoint, admits);
    const door = `${name} ${endpoint.host}`;
    const port = await options.remembered.port(door);
    const again =
      port > 0 ? await open({ ...endpoint, port }, admits).catch(() => undefined) : undefined;
    const made = again ?? (await open(endpoint, admits));
    await options.remembered.keep(door, made.address.port);
    return made;
  }

  return {
    follow(register) {
      const next = last.then(() => follow(register));
      last = next.catch((cause) =>
        log.error({ err: cause, door: name }, "following its binds failed"),
      );
      return last;
    },
    opened: () => [...doors.values()].map(({ opened }) => opened),
    address() {
      const all = [...doors.values()];
      // Loopback is of use on this machine alone: elsewhere, another address of the same door is.
      const far = all.find(({ address: { host } }) => !host.startsWith("127.") && host !== "::1");
      return (far ?? all[0])?.dial;
    },
    problems: () => problems,
    async close() {
      await last;
      await Promise.all([...doors.values()].map(({ opened }) => opened.close()));
    },
  };
}

function reasonOf(cause: unknown, at: string): string {
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === "EADDRINUSE")
    return `${at} is in use by another program: stop it, or give this door another port in the register`;
  if (code === "EACCES") return `${at} may not be bound by this user: take a port above 1023`;
  return `${at} cannot be opened: ${message}`;
}
