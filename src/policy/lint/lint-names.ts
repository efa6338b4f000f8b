import { didYouMean } from "../../model/register/nearest.ts";
import type { Bind, Register } from "../../model/register.ts";
import { bindsOf, doorNames } from "./binds-of.ts";
import type { Remark } from "./lint-register.ts";

/** Names that lead nowhere, or to two places: networks, callers, ports, hosts. */
export function lintNames(register: Register): Remark[] {
  return [...networkNames(register), ...ruleNames(register), ...hostNames(register)];
}

function networkNames(register: Register): Remark[] {
  const networks = Object.keys(register.networks);
  const remarks: Remark[] = [];
  const unknown = (path: string, name: string, words: readonly string[], otherwise: string) =>
    remarks.push({
      code: "unknown-network",
      severity: "error",
      message: `there is no network ${JSON.stringify(name)}`,
      hint: didYouMean(name, words, otherwise) ?? otherwise,
      path,
    });
  const known =
    networks.length === 0 ? "this register has no networks" : `it has: ${networks.join(", ")}`;
  for (const { bind, path } of bindsOf(register))
    if (isUnknownNetwork(bind)) unknown(path, bind.host, networks, known);
  for (const door of doorNames)
    for (const [i, source] of register.planes[door].from.entries())
      if (!/[.:]/.test(source) && !networks.includes(source))
        unknown(`planes.${door}.from[${i}]`, source, networks, known);
  for (const [name, service] of Object.entries(register.services))
    for (const port of Object.values(service.ports)) {
      const words = ["internal", "public", ...networks];
      if (!words.includes(port.exposure))
        unknown(
          `services.${name}.ports.${port.name}.exposure`,
          port.exposure,
          words,
          `exposure is one of: ${words.join(", ")}`,
        );
    }
  return remarks;
}

/** A single label names a network of ours; a host name to bind has a dot, or is `localhost`. */
function isUnknownNetwork(bind: Bind): boolean {
  return bind.kind === "hostname" && !bind.host.includes(".") && bind.host !== "localhost";
}

/** Looking for what was meant costs a pass over every service. */
const hintsMax = 100;

function ruleNames(register: Register): Remark[] {
  const services = Object.keys(register.services);
  const remarks: Remark[] = [];
  for (const [name, service] of Object.entries(register.services))
    for (const effect of ["allow", "deny"] as const)
      for (const [i, rule] of service[effect].entries()) {
        const path = `services.${name}.${effect}[${i}]`;
        for (const [j, caller] of rule.from.entries())
          if (caller !== "*" && !Object.hasOwn(register.services, caller))
            remarks.push({
              code: "unknown-caller",
              severity: "error",
              message: `the caller ${JSON.stringify(caller)} is not registered`,
              hint:
                (remarks.length < hintsMax ? didYouMean(caller, services) : undefined) ??
                `register it: services: { ${caller}: { owner: ... } }`,
              path: `${path}.from[${j}]`,
            });
        for (const [j, port] of rule.ports.entries())
          if (!Object.hasOwn(service.ports, port))
            remarks.push({
              code: "unknown-port",
              severity: "error",
              message: `the service ${JSON.stringify(name)} has no port ${JSON.stringify(port)}`,
              hint:
                didYouMean(port, Object.keys(service.ports)) ??
                `it has: ${Object.keys(service.ports).join(", ") || "no ports"}`,
              path: `${path}.ports[${j}]`,
            });
      }
  return remarks;
}

function hostNames(register: Register): Remark[] {
  const taken = new Map<string, string>();
  for (const [name, service] of Object.entries(register.services)) {
    taken.set(name, `the service ${name}`);
    for (const port of Object.keys(service.ports))
      taken.set(`${port}.${name}`, `the port ${port} of ${name}`);
  }
  const remarks: Remark[] = [];
  for (const [name, service] of Object.entries(register.services))
    for (const [i, host] of service.hosts.entries()) {
      const owner = taken.get(host);
      if (owner !== undefined)
        remarks.push({
          code: "host-taken",
          severity: "error",
          message: `the host name ${JSON.stringify(host)} already means ${owner}`,
          hint: "one name leads to one port: choose another",
          path: `services.${name}.hosts[${i}]`,
        });
      else taken.set(host, `the service ${name}`);
    }
  return remarks;
}
