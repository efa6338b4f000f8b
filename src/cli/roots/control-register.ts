import type { Log } from "../../base/log.ts";
import { ControlRefusal } from "../../control/refusals.ts";
import type { Registry } from "../../control/registry/registry.ts";
import { type Principal, parsePrincipal } from "../../model/principal.ts";
import type { Register } from "../../model/register.ts";

type Start = {
  readonly registry: Registry;
  /** Whoever applies at a start: `control/control`. */
  readonly self: { readonly name: string };
  readonly log: Log;
  /** Ends the process. */
  readonly stop: (cause: unknown) => never;
};

/** Under `up` the file is the truth at every start; apart, only on an empty store. */
export async function takeRegister(
  { log, registry, self, stop }: Start,
  files: readonly { readonly name: string; readonly text: string }[],
  isApart: boolean,
): Promise<void> {
  const stands = registry.current() !== undefined;
  if (files.length === 0 || (stands && isApart)) {
    if (!stands)
      stop(
        new Error("the store is empty and needs a first register: give one with --register FILE"),
      );
    if (files.length > 0)
      log.info(
        {},
        "a register stands already, so the one given is not applied; sallyport apply does that",
      );
    return;
  }
  try {
    const { published, snapshot } = await registry.apply({ files, author: self, force: true });
    if (published) log.info({ snapshot }, "the register was applied");
  } catch (cause) {
    if (!(cause instanceof ControlRefusal)) throw cause;
    for (const problem of cause.problems) log.error({ ...problem }, problem.message);
    if (!stands) stop(cause);
    log.error({}, `${cause.message}: what stood before goes on standing`);
  }
}

/** The store is a backup: what gates saw after it was made must not look newer than what they are told from now on. */
export async function beginAgain(start: Start): Promise<string | undefined> {
  const { log, registry, self, stop } = start;
  if (!registry.current())
    stop(new Error("there is nothing to restore: the store is empty. Put the backup in its place"));
  const { snapshot } = await registry.startEpoch(self);
  log.warn(
    { snapshot },
    "a new epoch was begun: what was revoked after the backup was made must be revoked again",
  );
  return snapshot;
}

const hourMs = 3_600_000;

/** How long a leaf of the principal lives, ms. */
export function leafMs(register: Register, principal: Principal, isApart: boolean): number {
  const kind = parsePrincipal(principal)?.kind;
  // Operators are people and scripts that come now and then; an hour would send them back for a token each time.
  if (kind !== "service" && kind !== "gate") return 12 * hourMs;
  return register.lifetimes.leafMs ?? (isApart ? hourMs : 12 * hourMs);
}

/** `orders` or `metrics.orders`: a gated port of the register. Fails closed. */
export function isServedName(register: Register, dnsName: string): boolean {
  const [first = "", second] = dnsName.split(".");
  const name = second ?? first;
  const service = Object.hasOwn(register.services, name) ? register.services[name] : undefined;
  if (!service || dnsName.split(".").length > 2) return false;
  const ports = Object.values(service.ports).filter((port) => port.via === "gate");
  return second === undefined ? ports.length > 0 : ports.some((port) => port.name === first);
}
