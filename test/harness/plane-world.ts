import { generateKeyPairSync, randomBytes, X509Certificate } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import * as net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { openHitLog } from "../../src/audit/hit-log/open-hit-log.ts";
import type { Recorder } from "../../src/audit/recorder.ts";
import type { Credentials } from "../../src/base/credentials.ts";
import { silentLog } from "../../src/base/log.ts";
import { certificatesIn } from "../../src/base/secure-context.ts";
import { type Authority, openAuthority } from "../../src/identity/authority/authority.ts";
import type { Hit } from "../../src/model/hit.ts";
import { type Plane, type PrincipalKind, principalOf } from "../../src/model/principal.ts";
import { parseRegister } from "../../src/model/register/parse.ts";
import type { Register } from "../../src/model/register.ts";
import type { Revocation } from "../../src/model/snapshot.ts";
import { applyPatch, compileService } from "../../src/policy/compile.ts";
import { indexRevocations } from "../../src/policy/peer.ts";
import { SlotTable } from "../../src/policy/slots.ts";
import type { View } from "../../src/policy/view.ts";
import { DataPlane } from "../../src/proxy/data-plane.ts";
import type { Needs } from "../../src/proxy/needs.ts";

export const trustDomain = "test.internal";

/** What a test may turn by hand. */
export type PlaneOptions = {
  /** A register, YAML. */
  readonly register: string;
  readonly admits?: (address: string) => boolean;
  readonly hitsDir?: string;
  readonly clock?: () => number;
  /** Milliseconds that only go forward; by default the real ones. */
  readonly monotonic?: () => number;
  /** When control last confirmed the view; by default just now. */
  readonly confirmedMs?: () => number;
  /** Which of the addresses that could be dialled are doors of this gate, beside its data door. */
  readonly isOwnDoor?: (host: string, port: number) => boolean;
  /** Names that get a leaf of their own, chosen by SNI. */
  readonly names?: readonly string[];
  /** Starts without a view; `publish` brings the first. */
  readonly noView?: boolean;
  /** Wraps the recorder, to make it fail. */
  readonly recorder?: (real: Recorder) => Recorder;
};

/** A data plane in this process: real sockets, real TLS, real certificates, a real hit log; no control plane. */
export type PlaneWorld = {
  readonly port: number;
  /** Holds everything: `data/` and `control/` are the authorities', `hits/` is the log. */
  readonly dir: string;
  /** Where the hit log is. */
  readonly hitsDir: string;
  readonly limits: Int32Array;
  /** Has the hit log do what its owner's timer does once a second. */
  tick(): void;
  readonly plane: DataPlane;
  readonly authorities: Readonly<Record<Plane, Authority>>;
  issue(
    name: string,
    with_?: { kind?: PrincipalKind; plane?: Plane; ttlMs?: number; clock?: () => number },
  ): Promise<Credentials>;
  /** Publishes another register, as a new version. */
  publish(yaml: string): void;
  revoke(revocation: Revocation): void;
  /** Every line recorded so far, newest last; as they were added. */
  readonly hits: readonly Hit[];
  /** What was told to the program's log as an error: a bug, unless the test made it happen. */
  readonly errors: readonly string[];
  readonly view: () => View;
  close(): Promise<void>;
};

/** Starts one; `t.after(() => world.close())` ends it and removes its files. */
export async function startPlane(options: PlaneOptions): Promise<PlaneWorld> {
  const dir = mkdtempSync(join(tmpdir(), "sallyport-plane-"));
  const clock = options.clock ?? (() => Date.now());
  const open = (plane: Plane) =>
    openAuthority({ dir: join(dir, plane), plane, trustDomain, clock });
  const authorities = { control: await open("control"), data: await open("data") };

  const issue: PlaneWorld["issue"] = async (name, with_ = {}) => {
    const { kind = "service", plane = "data", ttlMs = 3_600_000 } = with_;
    const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const isGate = kind === "gate" && plane === "data";
    const leaf = await authorities[plane].signWithClock(
      {
        publicKeySpki: publicKey.export({ type: "spki", format: "der" }),
        principal: principalOf({ trustDomain, kind, name }),
        dnsNames: isGate ? [`${name}.gate.${trustDomain}`] : [],
        purpose: isGate ? "both" : "client",
        ttlMs,
      },
      with_.clock ?? clock,
    );
    return {
      keyPem: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
      chainPem: leaf.chainPem,
      bundlePem: authorities[plane].bundlePem(),
    };
  };

  const issueName = async (name: string): Promise<Credentials> => {
    const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const leaf = await authorities.data.signWithClock(
      {
        publicKeySpki: publicKey.export({ type: "spki", format: "der" }),
        principal: principalOf({ trustDomain, kind: "gate", name: "test" }),
        dnsNames: [name],
        purpose: "both",
        ttlMs: 3_600_000,
      },
      clock,
    );
    return {
      keyPem: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
      chainPem: leaf.chainPem,
      bundlePem: authorities.data.bundlePem(),
    };
  };

  const hits: Hit[] = [];
  const errors: string[] = [];
  const hitsDir = options.hitsDir ?? join(dir, "hits");
  const limits = new Int32Array(new SharedArrayBuffer(4_096 * 4));
  const real = openHitLog({
    dir: hitsDir,
    writer: { process: "gate", name: "test", boot: "test" },
    clock,
    randomBytes,
    log: silentLog,
  });
  const recorder = options.recorder?.(real) ?? real;
  const slots = new SlotTable(4_096);
  let view: View | undefined;
  let version = 0;
  const needs: Needs = {
    gate: "test",
    view: () => view,
    confirmedMs: options.confirmedMs ?? (() => clock()),
    recorder: {
      add(hit) {
        const id = recorder.add(hit);
        hits.push({ ...hit, id });
        return id;
      },
      flush: () => recorder.flush(),
      get failing() {
        return recorder.failing;
      },
    },
    clock,
    monotonic: options.monotonic ?? (() => performance.now()),
    random: Math.random,
    log: { ...silentLog, error: (fields, message) => errors.push(`${message} ${inspect(fields)}`) },
    limits,
    isOwnDoor: (host, at) => at === port || options.isOwnDoor?.(host, at) === true,
  };
  const byName = new Map<string, Credentials>();
  for (const name of options.names ?? []) byName.set(name, await issueName(name));
  const parse = (pem: string) => certificatesIn(pem).map((one) => new X509Certificate(one));
  const plane = new DataPlane(
    needs,
    { own: await issue("test", { kind: "gate" }), byName },
    {
      trustDomain,
      bundles: {
        data: parse(authorities.data.bundlePem()),
        control: parse(authorities.control.bundlePem()),
      },
    },
  );
  const publish = (yaml: string): void => {
    const register = mustParse(yaml);
    const callers = Object.keys(register.services);
    view = applyPatch(undefined, {
      epoch: 1,
      version: ++version,
      at: clock(),
      trustDomain,
      revocations: view?.revocations.all ?? [],
      changed: Object.values(register.services).map((service) =>
        compileService(service, callers, (rule, caller) => slots.slotFor(rule, caller)),
      ),
      removed: [],
    });
    plane.viewChanged(view);
  };
  if (!options.noView) publish(options.register);
  const { fd, port } = boundDescriptor("127.0.0.1");
  await plane.open({
    fd,
    allowed: { host: "127.0.0.1", port },
    door: "data",
    admits: options.admits ?? (() => true),
  });
  const beat = setInterval(() => real.tick(), 1_000);
  return {
    port,
    dir,
    hitsDir,
    limits,
    tick: () => real.tick(),
    plane,
    authorities,
    issue,
    publish,
    revoke(revocation) {
      if (view)
        view = { ...view, revocations: indexRevocations([...view.revocations.all, revocation]) };
      plane.revoke(revocation);
    },
    hits,
    errors,
    view: () => view as View,
    async close() {
      clearInterval(beat);
      await plane.close();
      real.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** Parses a register that the test means to be good; throws its problems. */
export function mustParse(yaml: string): Register {
  const { register, problems } = parseRegister([{ name: "sallyport.yaml", text: yaml }]);
  if (register === undefined)
    throw new Error(problems.map((one) => `${one.line}:${one.column} ${one.message}`).join("\n"));
  return register;
}

type Handle = { fd: number; getsockname(out: { port?: number }): number };

/** A bound descriptor that nobody listens on yet, as a supervisor would hand it out. */
export function boundDescriptor(host: string): { fd: number; port: number } {
  const make = (net as unknown as { _createServerHandle(...args: unknown[]): Handle | number })
    ._createServerHandle;
  const handle = make(host, 0, host.includes(":") ? 6 : 4, -1, 0);
  if (typeof handle === "number") throw new Error(`bind: ${handle}`);
  const out: { port?: number } = {};
  handle.getsockname(out);
  kept.push(handle); // its descriptor belongs to whoever listens: never collected, never closed here
  return { fd: handle.fd, port: out.port ?? 0 };
}
const kept: Handle[] = [];

/** A raw upstream: what it received, and a script of what it says. */
export async function rawUpstream(
  onSocket: (socket: net.Socket) => void,
): Promise<{ port: number; close(): Promise<void> }> {
  const open = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    open.add(socket);
    socket.on("close", () => open.delete(socket));
    socket.on("error", () => undefined);
    onSocket(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as net.AddressInfo).port,
    async close() {
      for (const socket of open) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}
