import * as net from "node:net";
import { formatHostPort, parseAddress } from "../../base/address.ts";
import { Exit } from "../exit.ts";
import type { Descriptor } from "./messages.ts";

/** A listening descriptor that whoever started us has bound. */
export type Given = { readonly host: string; readonly port: number; readonly handle: Descriptor };

/** The first one that is handed over: `SD_LISTEN_FDS_START`. */
const firstFd = 3;
const givenMax = 64;

/**
 * What a service manager passed on: systemd's socket activation, sd_listen_fds(3). The variables are taken out of `env`: no child of ours is
 * meant by them. Fails closed: a descriptor that is not a TCP socket bound to one address is an error, not a door. Throws `Exit`.
 */
export function givenDescriptors(env: NodeJS.ProcessEnv, pid: number): readonly Given[] {
  const { LISTEN_FDS: count, LISTEN_PID: meant } = env;
  for (const name of ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"]) delete env[name];
  // Without the pid, or with another, they are somebody else's: variables are inherited, descriptors not always.
  if (count === undefined || Number(meant) !== pid) return [];
  if (!/^\d{1,3}$/.test(count) || Number(count) > givenMax)
    throw new Exit(2, `LISTEN_FDS is "${count}"`, `a service manager passes 0 to ${givenMax}`);
  return Array.from({ length: Number(count) }, (_, i) => adopt(firstFd + i));
}

function adopt(fd: number): Given {
  const out: { address?: string; port?: number; family?: string } = {};
  let handle: Descriptor;
  try {
    handle = open(fd);
  } catch (cause) {
    throw refused(fd, `cannot be used: ${(cause as Error).message}`);
  }
  if (handle.getsockname?.(out) !== 0 || out.port === undefined || out.address === undefined) {
    handle.close();
    throw refused(fd, "is not a TCP socket that is bound to an address");
  }
  const host = parseAddress(out.address)?.text ?? out.address;
  if (host === "::") {
    handle.close();
    throw refused(fd, `is bound to ${formatHostPort(host, out.port)}, which takes IPv4 as well`);
  }
  return { host, port: out.port, handle };
}

function open(fd: number): Descriptor {
  const { _createServerHandle: create } = net as unknown as {
    _createServerHandle(host: null, port: number, family: number, fd: number): Descriptor | number;
  };
  const handle = create(null, 0, 0, fd);
  if (typeof handle === "number") throw new Error("it is neither a socket nor a pipe");
  return handle;
}

function refused(fd: number, why: string): Exit {
  return new Exit(
    2,
    `descriptor ${fd}, passed on by the service manager, ${why}`,
    "write ListenStream= with an IP address and a port, one for each data door",
  );
}
