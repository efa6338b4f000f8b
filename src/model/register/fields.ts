import type { Excuse, Hours, RateLimit } from "../register.ts";
import {
  bind,
  caller,
  cidr,
  days,
  duration,
  hostname,
  instant,
  method,
  name,
  nameSchema,
  pathPattern,
  rate,
  readName,
  sentence,
  source,
  timeOfDay,
  trustDomain,
  upstream,
  type WrittenBind,
  zone,
} from "./scalars.ts";
import { fields, list, named, oneOrMore, type Shape, told, whole, word } from "./shape.ts";

/** Every key a register can have, with what it means: the parser, the JSON Schema and the messages all read these tables. */

const second = 1000;
const minute = 60 * second;
const hour = 60 * minute;
const day = 24 * hour;

/** Keeps what was read of a map only when all that is needed was. */
function whenWhole<A, B>(shape: Shape<A>, make: (read: A) => B | undefined): Shape<B> {
  return {
    schema: shape.schema,
    read: (tree, report) => {
      const read = shape.read(tree, report);
      return read === undefined ? undefined : make(read);
    },
  };
}

const excuse: Shape<Excuse> = whenWhole(
  fields("an excuse", {
    why: { shape: sentence, about: "Why the danger is accepted.", required: true },
    expires: { shape: instant, about: "Until when, a date.", required: true },
  }),
  ({ why, expires }) =>
    why === undefined || expires === undefined ? undefined : { why, expiresMs: expires },
);

const door = fields("a door", {
  bind: {
    shape: oneOrMore(bind, 16),
    about: "Where it listens: 127.0.0.1:7443, [::1]:7443 or NETWORK:7443; one or a list.",
  },
  from: {
    shape: oneOrMore(source, 64),
    about: "Networks or ranges that peers have to come from. By default the network of the bind.",
  },
  unsafeBind: {
    shape: excuse,
    about: "Why it may listen on a wildcard, a public address or a wide network, and until when.",
  },
});

const decoyMap = fields("a decoy", {
  bind: { shape: bind, about: "Where it listens.", required: true },
  unsafeBind: { shape: excuse, about: "As for a door." },
});

const decoy: Shape<{ bind?: WrittenBind; unsafeBind?: Excuse }> = {
  schema: { anyOf: [bind.schema, decoyMap.schema] },
  read: (tree, report) => {
    if (tree.kind === "map") return decoyMap.read(tree, report);
    const only = bind.read(tree, report);
    return only === undefined ? undefined : { bind: only };
  },
};

const planes = fields("planes", {
  control: { shape: door, about: "For administrators and automation. Default 127.0.0.1:7440." },
  join: { shape: door, about: "Enrol, renew, feed, discover. Default 127.0.0.1:7442." },
  ops: { shape: door, about: "Metrics and health. Default 127.0.0.1:7441." },
  data: { shape: door, about: "For services. Default 127.0.0.1:7443." },
  decoys: {
    shape: list(decoy, 64, "a list of addresses"),
    about: "Ports nobody has a reason to touch; any hit there is a warning.",
  },
});

const timeouts = fields("timeouts", {
  connect: { shape: duration(10, minute), about: "TCP connect to an upstream. Default 1s." },
  responseHead: {
    shape: duration(10, hour),
    about: "From the request's end to the response head. Default 15s.",
  },
  idle: {
    shape: duration(100, day),
    about: "No byte in either direction of a request in flight. Default 60s.",
  },
  lifetime: {
    shape: duration(second, day),
    about: "The longest a request may take.",
    notYet: true,
  },
});

const limit: Shape<RateLimit> = whenWhole(
  fields("a limit", {
    rate: {
      shape: rate,
      about: "Requests of one caller, such as 100/s, 5/m, 1000/h.",
      required: true,
    },
    burst: {
      shape: whole(1, 10_000_000, "a whole number"),
      about: "How many may come at once. Default: the number in the rate.",
    },
  }),
  ({ rate, burst }) => rate && { count: rate.count, perMs: rate.perMs, burst: burst ?? rate.count },
);

const hours: Shape<Hours> = whenWhole(
  fields("hours", {
    days: {
      shape: whenWhole(oneOrMore(days, 7), (lists) => [...new Set(lists.flat())].sort()),
      about: "mon-fri, or a list. Default: every day.",
    },
    start: { shape: timeOfDay, about: "From this time of day.", required: true },
    end: {
      shape: timeOfDay,
      about: "Before this one; at or before the start: the next day's.",
      required: true,
    },
    zone: { shape: zone, about: "IANA time zone. Default UTC." },
  }),
  ({ days, start, end, zone }) =>
    start === undefined || end === undefined
      ? undefined
      : {
          days: days ?? [0, 1, 2, 3, 4, 5, 6],
          startMinute: start,
          endMinute: end,
          zone: zone ?? "UTC",
        },
);

const cors = {
  shape: word(["off"]),
  about: "Answers to preflight requests.",
  notYet: true,
} as const;
const tls = { shape: word(["off"]), about: "TLS to upstreams.", notYet: true } as const;
const upstreamProtocol = {
  shape: word(["http1", "http2"]),
  about: "What is spoken behind the gate.",
  notYet: true,
} as const;

const ruleFields = {
  id: {
    shape: name,
    about: "Unique in its service; hits and explanations name it.",
    required: true,
  },
  from: {
    shape: oneOrMore(caller, 1000),
    about: 'Services that may call, or "*" for every registered one.',
    required: true,
  },
  ports: { shape: oneOrMore(name, 64), about: "Gated ports it is about. Default: the main one." },
  methods: {
    shape: list(method, 64, "a list of methods such as [GET, POST]"),
    about: "Request methods; GET includes HEAD. Default: all.",
  },
  paths: {
    shape: list(pathPattern, 1000, 'a list of path patterns such as ["/orders/**"]'),
    about: "Path patterns: /orders, /orders/:id, /orders/**. Default: all.",
  },
  expires: { shape: instant, about: "From then on the rule is void." },
  hours: { shape: hours, about: "When the rule is in force." },
  why: { shape: sentence, about: "Why it is there." },
  cors,
} as const;

export const allowRule = fields("a rule", {
  ...ruleFields,
  limit: { shape: limit, about: "A rate for each caller." },
});
const denyRule = fields("a deny rule", ruleFields);

const portFields = {
  protocol: { shape: word(["http", "grpc", "tcp"]), about: "What callers speak. Default http." },
  upstreams: { shape: oneOrMore(upstream, 64), about: "Where the gate forwards to." },
  via: {
    shape: word(["gate", "direct"]),
    about: "gate (default): only through Sallyport. direct: declared and checked, not proxied.",
  },
  exposure: {
    shape: name,
    about: "internal (default), public, or the network it can be reached from.",
  },
  port: {
    shape: whole(1, 65_535, "a port"),
    about: "Where the service itself listens; needed for via: direct.",
  },
  plaintext: {
    shape: excuse,
    about: "Why plaintext to an upstream off this machine is accepted, and until when.",
  },
  upstreamProtocol,
  tls,
} as const;

export const portMap = fields("a port", {
  ...portFields,
  timeouts: { shape: timeouts, about: "As for the service; these win." },
});

/** Keys of a service that describe its one port when `ports` is absent. */
export const shortFormKeys = Object.keys(portFields);

function rules<T>(rule: Shape<T>): Shape<readonly (T | undefined)[]> {
  const all = list(rule, 1000, "a list of rules such as [{ id: web-reads, from: web }]");
  return {
    schema: all.schema,
    // A rule that could not be read keeps its place, so that `allow[2]` means the same to everybody.
    read: (tree, report) =>
      tree.kind === "list"
        ? tree.items.slice(0, 1000).map((item) => rule.read(item, report))
        : all.read(tree, report),
  };
}

export const service = fields("a service", {
  owner: { shape: sentence, about: "Who answers for it.", required: true },
  why: { shape: sentence, about: "What it is for." },
  hosts: {
    shape: oneOrMore(hostname, 64),
    about: "Other names callers may put in Host for its main port.",
  },
  ports: {
    shape: named({
      what: "port",
      name: readName,
      nameSchema,
      value: () => portMap,
      max: 64,
    }),
    about:
      "Every port it listens on, by name. Instead, a service with one port can say protocol and upstreams here.",
  },
  ...portFields,
  timeouts: { shape: timeouts, about: "For every port of the service." },
  allow: { shape: rules(allowRule), about: "Who may call. Nobody else may." },
  deny: { shape: rules(denyRule), about: "Who may not, whatever allow says." },
  audit: {
    shape: word(["required", "bestEffort"]),
    about: "required (default): a request that cannot be recorded is refused.",
  },
  grace: {
    shape: duration(minute, 7 * day),
    about:
      "How long after its expiry a certificate may still be renewed with its key. Default: not at all.",
  },
  staleAfter: {
    shape: fields("staleAfter", {
      after: {
        shape: duration(second, 365 * day),
        about: "Age of the gate's register.",
        required: true,
      },
      // biome-ignore lint/suspicious/noThenProperty: the register's word; the table is never awaited
      then: { shape: word(["warn", "refuse"]), about: "What it does then.", required: true },
    }),
    about: "What a gate does when its register is too old. Default: serve for ever.",
  },
  accept: {
    shape: oneOrMore(word(["encoded-slash", "underscore-headers", "user-headers"]), 3),
    about: "Exceptions to the strict defaults.",
  },
  cors,
  edge: {
    shape: word(["off"]),
    about: "A service that forwards for the world outside.",
    notYet: true,
  },
});

const versionOne: Shape<1> = {
  schema: { const: 1 },
  read: (tree, report) => {
    if (tree.kind === "scalar" && tree.value === 1) return 1;
    if (tree.kind !== "broken")
      report(tree, {
        code: "bad-version",
        message: `expected 1, not ${told(tree)}: this Sallyport reads version 1 of the register's form`,
        hint: "write version: 1",
      });
    return undefined;
  },
};

const networks = named({
  what: "network",
  name: (written) =>
    written === "internal" || written === "public" || written === "localhost"
      ? { wrong: "the word has a meaning already" }
      : readName(written),
  nameSchema,
  value: () => oneOrMore(cidr, 256),
  max: 256,
});

const services = named({
  what: "service",
  name: readName,
  nameSchema,
  value: () => service,
  max: 10_000,
});

const sharedFields = {
  version: { shape: versionOne, about: "Always 1." },
  networks: { shape: networks, about: "Names for ranges of addresses." },
  services: { shape: services, about: "Every service that offers or calls." },
} as const;

/** The main file. */
export const root = fields("a register", {
  version: { ...sharedFields.version, required: true },
  trustDomain: {
    shape: trustDomain,
    about: "What every identity begins with, such as shop.internal.",
    required: true,
  },
  networks: sharedFields.networks,
  planes: { shape: planes, about: "Sallyport's own doors." },
  lifetimes: {
    shape: fields("lifetimes", {
      leaf: {
        shape: duration(5 * minute, day),
        about: "Of certificates of services and gates, 5m to 24h.",
      },
    }),
    about: "How long certificates are valid.",
  },
  services: { ...sharedFields.services, required: true },
  gates: { shape: word(["off"]), about: "Where gates stand, and what they serve.", notYet: true },
  cors,
  tls,
  edge: {
    shape: word(["off"]),
    about: "Services that forward for the world outside.",
    notYet: true,
  },
  overlay: { shape: word(["off"]), about: "Changes for one environment.", notYet: true },
  overlays: { shape: word(["off"]), about: "Changes for one environment.", notYet: true },
});

/** A file of `sallyport.d/`: what teams bring along. */
export const part = fields(
  "a file in sallyport.d/, which brings services and networks",
  sharedFields,
);
