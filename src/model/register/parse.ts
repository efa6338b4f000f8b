import type { Problem } from "../../base/problem.ts";
import {
  type Bind,
  type Door,
  type Excuse,
  mainPort,
  type Planes,
  type Port,
  type Register,
  type Rule,
  type Service,
  type Timeouts,
} from "../register.ts";
import {
  type allowRule,
  part,
  type portMap,
  root,
  type service as serviceShape,
  shortFormKeys,
} from "./fields.ts";
import { type Entry, type Place, readYaml, type SourceFile, type Tree } from "./read-yaml.ts";
import type { WrittenBind } from "./scalars.ts";
import { notYet, type Report, type Shape } from "./shape.ts";

export type ParsedRegister = {
  /** Only when there is no error. */
  readonly register?: Register;
  /** As much as could be read, for lints to go on with: bad values are absent, bad names kept. Never to be enforced. */
  readonly draft?: Register;
  /** All of them, in the order of the files. */
  readonly problems: readonly Problem[];
  /** Where `services.orders.allow[0].from` stands; for what is not written, the nearest thing around it that is. */
  readonly locate: (path: string) => Place | undefined;
  /** Whether something at the path or below it could not be read, so that nothing follows from its absence. */
  readonly isDamaged: (path: string) => boolean;
};

const filesMax = 1000;
/** At two names each and some 5 ms of control's time a name, a gate with leaves of an hour keeps up. */
const gatedPortsMax = 20_000;
/** More than anybody reads in one run; what is beyond is counted as one. */
const problemsMax = 2000;
const defaultTimeouts: Timeouts = { connectMs: 1000, responseHeadMs: 15_000, idleMs: 60_000 };
const defaultPorts = { control: 7440, join: 7442, ops: 7441, data: 7443 } as const;

type Read<S> = S extends Shape<infer T> ? T : never;
type ServiceRead = Read<typeof serviceShape>;
type PortRead = Read<typeof portMap>;
type RuleRead = Read<typeof allowRule>;

/**
 * Reads a register: the main file first, then the files of `sallyport.d/`, whose services and networks are merged into it in the order
 * of their names. Never throws; every problem of every file is reported in one run. Fails closed: with one error there is no register.
 */
export function parseRegister(files: readonly SourceFile[]): ParsedRegister {
  const run = new Run();
  const [main, ...parts] = files.slice(0, filesMax);
  if (files.length > filesMax)
    run.add({ code: "too-many", message: `${files.length} files; at most ${filesMax} are merged` });
  if (!main) {
    run.add({ code: "empty", message: "there is no file to read" });
    return run.end();
  }
  const tree = run.read(main);
  const top = tree && root.read(tree, run.report);
  const services = new Map<string, Named<ServiceRead>>();
  const networks = new Map<string, Named<readonly string[]>>();
  run.merge("service", services, top?.services);
  run.merge("network", networks, top?.networks);
  for (const file of parts.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const partTree = run.read(file);
    const read = partTree && part.read(partTree, run.report);
    run.merge("service", services, read?.services);
    run.merge("network", networks, read?.networks);
  }
  if (!top) return run.end();
  const names = new Set(networks.keys());
  const leafMs = top.lifetimes?.leaf;
  const draft: Register = {
    version: 1,
    trustDomain: top.trustDomain ?? "",
    networks: mapValues(networks, ({ value }) => value ?? []),
    planes: planesOf(top.planes ?? {}, names),
    lifetimes: leafMs === undefined ? {} : { leafMs },
    services: mapValues(services, (each) => run.service(each)),
  };
  run.countGated(draft);
  return run.end(draft);
}

type Named<T> = { readonly entry: Entry; readonly value: T | undefined };

class Run {
  readonly problems: Problem[] = [];
  readonly #places = new Map<string, Place>();
  /** Paths of the register that are written shorter in the file. */
  readonly #shortForms = new Map<string, string>();
  readonly #broken: string[] = [];
  #start: Place | undefined;
  #unread = false;

  /** A file that could not be read at all may define what others name: then nothing is concluded. */
  end(draft?: Register): ParsedRegister {
    const { problems, locate } = this;
    const damaged = new Set<string>();
    const note = (path: string) => {
      // Whatever contains something that is damaged is damaged too.
      for (let rest = path; rest !== "" && !damaged.has(rest); rest = parentOf(rest))
        damaged.add(rest);
    };
    for (const path of this.#broken) note(path);
    for (const { severity, path } of problems)
      if (severity === "error" && path !== undefined) note(path);
    const isDamaged = (path: string) => damaged.has(path);
    const isSound = problems.every((problem) => problem.severity !== "error");
    const rest = { problems, locate, isDamaged };
    if (!draft || this.#unread) return rest;
    return isSound ? { register: draft, draft, ...rest } : { draft, ...rest };
  }

  add(problem: Omit<Problem, "severity">): void {
    this.#push({ severity: "error", ...problem });
  }

  #push(problem: Problem): void {
    const { length } = this.problems;
    if (length < problemsMax) this.problems.push(problem);
    else if (length === problemsMax)
      this.problems.push({
        code: "too-many",
        severity: "error",
        message: `more than ${problemsMax} problems: mend these first`,
      });
  }

  readonly report: Report = ({ place, path }, problem) => {
    this.add({ ...problem, ...place, ...(path === "" ? {} : { path }) });
  };

  read(file: SourceFile): Tree | undefined {
    const { tree, problems } = readYaml(file);
    for (const problem of problems) this.#push(problem);
    if (!tree) {
      this.#unread = true;
      return undefined;
    }
    this.#start ??= { file: file.name, line: 1, column: 1 };
    this.#note(tree);
    return tree;
  }

  #note(tree: Tree): void {
    if (!this.#places.has(tree.path)) this.#places.set(tree.path, tree.head);
    if (tree.kind === "broken") this.#broken.push(tree.path);
    if (tree.kind === "list") for (const item of tree.items) this.#note(item);
    if (tree.kind === "map") for (const { value } of tree.entries) this.#note(value);
  }

  readonly locate = (path: string): Place | undefined => {
    let rest = path;
    const short = /^services\.[^.]+\.ports\.[^.]+/.exec(path)?.[0];
    const instead = short === undefined ? undefined : this.#shortForms.get(short);
    if (short !== undefined && instead !== undefined) rest = instead + path.slice(short.length);
    while (rest !== "") {
      const place = this.#places.get(rest);
      if (place) return place;
      rest = parentOf(rest);
    }
    return this.#start;
  };

  merge<T>(
    what: string,
    into: Map<string, Named<T>>,
    from: ReadonlyMap<string, Named<T>> | undefined,
  ): void {
    for (const [name, named] of from ?? []) {
      const first = into.get(name);
      if (!first) into.set(name, named);
      else {
        const { file, line } = first.entry.keyPlace;
        this.add({
          code: "defined-twice",
          message: `the ${what} ${JSON.stringify(name)} is already defined in ${file}:${line}`,
          hint: "one name has one owner: rename or remove one of them",
          ...named.entry.keyPlace,
          path: named.entry.value.path,
        });
      }
    }
  }

  /** Every gate keeps certificates for each gated port: two names. */
  countGated({ services }: Register): void {
    let count = 0;
    for (const { name, ports } of Object.values(services)) {
      count += Object.values(ports).filter((port) => port.via === "gate").length;
      if (count <= gatedPortsMax) continue;
      const path = `services.${name}`;
      const message = `more than ${gatedPortsMax} ports behind gates: no gate could renew the certificates of all their names in time; take this service and those after it to an installation of their own`;
      return this.add({ code: "too-many", message, path, ...this.locate(path) });
    }
  }

  service({ entry, value }: Named<ServiceRead>): Service {
    const read = value ?? {};
    const written = entry.value.kind === "map" ? entry.value.entries : [];
    const ports = this.#ports(entry, read, written);
    const main = mainPort({ ports })?.name;
    const service = {
      name: entry.key,
      owner: read.owner ?? "",
      ...(read.why === undefined ? {} : { why: read.why }),
      hosts: [...new Set(read.hosts ?? [])],
      ports,
    };
    const ids = new Map<string, Place>();
    const rulesOf = (effect: Rule["effect"]) =>
      (read[effect] ?? []).map((rule, i) =>
        this.#rule(effect, rule, `${entry.value.path}.${effect}[${i}]`, main, ids),
      );
    const accept = new Set(read.accept ?? []);
    const { after, then } = read.staleAfter ?? {};
    return {
      ...service,
      allow: rulesOf("allow"),
      deny: rulesOf("deny"),
      audit: read.audit ?? "required",
      ...(read.grace === undefined ? {} : { graceMs: read.grace }),
      ...(after === undefined || then === undefined
        ? {}
        : { staleAfter: { afterMs: after, then } }),
      accept: {
        encodedSlash: accept.has("encoded-slash"),
        underscoreHeaders: accept.has("underscore-headers"),
        userHeaders: accept.has("user-headers"),
      },
    };
  }

  #ports(
    entry: Entry,
    read: ServiceRead,
    written: readonly Entry[],
  ): Readonly<Record<string, Port>> {
    const short = written.filter(({ key }) => shortFormKeys.includes(key));
    const long = written.find(({ key }) => key === "ports");
    if (long) {
      for (const { key, keyPlace, value } of short)
        this.add({
          code: "short-form-mixed",
          message: `${JSON.stringify(key)} beside "ports" belongs to no port`,
          hint: "move it into one of the ports",
          ...keyPlace,
          path: value.path,
        });
      return mapValues(read.ports ?? new Map<string, Named<PortRead>>(), ({ entry, value }) =>
        this.#port(entry.key, value ?? {}, entry.value, read.timeouts),
      );
    }
    if (short.length === 0) {
      const timeouts = written.find(({ key }) => key === "timeouts");
      if (timeouts)
        this.add({
          code: "unused-key",
          message: '"timeouts" has no effect on a service without ports',
          hint: "remove it, or add ports",
          ...timeouts.keyPlace,
          path: timeouts.value.path,
        });
      return {};
    }
    const name = read.protocol ?? "http";
    this.#shortForms.set(`${entry.value.path}.ports.${name}`, entry.value.path);
    const { timeouts, ...port } = read;
    return Object.fromEntries([[name, this.#port(name, port, entry.value, timeouts)]]);
  }

  #port(name: string, read: PortRead, tree: Tree, inherited: ServiceRead["timeouts"]): Port {
    const written = new Map(
      tree.kind === "map" ? tree.entries.map((entry) => [entry.key, entry]) : [],
    );
    const protocol = read.protocol ?? "http";
    const via = read.via ?? "gate";
    const complainAt = (key: string, problem: Parameters<Report>[1]) => {
      const entry = written.get(key);
      const place = entry?.value.place ?? tree.head;
      this.report({ place, path: entry?.value.path ?? tree.path }, problem);
    };
    if (via === "gate" && protocol !== "http")
      complainAt("protocol", {
        ...notYet(`protocol: ${protocol}`, "declare the port with via: direct, or remove it"),
        message: `protocol ${JSON.stringify(protocol)} through the gate is not supported yet`,
      });
    const isWhole = tree.kind === "map";
    if (via === "gate" && isWhole && !written.has("upstreams"))
      complainAt("", {
        code: "missing-key",
        message: `the port ${JSON.stringify(name)} is gated and needs "upstreams": where the gate forwards to`,
        hint: "or say via: direct, if it is not to be proxied",
      });
    if (via === "gate" && isEmptyList(written.get("upstreams")?.value))
      complainAt("upstreams", {
        code: "missing-key",
        message: "a gated port needs at least one upstream",
      });
    if (via === "direct") {
      if (isWhole && !written.has("port"))
        complainAt("", {
          code: "missing-key",
          message: `the port ${JSON.stringify(name)} is via: direct and needs "port": where it listens`,
        });
      for (const key of ["upstreams", "plaintext", "timeouts"]) {
        const entry = written.get(key);
        // On a service in the short form, `timeouts` stands at the same level and is as useless.
        if (entry)
          this.report(
            { place: entry.keyPlace, path: entry.value.path },
            {
              code: "unused-key",
              message: `${JSON.stringify(key)} has no effect on a port that is via: direct`,
              hint: "remove it, or say via: gate",
            },
          );
      }
    }
    const times = { ...inherited, ...read.timeouts };
    return {
      name,
      protocol,
      via,
      exposure: read.exposure ?? "internal",
      ...(read.port === undefined ? {} : { port: read.port }),
      upstreams: via === "gate" ? (read.upstreams ?? []) : [],
      timeouts: {
        connectMs: times.connect ?? defaultTimeouts.connectMs,
        responseHeadMs: times.responseHead ?? defaultTimeouts.responseHeadMs,
        idleMs: times.idle ?? defaultTimeouts.idleMs,
      },
      ...(read.plaintext === undefined ? {} : { plaintext: read.plaintext }),
    };
  }

  #rule(
    effect: Rule["effect"],
    rule: RuleRead | undefined,
    path: string,
    mainPort: string | undefined,
    ids: Map<string, Place>,
  ): Rule {
    const read: RuleRead = rule ?? {};
    const place = this.locate(`${path}.id`);
    if (read.id !== undefined && place) {
      const first = ids.get(read.id);
      if (first)
        this.add({
          code: "duplicate-rule",
          message: `the rule ${JSON.stringify(read.id)} is already in ${first.file}:${first.line}`,
          hint: "ids are unique in a service: hits and explanations name them",
          ...place,
          path: `${path}.id`,
        });
      else ids.set(read.id, place);
    }
    if ((read.from?.length ?? 0) > 1 && read.from?.includes("*"))
      this.add({
        code: "bad-caller",
        message: '"*" is every service already, so the other callers say nothing',
        hint: 'write from: "*", or name them all',
        ...this.locate(`${path}.from[${read.from.indexOf("*")}]`),
        path: `${path}.from`,
      });
    return {
      id: read.id ?? "",
      effect,
      from: [...new Set(read.from ?? [])],
      ports: [...new Set(read.ports ?? (mainPort === undefined ? [] : [mainPort]))],
      ...(read.methods === undefined ? {} : { methods: [...new Set(read.methods)] }),
      ...(read.paths === undefined ? {} : { paths: [...new Set(read.paths)] }),
      ...(read.limit === undefined ? {} : { limit: read.limit }),
      ...(read.expires === undefined ? {} : { expiresMs: read.expires }),
      ...(read.hours === undefined ? {} : { hours: read.hours }),
      ...(read.why === undefined ? {} : { why: read.why }),
    };
  }
}

/** `services.orders.allow` of `services.orders.allow[0]`; nothing of `services`. */
function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf("."), path.lastIndexOf("[")));
}

function isEmptyList(tree: Tree | undefined): boolean {
  return tree?.kind === "list" && tree.items.length === 0;
}

type PlanesRead = NonNullable<Read<typeof root>["planes"]>;

function planesOf(read: PlanesRead, networks: ReadonlySet<string>): Planes {
  const doorOf = (name: keyof typeof defaultPorts): Door => {
    const door = read[name];
    const text = `127.0.0.1:${defaultPorts[name]}`;
    const written = door?.bind ?? [
      { text, host: "127.0.0.1", port: defaultPorts[name], isAddress: true },
    ];
    return {
      binds: written.map((each) => bindOf(each, networks, door?.unsafeBind)),
      from: [...new Set(door?.from ?? [])],
    };
  };
  return {
    control: doorOf("control"),
    join: doorOf("join"),
    ops: doorOf("ops"),
    data: doorOf("data"),
    decoys: (read.decoys ?? []).flatMap(({ bind, unsafeBind }) =>
      bind === undefined ? [] : [bindOf(bind, networks, unsafeBind)],
    ),
  };
}

function bindOf(
  { text, host, port, isAddress }: WrittenBind,
  networks: ReadonlySet<string>,
  unsafeBind: Excuse | undefined,
): Bind {
  const kind = isAddress ? "address" : networks.has(host) ? "network" : "hostname";
  return { text, host, kind, port, ...(unsafeBind === undefined ? {} : { unsafeBind }) };
}

/** Own properties whatever the names are: `__proto__` is a key like any other here. */
function mapValues<T, U>(
  map: ReadonlyMap<string, T>,
  make: (value: T) => U,
): Readonly<Record<string, U>> {
  return Object.fromEntries([...map].map(([key, value]) => [key, make(value)]));
}
