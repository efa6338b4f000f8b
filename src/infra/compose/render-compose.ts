import { stringify } from "yaml";
import { type Cidr, classifyAddress, parseCidr } from "../../base/address.ts";
import type { Problem } from "../../base/problem.ts";
import type { Bind, Port, Register, Service } from "../../model/register.ts";
import { carve } from "./carve.ts";

export type ComposeOptions = {
  /** Paths of the register's files as the Compose file will see them, the main one first: `./sallyport.yaml`. */
  readonly files: readonly string[];
};

/**
 * A Compose file (the Compose Specification) from a register: nothing is published but ports with `exposure: public`, and
 * those on one address that whoever starts it must name. Each service shares a network with the gate and with nobody else,
 * so that no service reaches another but through the gate; control meets the gate on the join network alone; every network
 * but the one of public ports is internal. The same register gives the same bytes.
 *
 * Problems of severity `error` leave no text; a `warning` says what of the register cannot work in containers as it stands.
 */
export function renderCompose(
  register: Register,
  options: ComposeOptions,
): { readonly text?: string; readonly problems: readonly Problem[] } {
  const plan = new Plan(register);
  if (plan.problems.some((problem) => problem.severity === "error"))
    return { problems: plan.problems };
  const document = {
    name: register.trustDomain.replaceAll(".", "-"),
    services: {
      "sallyport-control": plan.control(options.files),
      "sallyport-gate": plan.gate(),
      ...plan.services(),
    },
    networks: plan.networks(),
    volumes: plan.volumes(),
    configs: Object.fromEntries(options.files.map((file, i) => [configName(i), { file }])),
    secrets: plan.secrets(),
  };
  const text = `${header}\n${stringify(document, { lineWidth: 0, aliasDuplicateObjects: false })}`;
  return { text, problems: plan.problems };
}

const header = `# Made by "sallyport render compose" from the register. Change the register and render again, not this file;
# what belongs to one machine goes into compose.override.yaml.
`;

/** Everybody may run as this user without naming one: it is nobody in every image. */
const nobody = 65_532;
const publicNetwork = "public";
const joinNetwork = "sallyport-join";
const controlNetwork = "sallyport-control";
const stateFolder = "/state/sallyport";
const identityFolder = "/identity";

/** What every container gets: nothing that it has not been shown to need. */
const confined = {
  read_only: true,
  cap_drop: ["ALL"],
  security_opt: ["no-new-privileges:true"],
  pids_limit: 512,
  restart: "unless-stopped",
  tmpfs: ["/tmp:mode=1777,size=64m"],
} as const;

class Plan {
  readonly problems: Problem[] = [];
  readonly #register: Register;
  readonly #services: readonly Service[];
  /** Compose network → the register's network that its addresses are to lie in, where it matters. */
  readonly #used = new Map<string, string | undefined>();

  constructor(register: Register) {
    this.#register = register;
    this.#services = Object.values(register.services);
    this.#look();
    this.#use();
  }

  control(files: readonly string[]): object {
    return {
      image: imageOf("sallyport"),
      command: ["control", "--state", stateFolder, "--register", `/register/${baseOf(files[0])}`],
      user: `${nobody}:${nobody}`,
      ...confined,
      networks: sorted([controlNetwork, joinNetwork, ...this.#opsNetworks()]),
      volumes: ["control-state:/state"],
      configs: files.map((file, i) => ({ source: configName(i), target: targetOf(file, i) })),
      healthcheck: this.#health(),
      stop_grace_period: "35s",
    };
  }

  gate(): object {
    const open = this.#services.flatMap((service) =>
      gatedPorts(service).filter((port) => port.exposure === "public"),
    );
    const beside = this.#services.filter((one) => this.#meetsGate(one)).map(besideOf);
    const ports = this.#register.planes.data.binds.map((bind) => published(bind.port));
    return {
      image: imageOf("sallyport"),
      command: [
        "gate",
        "--state",
        stateFolder,
        "--name",
        "gate",
        "--join-token-file",
        "/run/secrets/gate-token",
      ],
      user: `${nobody}:${nobody}`,
      ...confined,
      networks: sorted([
        joinNetwork,
        ...this.#opsNetworks(),
        ...beside,
        ...(open.length > 0 ? [publicNetwork] : []),
      ]),
      volumes: ["gate-state:/state"],
      secrets: [{ source: "gate-token", target: "/run/secrets/gate-token" }],
      ...(open.length > 0 && { ports: unique(ports) }),
      healthcheck: this.#health(),
      depends_on: { "sallyport-control": { condition: "service_healthy" } },
      stop_grace_period: "35s",
    };
  }

  /** The register's services, each with the one that keeps its identity, where it calls. */
  services(): Readonly<Record<string, object>> {
    return Object.fromEntries(
      this.#services.flatMap((service) => {
        const own: [string, object] = [service.name, this.#service(service)];
        return this.#calls(service)
          ? [own, [`${service.name}-identity`, this.#identity(service)]]
          : [own];
      }),
    );
  }

  networks(): object {
    const names = sorted([...this.#used.keys()]);
    return Object.fromEntries(names.map((name) => [name, this.#network(name)]));
  }

  volumes(): object {
    const identities = this.#services.filter((one) => this.#calls(one)).map(identityOf);
    return Object.fromEntries(
      ["control-state", "gate-state", ...identities].map((name) => [name, {}]),
    );
  }

  secrets(): object {
    const tokens = this.#services
      .filter((service) => this.#calls(service))
      .map((service) => [`${service.name}-token`, tokenFile(service.name)]);
    return Object.fromEntries([["gate-token", tokenFile("sallyport-gate")], ...tokens]);
  }

  #service(service: Service): object {
    const open = Object.values(service.ports).filter(
      (port) => port.via === "direct" && port.exposure === "public" && port.port !== undefined,
    );
    const direct = directExposures(service).map(exposedOf);
    const networks = sorted([...(this.#meetsGate(service) ? [besideOf(service)] : []), ...direct]);
    return {
      image: imageOf(service.name),
      user: userOf(service),
      ...confined,
      ...(networks.length > 0 ? { networks } : { network_mode: "none" }),
      ...(this.#calls(service) && {
        volumes: [`${identityOf(service)}:/run/sallyport:ro`],
        depends_on: { [`${service.name}-identity`]: { condition: "service_started" } },
      }),
      ...(open.length > 0 && { ports: open.map((port) => published(port.port ?? 0)) }),
    };
  }

  /** Enrols once and renews: the key never leaves the volume that only it and its service see. */
  #identity(service: Service): object {
    return {
      image: imageOf("sallyport"),
      command: [
        "enroll",
        "--renew",
        "--token-file",
        "/run/secrets/token",
        "--out",
        `${identityFolder}/${service.name}`,
      ],
      user: userOf(service),
      ...confined,
      networks: [joinNetwork],
      volumes: [`${identityOf(service)}:${identityFolder}`],
      secrets: [{ source: `${service.name}-token`, target: "/run/secrets/token" }],
      depends_on: { "sallyport-control": { condition: "service_healthy" } },
    };
  }

  #network(name: string): object {
    const subnets = this.#subnets(name);
    return {
      // Public ports need a way out of the machine; nothing else does.
      internal: name !== publicNetwork,
      ...(subnets.some((subnet) => subnet.includes(":")) && { enable_ipv6: true }),
      ...(subnets.length > 0 && { ipam: { config: subnets.map((subnet) => ({ subnet })) } }),
    };
  }

  /** A part of the register's network for each Compose network that lies in it: the gate's binds and `from` then hold as written. */
  #subnets(name: string): readonly string[] {
    const home = this.#used.get(name);
    if (home === undefined) return [];
    const sharing = sorted([...this.#used].flatMap(([one, its]) => (its === home ? [one] : [])));
    return this.#firstRanges(home).flatMap((range) => {
      const part = carve(range, sharing.length)?.[sharing.indexOf(name)];
      return part === undefined ? [] : [part];
    });
  }

  /** The first range of each family: a Compose network takes one of each. */
  #firstRanges(network: string): readonly Cidr[] {
    const ranges = (this.#register.networks[network] ?? []).flatMap(
      (text) => parseCidr(text) ?? [],
    );
    return ([4, 6] as const).flatMap((family) => ranges.find((one) => one.family === family) ?? []);
  }

  #use(): void {
    const { control, join, data } = this.#register.planes;
    this.#used.set(controlNetwork, networkOf(control.binds));
    this.#used.set(joinNetwork, networkOf(join.binds));
    for (const name of this.#opsNetworks()) this.#used.set(name, name.slice(exposedOf("").length));
    for (const service of this.#services) {
      if (this.#meetsGate(service))
        this.#used.set(besideOf(service), this.#calls(service) ? networkOf(data.binds) : undefined);
      for (const name of directExposures(service))
        this.#used.set(exposedOf(name), name === publicNetwork ? undefined : name);
      if (gatedPorts(service).some((port) => port.exposure === "public"))
        this.#used.set(publicNetwork, undefined);
    }
    for (const home of new Set(this.#used.values())) {
      const sharing = [...this.#used.values()].filter((one) => one === home).length;
      if (home !== undefined && this.#firstRanges(home).some((range) => !carve(range, sharing)))
        this.problems.push({
          code: "compose-network",
          severity: "error",
          path: `networks.${home}`,
          message: `network ${home} is too small for the ${sharing} Compose networks that must lie in it`,
          hint: "each needs 8 addresses of its own; give the network a wider range",
        });
    }
  }

  #health(): object {
    const bind = this.#register.planes.ops.binds[0];
    // The container's own name stands for whichever address the network gave it.
    const host = bind?.kind === "address" ? JSON.stringify(urlHost(bind.host)) : "os.hostname()";
    const url = `"http://"+${host}+":${bind?.port ?? 0}/live"`;
    const ask = `http.get(${url},r=>process.exit(r.statusCode===200?0:1)).on("error",()=>process.exit(1))`;
    return {
      test: ["CMD", "node", "-e", ask],
      interval: "10s",
      timeout: "3s",
      retries: 3,
      start_period: "10s",
    };
  }

  #calls(service: Service): boolean {
    return this.#services.some((other) =>
      other.allow.some((rule) => rule.from.includes(service.name) || rule.from.includes("*")),
    );
  }

  #meetsGate(service: Service): boolean {
    return gatedPorts(service).length > 0 || this.#calls(service);
  }

  /** Where metrics are asked for, when the register opens that door on a network. */
  #opsNetworks(): readonly string[] {
    const home = networkOf(this.#register.planes.ops.binds);
    return home === undefined ? [] : [exposedOf(home)];
  }

  #allBinds(): readonly Bind[] {
    const { control, join, ops, data } = this.#register.planes;
    return [...control.binds, ...join.binds, ...ops.binds, ...data.binds];
  }

  #look(): void {
    const { planes, networks } = this.#register;
    for (const [door, who] of [
      ["join", "gates and services"],
      ["data", "callers"],
    ] as const)
      for (const bind of planes[door].binds)
        if (bind.kind !== "network")
          this.#warn(
            "compose-bind",
            `planes.${door}`,
            `${bind.text} cannot be reached by ${who} in other containers`,
            `bind it to a network of the register, mesh:${bind.port}; its range is shared out among the Compose networks`,
          );
    for (const [name, ranges] of Object.entries(networks)) {
      if (!this.#allBinds().some((bind) => bind.kind === "network" && bind.host === name)) continue;
      const families = ranges.map((text) => parseCidr(text)?.family);
      if (new Set(families).size < families.length)
        this.#warn(
          "compose-network",
          `networks.${name}`,
          `network ${name} has several ranges of one family, and a Compose network takes one: the first is used`,
          "give the containers' range a name of its own",
        );
    }
    for (const service of this.#services) this.#lookAt(service);
  }

  #lookAt(service: Service): void {
    const { name } = service;
    const path = `services.${name}`;
    if (/^sallyport(-|$)/.test(name) || /-identity$/.test(name))
      this.problems.push({
        code: "compose-name",
        severity: "error",
        path,
        message: `a service called ${name} would stand where one of sallyport's own stands in the Compose file`,
        hint: "names that begin with sallyport or end in -identity are taken here; rename the service",
      });
    for (const port of Object.values(service.ports)) {
      if (port.via === "direct" && port.exposure === "public" && port.port === undefined)
        this.#warn(
          "compose-port",
          `${path}.ports.${port.name}`,
          `${name}.${port.name} is public but says no port, so none is published`,
          "add port: to it",
        );
      for (const upstream of port.via === "gate" ? port.upstreams : []) {
        if (upstream.kind === "unix")
          this.#warn(
            "compose-upstream",
            `${path}.ports.${port.name}`,
            `the gate's container does not see ${upstream.path}`,
            `share the socket's directory in compose.override.yaml, or use ${name}:PORT`,
          );
        else if (upstream.host === "localhost" || classifyAddress(upstream.host) === "loopback")
          this.#warn(
            "compose-upstream",
            `${path}.ports.${port.name}`,
            `${upstream.host}:${upstream.port} is the gate's own container, where ${name} does not run`,
            `write ${name}:${upstream.port}: the service's name is its address here`,
          );
      }
    }
  }

  #warn(code: string, path: string, message: string, hint: string): void {
    this.problems.push({ code, severity: "warning", path, message, hint });
  }
}

function gatedPorts(service: Service): readonly Port[] {
  return Object.values(service.ports).filter((port) => port.via === "gate");
}

function variableOf(name: string): string {
  return name.toUpperCase().replaceAll("-", "_");
}

function imageOf(name: string): string {
  return `\${${variableOf(name)}_IMAGE:?the image of ${name}, by digest where you can}`;
}

function userOf(service: Service): string {
  const uid = `\${${variableOf(service.name)}_UID:-${nobody}}`;
  return `${uid}:${uid}`;
}

function tokenFile(name: string): object {
  return { file: `\${${variableOf(name)}_TOKEN_FILE:?a file with the enrolment token of ${name}}` };
}

/** Long syntax, because in the short one a forgotten address means every address of the host. */
function published(port: number): object {
  return {
    target: port,
    published: String(port),
    // biome-ignore lint/suspicious/noTemplateCurlyInString: Compose fills it in
    host_ip: "${PUBLIC_ADDRESS:?the one address of this host that public ports are bound to}",
    protocol: "tcp",
    mode: "host",
  };
}

function urlHost(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}

/** The network of one service and the gate. */
function besideOf(service: Service): string {
  return `gate-${service.name}`;
}

/** The network that a direct port is open to. */
function exposedOf(network: string): string {
  return network === "public" ? publicNetwork : `exposed-${network}`;
}

function directExposures(service: Service): readonly string[] {
  return Object.values(service.ports).flatMap((port) =>
    port.via === "direct" && port.exposure !== "internal" ? [port.exposure] : [],
  );
}

function networkOf(binds: readonly Bind[]): string | undefined {
  return binds.find((bind) => bind.kind === "network")?.host;
}

function identityOf(service: Service): string {
  return `${service.name}-identity`;
}

function configName(index: number): string {
  return index === 0 ? "register" : `register-${index}`;
}

function targetOf(file: string, index: number): string {
  return index === 0 ? `/register/${baseOf(file)}` : `/register/sallyport.d/${baseOf(file)}`;
}

function baseOf(file = "sallyport.yaml"): string {
  return file.split(/[\\/]/).at(-1) ?? file;
}

function sorted(names: readonly string[]): readonly string[] {
  return [...new Set(names)].sort();
}

function unique(ports: readonly object[]): readonly object[] {
  return [...new Map(ports.map((port) => [JSON.stringify(port), port])).values()];
}
