import {
  type AddressClass,
  type Cidr,
  cidrContains,
  cidrMayBePublic,
  classifyAddress,
  formatCidr,
} from "../../base/address.ts";
import type { Register } from "../../model/register.ts";
import { bindsOf, mayMeet, type PlacedBind, rangesOf } from "./binds-of.ts";
import type { Remark } from "./lint-register.ts";

/** Our own listeners: open to the world without a reason, or two on one address. The guard asks again when they are bound. */
export function lintBinds(register: Register, nowMs: number): Remark[] {
  const binds = bindsOf(register);
  return [
    ...binds.flatMap((bind) => openBind(register, bind, nowMs)),
    ...sameAddress(register, binds),
  ];
}

const dangers: Partial<Record<AddressClass, string>> = {
  shared: "is shared address space, private only inside a network of the register",
  "link-local": "is link-local",
  metadata: "belongs to the cloud's metadata service",
  public: "is a public address",
  wildcard: "is every address of this machine",
  multicast: "is a multicast address",
  reserved: "is reserved",
};

function openBind(register: Register, { bind, path }: PlacedBind, nowMs: number): Remark[] {
  const danger = dangerOf(register, bind);
  const excuse = bind.unsafeBind;
  if (!danger) {
    if (!excuse || bind.kind === "hostname") return [];
    const message = `${bind.text} is no danger, so its unsafeBind says nothing`;
    return [
      {
        code: "unsafe-bind-unneeded",
        severity: "warning",
        message,
        hint: "remove unsafeBind",
        path,
      },
    ];
  }
  const message = `${bind.text}: ${danger.says}`;
  if (!excuse)
    return [
      {
        code: danger.code,
        severity: "error",
        message,
        hint: "bind to 127.0.0.1, a private address or a network (mesh:7443); if it must be, add unsafeBind: { why: ..., expires: ... }",
        path,
      },
    ];
  // What has expired is a matter of time: see lint-time.
  if (excuse.expiresMs <= nowMs) return [];
  const until = new Date(excuse.expiresMs).toISOString().slice(0, 10);
  return [
    {
      code: "unsafe-bind",
      severity: "warning",
      message: `${message}; accepted until ${until} because: ${excuse.why}`,
      path,
    },
  ];
}

function dangerOf(
  register: Register,
  { host, kind }: PlacedBind["bind"],
): { code: string; says: string } | undefined {
  if (kind === "network") {
    for (const range of rangesOf(register, host)) {
      const text = `the network ${JSON.stringify(host)} (${formatCidr(range)})`;
      if (isTooWide(range))
        return {
          code: "bind-too-wide",
          says: `${text} is wider than /8 (IPv4) or /16 (IPv6), too wide to name a bind`,
        };
      if (cidrMayBePublic(range))
        return { code: "bind-holds-public", says: `${text} may hold public addresses` };
    }
    return undefined;
  }
  // What a host name means is known only where it is bound; the guard judges it there.
  if (kind === "hostname") return undefined;
  const meaning = classifyAddress(host);
  const says = dangers[meaning];
  if (says === undefined || (meaning === "shared" && isInANetwork(register, host)))
    return undefined;
  return { code: `bind-${meaning}`, says: `${host} ${says}` };
}

function isInANetwork(register: Register, host: string): boolean {
  return Object.keys(register.networks)
    .flatMap((name) => rangesOf(register, name))
    .some((range) => !isTooWide(range) && !cidrMayBePublic(range) && cidrContains(range, host));
}

/** The widest ranges that may name a bind. */
function isTooWide(range: Cidr): boolean {
  return range.prefix < (range.family === 4 ? 8 : 16);
}

function sameAddress(register: Register, binds: readonly PlacedBind[]): Remark[] {
  const remarks: Remark[] = [];
  for (const [i, later] of binds.entries()) {
    const earlier = binds
      .slice(0, i)
      .find(({ bind }) => mayMeet(register, bind, { ...later.bind }));
    if (!earlier) continue;
    const isMixed = (earlier.door === "data") !== (later.door === "data");
    remarks.push({
      code: "same-address",
      severity: "error",
      message: `${later.bind.text} (${later.door}) is the same address as ${earlier.bind.text} (${earlier.door})`,
      hint: isMixed
        ? "doors of different planes never share an address: give each its own port"
        : "give each its own port",
      path: later.path,
    });
  }
  return remarks;
}
