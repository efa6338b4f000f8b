import { type AddressClass, classifyAddress } from "../../base/address.ts";
import type { Register } from "../../model/register.ts";
import { bindsOf, mayMeet } from "./binds-of.ts";
import type { Remark } from "./lint-register.ts";

/** Where the gate forwards to: never to itself, never to what hands out credentials, not in the clear, never two ports in one. */
export function lintUpstreams(register: Register): Remark[] {
  const remarks: Remark[] = [];
  const binds = bindsOf(register);
  const taken = new Map<string, string>();
  const take = (address: string, owner: string, path: string) => {
    const first = taken.get(address);
    if (first !== undefined)
      remarks.push({
        code: "same-address",
        severity: "error",
        message: `${owner} stands on the same address as ${first}: ${address}`,
        hint: "who may call one of them would reach the other: one address, one port",
        path,
      });
    else taken.set(address, owner);
  };
  for (const [name, service] of Object.entries(register.services)) {
    const numbers = new Map<number, string>();
    for (const port of Object.values(service.ports)) {
      const base = `services.${name}.ports.${port.name}`;
      const owner = `${name}/${port.name}`;
      if (port.port !== undefined) {
        const first = numbers.get(port.port);
        if (first !== undefined)
          remarks.push({
            code: "same-address",
            severity: "error",
            message: `the ports ${first} and ${port.name} of ${name} both listen on ${port.port}`,
            hint: "one address, one port",
            path: `${base}.port`,
          });
        numbers.set(port.port, port.name);
      }
      let isFar = false;
      for (const [i, upstream] of port.upstreams.entries()) {
        const path = `${base}.upstreams[${i}]`;
        if (upstream.kind === "unix") {
          take(`unix:${upstream.path}`, owner, path);
          continue;
        }
        const host = upstream.host === "localhost" ? "127.0.0.1" : upstream.host;
        const address = host.includes(":")
          ? `[${host}]:${upstream.port}`
          : `${host}:${upstream.port}`;
        take(address, owner, path);
        const door = binds.find(({ bind }) =>
          mayMeet(register, bind, { host: upstream.host, port: upstream.port }),
        );
        const why = door
          ? `is our own listener (${door.door}, ${door.bind.text})`
          : forbidden(host);
        if (why !== undefined) {
          remarks.push({
            code: "upstream-forbidden",
            severity: "error",
            message: `the upstream ${address} ${why}`,
            hint: "an upstream is an address where the service itself listens",
            path,
          });
        } else if (!isLoopback(host)) {
          isFar = true;
          if (!port.plaintext)
            remarks.push({
              code: "plaintext-off-loopback",
              severity: "error",
              message: `the upstream ${address} is not this machine, and what goes there is plaintext that anybody on the way can read, and anybody there can go around the gate`,
              hint: "put the gate beside the service, or add plaintext: { why: ..., expires: ... }",
              path,
            });
        }
      }
      if (port.plaintext && !isFar)
        remarks.push({
          code: "plaintext-unneeded",
          severity: "warning",
          message: `every upstream of ${owner} is this machine, so its plaintext excuse says nothing`,
          hint: 'remove "plaintext"',
          path: `${base}.plaintext`,
        });
    }
  }
  return remarks;
}

function isLoopback(host: string): boolean {
  return classifyAddress(host) === "loopback";
}

const forbiddenClasses: Partial<Record<AddressClass, string>> = {
  metadata: "belongs to the cloud's metadata service",
  "link-local": "is link-local",
  wildcard: "is no address that can be dialled, it means every address",
  multicast: "is no address that a service can have",
  reserved: "is no address that a service can have",
};

/** Whether the literal may not be dialled; a name is judged by what it resolves to, when it is dialled. */
function forbidden(host: string): string | undefined {
  if (!/^[\d.]+$/.test(host) && !host.includes(":")) return undefined;
  return forbiddenClasses[classifyAddress(host)];
}
