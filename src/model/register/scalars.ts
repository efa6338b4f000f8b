import { formatCidr, parseAddress, parseCidr, suggestCidr } from "../../base/address.ts";
import { formatDuration, parseDuration, parseRate, type Rate } from "../../base/duration.ts";
import { isName, isTrustDomain } from "../principal.ts";
import type { Upstream } from "../register.ts";
import { didYouMean, nearest } from "./nearest.ts";
import { type Parsed, type Shape, text } from "./shape.ts";

const nameRule = "1 to 63 of a-z, 0-9 and inner hyphens";
const namePattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";

/** How the name of a service, port, network or rule is spelled. */
export function readName(written: string): Parsed<string> {
  // The one name of this form that every plain object already answers to.
  if (written === "constructor") return { wrong: "the word is reserved" };
  if (isName(written)) return { value: written };
  const tidy = written
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-+|-+$/g, "")
    .slice(0, 63)
    .replace(/-+$/, "");
  const hint =
    isName(tidy) && tidy !== "constructor" ? `${JSON.stringify(tidy)} would do` : undefined;
  return { wrong: nameRule, hint };
}
export const nameSchema = { type: "string", pattern: namePattern };

export const name: Shape<string> = text({
  code: "bad-name",
  expected: `a name, ${nameRule}`,
  parse: readName,
  schema: nameSchema,
  bare: true,
});

/** A caller in a rule: the name of a service, or `*`. */
export const caller: Shape<string> = text({
  code: "bad-caller",
  expected: 'the name of a service, or "*"',
  schema: { pattern: `^\\*$|${namePattern}` },
  bare: true,
  parse: (written) => {
    if (written === "*") return { value: written };
    const last = /^(?:spiffe:\/\/[^/]*\/)?service\/([a-z0-9-]+)$/.exec(written)?.[1];
    if (last !== undefined && isName(last))
      return {
        wrong: "callers are named by their service alone",
        hint: `write ${JSON.stringify(last)}`,
      };
    if (/^(spiffe:\/\/|gate\/|admin\/|automation\/|auditor\/|control\/)/.test(written))
      return { wrong: "only services call services", hint: "name a service of this register" };
    return readName(written);
  },
});

/** A free sentence of people: at most 200 characters, in one line. */
export const sentence: Shape<string> = text({
  code: "bad-text",
  expected: "a text of 1 to 200 characters in one line",
  schema: { minLength: 1, maxLength: 200 },
  parse: (written) => {
    const trimmed = written.trim();
    const isPlain = trimmed !== "" && trimmed.length <= 200 && !/\p{Cc}/u.test(trimmed);
    return isPlain ? { value: trimmed } : undefined;
  },
});

export const trustDomain: Shape<string> = text({
  code: "bad-trust-domain",
  expected: "a trust domain: lower-case dotted labels such as shop.internal",
  schema: {
    pattern: "^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$",
    maxLength: 253,
  },
  parse: (written) => {
    if (isTrustDomain(written)) return { value: written };
    const bare = written
      .toLowerCase()
      .replace(/^[a-z]+:\/\//, "")
      .replace(/\/.*$/, "");
    return {
      wrong: "a trust domain is lower-case dotted labels such as shop.internal",
      hint: isTrustDomain(bare) ? `did you mean ${JSON.stringify(bare)}?` : undefined,
    };
  },
});

/** A duration within bounds, in ms. */
export function duration(minMs: number, maxMs: number): Shape<number> {
  const bounds = `${formatDuration(minMs)} to ${formatDuration(maxMs)}`;
  return text({
    code: "bad-duration",
    expected: `a duration such as 5s, 15m or 1h, ${bounds}`,
    schema: { pattern: "^(\\d+d)?(\\d+h)?(\\d+m)?(\\d+s)?(\\d+ms)?$", minLength: 2 },
    bare: true,
    parse: (written) => {
      const durationMs = parseDuration(written);
      if (durationMs === undefined)
        return {
          wrong: `a duration is a number and ms, s, m, h or d; ${bounds}`,
          hint: tidyDuration(written),
        };
      if (durationMs >= minMs && durationMs <= maxMs) return { value: durationMs };
      const nearestMs = durationMs < minMs ? minMs : maxMs;
      return {
        wrong: `has to be within ${bounds}`,
        hint: `the nearest is ${formatDuration(nearestMs)}`,
      };
    },
  });
}

function tidyDuration(written: string): string | undefined {
  const match = /^(\d{1,6})\s*(ms|s|m|h|d)?/i.exec(written);
  if (!match) return undefined;
  const rest = written.slice(match[1]?.length).trim().toLowerCase();
  const units: readonly [RegExp, string][] = [
    [/^(ms|milli)/, "ms"],
    [/^s/, "s"],
    [/^m/, "m"],
    [/^h/, "h"],
    [/^d/, "d"],
  ];
  const unit = rest === "" ? undefined : units.find(([form]) => form.test(rest))?.[1];
  if (unit) return `did you mean ${match[1]}${unit}?`;
  return rest === "" ? `say the unit: ${match[1]}s, ${match[1]}ms` : undefined;
}

export const rate: Shape<Rate> = text({
  code: "bad-rate",
  expected: "a rate such as 100/s, 5/m or 1000/h",
  schema: { pattern: "^[1-9]\\d{0,7}/(s|m|h)$" },
  bare: true,
  parse: (written) => {
    const value = parseRate(written);
    if (value) return { value };
    const near = /^(\d{1,7})\s*(?:\/|per|rp)\s*([smh])/i.exec(written);
    const hint =
      near && Number(near[1]) > 0
        ? `did you mean ${near[1]}/${near[2]?.toLowerCase()}?`
        : undefined;
    return { wrong: "a rate is a number, a slash and s, m or h, such as 100/s", hint };
  },
});

/** `2027-03-01` is 00:00 UTC of that day; an instant needs its zone: `2027-03-01T18:00:00Z`, `…+01:00`. Epoch ms. */
export const instant: Shape<number> = text({
  code: "bad-date",
  expected: "a date such as 2027-03-01 (00:00 UTC), or 2027-03-01T18:00:00Z",
  schema: {
    pattern: "^\\d{4}-\\d\\d-\\d\\d(T\\d\\d:\\d\\d(:\\d\\d(\\.\\d{1,3})?)?(Z|[+-]\\d\\d:\\d\\d))?$",
  },
  parse: (written) => {
    const match =
      /^(\d{4})-(\d\d)-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.\d{1,3})?)?(Z|[+-]\d\d:\d\d))?$/.exec(
        written,
      );
    if (!match) {
      const hint = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d/.test(written)
        ? "say the zone: end it with Z for UTC, and separate date and time with T"
        : undefined;
      return {
        wrong: "a date is 2027-03-01 (00:00 UTC of that day) or 2027-03-01T18:00:00Z",
        hint,
      };
    }
    const [, year, month, day] = match.map(Number);
    const date = new Date(Date.UTC(year ?? 0, (month ?? 0) - 1, day));
    // `Date` turns 30 February into 2 March without a word.
    if (date.getUTCMonth() + 1 !== month || date.getUTCDate() !== day)
      return { wrong: "there is no such day" };
    const value = Date.parse(written);
    return Number.isNaN(value) ? { wrong: "there is no such time of day" } : { value };
  },
});

export const cidr: Shape<string> = text({
  code: "bad-cidr",
  expected: "a range of addresses such as 10.20.0.0/16 or fd00:20::/48",
  schema: { pattern: "^[0-9a-fA-F:.]+(/\\d{1,3})?$" },
  parse: (written) => {
    const range = parseCidr(written);
    if (range) {
      const value = formatCidr(range);
      if (value === written || value.startsWith(`${written}/`)) return { value };
      return { wrong: "not the canonical spelling of the range", hint: `write ${value}` };
    }
    const meant = suggestCidr(written);
    if (meant === undefined) return undefined;
    return { wrong: "bits behind the prefix are set", hint: `did you mean ${meant}?` };
  },
});

/** Where a door's peers come from: the name of a network, or a range. */
export const source: Shape<string> = text({
  code: "bad-source",
  expected: "the name of a network, or a range such as 10.20.0.0/16",
  schema: {},
  parse: (written) => {
    if (isName(written) && !parseAddress(written)) return { value: written };
    const range = parseCidr(written);
    if (range) return { value: formatCidr(range) };
    const meant = suggestCidr(written);
    return meant === undefined
      ? undefined
      : { wrong: "bits behind the prefix are set", hint: `did you mean ${meant}?` };
  },
});

type HostPort = { readonly host: string; readonly port: number; readonly isAddress: boolean };

/** `127.0.0.1:7440`, `[::1]:7440`, `name:7440`; no other spelling. */
function readHostPort(written: string, portMin: number): Parsed<HostPort> {
  const match = /^(?:\[([^\]]*)\]|([^:[\]]*)):(\d{1,5})$/.exec(written);
  if (!match) {
    if (/^[a-z]+:\/\//.test(written))
      return { wrong: "an address has no scheme and no path", hint: stripUrl(written) };
    if (/^\d{1,5}$/.test(written))
      return { wrong: "the address is missing", hint: `write "127.0.0.1:${written}"` };
    const bare = parseAddress(written);
    if (bare?.family === 6)
      return { wrong: "the port is missing", hint: `write "[${bare.text}]:PORT"` };
    if (!written.includes(":"))
      return { wrong: "the port is missing", hint: `write "${written}:PORT"` };
    return { wrong: "an address is 127.0.0.1:9001, [::1]:9001 or name:9001" };
  }
  const [, v6, plain = "", portText] = match;
  const port = Number(portText);
  if (port > 65_535 || port < portMin || (portText !== "0" && portText?.startsWith("0")))
    return { wrong: `${portText} is no port, ${portMin} to 65535` };
  if (v6 !== undefined) {
    const address = parseAddress(v6);
    if (address?.family !== 6 && !v6.includes(":"))
      return { wrong: "brackets are for IPv6 addresses" };
    if (!address || v6.includes("%"))
      return { wrong: `${v6} is no IPv6 address that can be used here` };
    return { value: { host: address.text, port, isAddress: true } };
  }
  const address = parseAddress(plain);
  if (address) return { value: { host: address.text, port, isAddress: true } };
  if (plain === "" || plain === "*")
    return {
      wrong: "that would be every address of the machine",
      hint: `name one, such as 127.0.0.1:${port}, or a network of this register`,
    };
  // `0`, `127.1`, `0x7f.1` are addresses to some resolvers and names to others.
  if (/^(0x[0-9a-f]*|\d+)(\.(0x[0-9a-f]*|\d+))*\.?$/i.test(plain))
    return {
      wrong: "not a full IPv4 address in plain decimal",
      hint: "write all four numbers, without leading zeros",
    };
  const lower = plain.toLowerCase();
  if (
    !/^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$/.test(
      lower,
    )
  )
    return { wrong: `${JSON.stringify(plain)} is neither an address nor a host name` };
  if (lower !== plain)
    return { wrong: "host names are written in lower case", hint: `write "${lower}:${port}"` };
  return { value: { host: plain, port, isAddress: false } };
}

function stripUrl(written: string): string | undefined {
  const match = /^([a-z]+):\/\/([^/?#]+)/.exec(written);
  if (!match) return undefined;
  const hasPort = /:\d+$/.test(match[2] ?? "");
  return `write "${match[2]}${hasPort ? "" : match[1] === "https" ? ":443" : ":80"}"`;
}

/** What `readHostPort` made of a bind; whether a name means a network is known once all files were read. */
export type WrittenBind = HostPort & { readonly text: string };

export const bind: Shape<WrittenBind> = text({
  code: "bad-address",
  expected: "an address to listen on, such as 127.0.0.1:7443, [::1]:7443 or mesh:7443",
  schema: { pattern: "^(\\[[0-9a-fA-F:.]+\\]|[^:\\[\\]]+):\\d{1,5}$" },
  bare: true,
  parse: (written) => {
    const parsed = readHostPort(written, 0);
    return "value" in parsed ? { value: { ...parsed.value, text: written } } : parsed;
  },
});

/** Linux takes 107 bytes and a terminating NUL (unix(7)). */
const unixPathBytesMax = 107;

export const upstream: Shape<Upstream> = text({
  code: "bad-address",
  expected:
    "an address to forward to, such as 127.0.0.1:9001, [::1]:9001, orders:9001 or unix:/run/orders.sock",
  schema: { pattern: "^(unix:/.+|(\\[[0-9a-fA-F:.]+\\]|[^:\\[\\]]+):\\d{1,5})$" },
  bare: true,
  parse: (written): Parsed<Upstream> => {
    if (written.startsWith("unix:")) {
      const path = written.slice(5);
      if (!path.startsWith("/") || /\p{Cc}/u.test(path) || path.split("/").includes(".."))
        return {
          wrong: "a socket's path is absolute and has no ..",
          hint: 'such as "unix:/run/orders.sock"',
        };
      if (Buffer.byteLength(path) > unixPathBytesMax)
        return { wrong: `a socket's path has at most ${unixPathBytesMax} bytes` };
      return { value: { kind: "unix", path } };
    }
    const parsed = readHostPort(written, 1);
    if (!("value" in parsed)) return parsed;
    return { value: { kind: "tcp", host: parsed.value.host, port: parsed.value.port } };
  },
});

/** Another name for a service in `Host`: lower case, no port. */
export const hostname: Shape<string> = text({
  code: "bad-host",
  expected: "a host name such as orders.shop.example",
  schema: {
    pattern: "^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$",
    maxLength: 253,
  },
  parse: (written) => {
    // The same alphabet as a trust domain; an address would be no name that a certificate can carry.
    if (isTrustDomain(written) && !/^[\d.]+$/.test(written)) return { value: written };
    const bare = written
      .toLowerCase()
      .replace(/^[a-z]+:\/\//, "")
      .replace(/[:/].*$/, "");
    const hint =
      isTrustDomain(bare) && !/^[\d.]+$/.test(bare)
        ? `did you mean ${JSON.stringify(bare)}?`
        : undefined;
    return {
      wrong: "a host name is lower-case dotted labels, without scheme, port and wildcard",
      hint,
    };
  },
});

/** RFC 9110 section 16.1 and the methods registered since that callers send. */
const knownMethods = [
  ..."GET HEAD POST PUT PATCH DELETE OPTIONS TRACE QUERY SEARCH REPORT".split(" "),
  ..."PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK LINK UNLINK BIND UNBIND ACL".split(" "),
];

/** Anything in upper case may be a method; what is nearly a well-known one was mistyped. */
export const method: Shape<string> = text({
  code: "bad-method",
  expected: "a request method in upper case, such as GET",
  schema: { pattern: "^[A-Z][A-Z-]{0,31}$" },
  bare: true,
  parse: (written) => {
    if (knownMethods.includes(written)) return { value: written };
    if (written === "CONNECT") return { wrong: "a gate opens no tunnels for requests" };
    if (written === "*" || /^(any|all)$/i.test(written))
      return {
        wrong: "every method is what a rule without methods means",
        hint: 'remove "methods"',
      };
    const upper = written.toUpperCase();
    if (knownMethods.includes(upper))
      return { wrong: "methods are case-sensitive", hint: `did you mean "${upper}"?` };
    const near = nearest(upper, knownMethods);
    if (near !== undefined)
      return { wrong: "no method that is known", hint: `did you mean "${near}"?` };
    return /^[A-Z][A-Z-]{0,31}$/.test(written) ? { value: written } : undefined;
  },
});

/** Literal segments, `:id` for one segment, `/**` at the end for it and all below. Matched on the canonical path. */
export const pathPattern: Shape<string> = text({
  code: "bad-path",
  expected: "a path pattern such as /orders, /orders/:id or /orders/**",
  schema: { pattern: "^/", maxLength: 1024 },
  parse: readPathPattern,
});

function readPathPattern(written: string): Parsed<string> {
  const wrong = (why: string, hint?: string): Parsed<string> => ({ wrong: why, hint });
  const ifFits = (other: string) =>
    other !== written && "value" in readPathPattern(other)
      ? `did you mean ${JSON.stringify(other)}?`
      : undefined;
  if (written.length > 1024) return wrong("longer than 1024 characters");
  if (/^https?:\/\//.test(written))
    return wrong("a path has no scheme and host", ifFits(written.replace(/^https?:\/\/[^/]*/, "")));
  if (/[?#]/.test(written))
    return wrong("the query is not part of the path", ifFits(written.replace(/[?#].*$/, "")));
  if (!written.startsWith("/")) return wrong("a path begins with /", ifFits(`/${written}`));
  if (written.includes("%"))
    return wrong("no encoded characters: rules are matched on the decoded, canonical path");
  if (/[{}<>]/.test(written))
    return wrong("a variable is written :id", ifFits(written.replace(/[{<](\w+)[}>]/g, ":$1")));
  const segments = written.slice(1).split("/");
  if (segments.length > 64) return wrong("more than 64 segments");
  for (const [i, segment] of segments.entries()) {
    const isLast = i === segments.length - 1;
    if (segment === "" && !isLast)
      return wrong("// is merged before matching", ifFits(written.replace(/\/{2,}/g, "/")));
    if (segment === "." || segment === "..")
      return wrong("dot segments are removed before matching");
    if (segment === "**") {
      if (!isLast)
        return wrong("** stands only at the end", "use :name for one segment in the middle");
    } else if (segment === "*") {
      return wrong(
        "one segment is written :id",
        ifFits(
          segments
            .map((each) => (each === "*" ? ":id" : each))
            .join("/")
            .replace(/^/, "/"),
        ),
      );
    } else if (segment.includes("*")) {
      return wrong(
        "* stands for nothing inside a segment",
        "use :name for a whole segment, /** for all below",
      );
    } else if (segment.startsWith(":")) {
      if (!/^:[A-Za-z_]\w{0,62}$/.test(segment))
        return wrong("a variable is a colon and letters, digits, _, such as :id");
    } else if (!/^[A-Za-z0-9._~!$&'()+,;=:@-]*$/.test(segment)) {
      return wrong("a character that a canonical path never holds");
    }
  }
  return { value: written };
}

const dayNames = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const dayNamesWhole = ["sun", "mon", "tues", "wednes", "thurs", "fri", "satur"].map(
  (name) => `${name}day`,
);

/** `mon-fri`, `sat`, `mon,wed,fri`, `fri-mon`; 0 Sunday … 6 Saturday. */
export const days: Shape<readonly number[]> = text({
  code: "bad-days",
  expected: "days such as mon-fri, or mon,wed,fri",
  schema: { pattern: "^(sun|mon|tue|wed|thu|fri|sat)([-,](sun|mon|tue|wed|thu|fri|sat))*$" },
  parse: (written) => {
    const found = new Set<number>();
    for (const part of written.split(",")) {
      const [first = "", last = first, more] = part.trim().split("-");
      for (const each of [first, last])
        if (!dayNames.includes(each))
          return {
            wrong: `days are ${dayNames.join(", ")}`,
            hint: daysMeant(written) ?? "such as mon-fri, or mon,wed,fri",
          };
      if (more !== undefined) return undefined;
      const end = dayNames.indexOf(last);
      for (let day = dayNames.indexOf(first); ; day = (day + 1) % 7) {
        found.add(day);
        if (day === end) break;
      }
    }
    return { value: [...found].sort() };
  },
});

/** The whole of it put right: `mon-fry`, `Monday - Friday` and `mon,thurs` are near enough to something that can be pasted. */
function daysMeant(written: string): string | undefined {
  let isClear = true;
  const close = written.trim().replaceAll(/\s*([,-])\s*/g, "$1");
  const meant = close.replaceAll(/[^,-]+/g, (word) => {
    const begun = dayNamesWhole.find(
      (name) => word.length > 2 && name.startsWith(word.toLowerCase()),
    );
    const day = begun ?? nearest(word, [...dayNames, ...dayNamesWhole]);
    if (day === undefined) isClear = false;
    return day?.slice(0, 3) ?? word;
  });
  if (!isClear || !/^[a-z]{3}([,-][a-z]{3}){0,6}$/.test(meant)) return undefined;
  return `did you mean ${JSON.stringify(meant)}?`;
}

/** `08:00` to minutes since midnight; `24:00` is the end of the day. */
export const timeOfDay: Shape<number> = text({
  code: "bad-time",
  expected: 'a time of day such as "08:00"',
  schema: { pattern: "^([01]\\d|2[0-3]):[0-5]\\d$|^24:00$" },
  bare: true,
  parse: (written) => {
    const match = /^(\d\d):(\d\d)$/.exec(written);
    const [hour, minute] = [Number(match?.[1] ?? 99), Number(match?.[2] ?? 99)];
    if (match && minute < 60 && (hour < 24 || (hour === 24 && minute === 0)))
      return { value: hour * 60 + minute };
    const short = /^(\d):?([0-5]\d)$/.exec(written);
    return {
      wrong: 'a time of day is "08:00", 00:00 to 24:00',
      hint: short ? `did you mean "0${short[1]}:${short[2]}"?` : undefined,
    };
  },
});

/** An IANA time zone that this Node's ICU knows. */
export const zone: Shape<string> = text({
  code: "bad-zone",
  expected: "a time zone such as UTC or Europe/Berlin",
  schema: {},
  parse: (written) => {
    const known = ["UTC", ...Intl.supportedValuesOf("timeZone")];
    if (known.includes(written)) return { value: written };
    const near = didYouMean(written, known, "IANA names: UTC, Europe/Berlin, America/New_York");
    const exact = known.find((each) => each.toLowerCase() === written.toLowerCase());
    if (
      exact === undefined &&
      /^[A-Za-z_]+(\/[A-Za-z_+-]+\d*){0,2}$/.test(written) &&
      isZone(written)
    )
      return { value: written };
    return { wrong: "no time zone that is known", hint: exact ? `did you mean "${exact}"?` : near };
  },
});

function isZone(written: string): boolean {
  try {
    new Intl.DateTimeFormat("en", { timeZone: written });
    return true;
  } catch {
    return false;
  }
}
