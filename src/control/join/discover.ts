import { mainPort, type Register, type Service } from "../../model/register.ts";
import { findAllowedCall, isReading, type SampleCall } from "../../policy/sample-call.ts";
import type { Discovery } from "./needs.ts";

/**
 * What one service may know of the others: the names that at least one allow rule opens to it (a rule that is over does not
 * count), where the gates are, and for a start one call that its own rules allow now. A deny rule, hours or paths may still refuse
 * another: this is a phone book, not a permit. Fails closed: a service that is not registered, or that no rule names, learns nothing, not even of gates.
 */
export function discover(options: {
  readonly register: Register;
  /** Bare name of the calling service. */
  readonly caller: string;
  readonly gates: readonly KnownGate[];
  /** Epoch ms. */
  readonly nowMs: number;
}): Discovery {
  const { register, caller, gates, nowMs } = options;
  if (!Object.hasOwn(register.services, caller)) return { gates: [], services: [] };
  const services = Object.values(register.services).flatMap((service) =>
    namesOpenTo(caller, service, nowMs),
  );
  if (services.length === 0) return { gates: [], services: [] };
  const example = exampleFor(caller, register, nowMs);
  return {
    // One that control has lost sight of may still be serving: it comes after those that are in sight.
    gates: [...gates]
      .filter((gate) => gate.addresses.length > 0)
      .sort((a, b) => Number(b.connected) - Number(a.connected) || (a.name < b.name ? -1 : 1))
      .map(({ name, addresses }) => ({ name, addresses: [...addresses] })),
    services: services.sort(),
    ...(example && { example }),
  };
}

/** One that only reads, where any of the services has one. */
function exampleFor(caller: string, register: Register, nowMs: number): SampleCall | undefined {
  let other: SampleCall | undefined;
  for (const service of Object.values(register.services)) {
    const found = findAllowedCall(service, caller, nowMs);
    if (found && isReading(found)) return found;
    other ??= found;
  }
  return other;
}

export type KnownGate = {
  readonly name: string;
  readonly connected: boolean;
  /** Where callers reach it, `host:port`. */
  readonly addresses: readonly string[];
};

/** `orders` for the main port, `metrics.orders` for another. */
function namesOpenTo(caller: string, service: Service, nowMs: number): string[] {
  const open = new Set(
    service.allow
      .filter((rule) => rule.from.includes(caller) || rule.from.includes("*"))
      .filter((rule) => rule.expiresMs === undefined || nowMs < rule.expiresMs)
      .flatMap((rule) => rule.ports),
  );
  const main = mainPort(service);
  return Object.values(service.ports)
    .filter((port) => port.via === "gate" && open.has(port.name))
    .map((port) => (port === main ? service.name : `${port.name}.${service.name}`));
}
