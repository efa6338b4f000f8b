import { lookup } from "node:dns";
import { connect, isIP, type Socket } from "node:net";
import { classifyAddress } from "../../base/address.ts";
import { Refusal } from "../../model/refusal.ts";
import type { Upstream } from "../../model/register.ts";

/** What may be dialled for an upstream: decided on the address, after a name was resolved (the name itself proves nothing). */
export type DialRules = {
  readonly isOwnDoor: (host: string, port: number) => boolean;
  /** Plaintext leaves this machine only where the register says why. */
  readonly mayLeaveHost: boolean;
};

/**
 * Fails closed: link-local, metadata, multicast and wildcard addresses, our own doors, and, without an excuse in the register, every
 * address that is not loopback. Returns why not, or undefined.
 */
export function whyForbidden(host: string, port: number, rules: DialRules): string | undefined {
  const kind = classifyAddress(host);
  if (rules.isOwnDoor(host, port)) return "it is a door of this gate";
  if (kind === "loopback") return undefined;
  if (kind === "private" || kind === "public" || kind === "shared")
    return rules.mayLeaveHost ? undefined : "plaintext off this machine is not declared";
  return `it is a ${kind} address`;
}

/** Every address a name has now. Rejects with `Refusal` `upstream_down`. */
export function resolve(host: string): Promise<readonly string[]> {
  if (isIP(host)) return Promise.resolve([host]);
  return new Promise((done, failed) => {
    lookup(host, { all: true }, (error, found) => {
      if (error || found.length === 0)
        failed(
          new Refusal("upstream_down", `${host} does not resolve: ${error?.code ?? "no address"}`),
        );
      else done(found.map((entry) => entry.address));
    });
  });
}

/**
 * One for all upstreams of a thread, and not the one of `accept/lent-reads`: whatever an answer makes us write to its caller, what the caller sends
 * meanwhile cannot fall on top of it.
 */
const readBytes = Buffer.allocUnsafeSlow(65_536);

/**
 * Opens one connection. Bytes are only lent: `on.bytes` must be done with them when it returns. Exactly one of `onOpen` and `onError` is called before anything else.
 */
export function open(
  to: Extract<Upstream, { kind: "unix" }> | { kind: "tcp"; host: string; port: number },
  on: { bytes(bytes: Buffer): void; open(): void; error(code: string): void },
): Socket {
  const onread = {
    buffer: readBytes,
    callback(count: number): boolean {
      on.bytes(readBytes.subarray(0, count));
      return true;
    },
  };
  const socket =
    to.kind === "unix"
      ? connect({ path: to.path, onread })
      : connect({ host: to.host, port: to.port, onread, noDelay: true });
  const onError = (error: NodeJS.ErrnoException): void => on.error(error.code ?? error.message);
  socket.once("error", onError);
  socket.once("connect", () => {
    socket.off("error", onError);
    on.open();
  });
  return socket;
}
