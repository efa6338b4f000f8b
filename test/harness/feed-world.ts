import assert from "node:assert/strict";
import { createHash, generateKeyPairSync, X509Certificate } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import type { Credentials } from "../../src/base/credentials.ts";
import { silentLog } from "../../src/base/log.ts";
import { certificatesIn } from "../../src/base/secure-context.ts";
import type { Issuance, JoinNeeds } from "../../src/control/join/needs.ts";
import {
  type JoinDoor,
  type JoinDoorOptions,
  startJoinDoor,
} from "../../src/control/join/start-join-door.ts";
import type { PublishNeeds, SubscribeNeeds } from "../../src/feed/needs.ts";
import { createPublisher } from "../../src/feed/publish/create-publisher.ts";
import type { Publisher, PublisherTimings } from "../../src/feed/publish/publisher.ts";
import { startSubscription } from "../../src/feed/subscribe/start-subscription.ts";
import type {
  Subscription,
  SubscriptionOptions,
  SubscriptionTimings,
} from "../../src/feed/subscribe/subscription.ts";
import { openAuthority } from "../../src/identity/authority/authority.ts";
import type { Purpose } from "../../src/identity/authority/certificates.ts";
import { openSnapshotKey, type SnapshotKey } from "../../src/identity/authority/snapshot-key.ts";
import type { Hit } from "../../src/model/hit.ts";
import { type Plane, type PrincipalKind, principalOf } from "../../src/model/principal.ts";
import type { Register } from "../../src/model/register.ts";
import type { Revocation, SignedSnapshot, Snapshot } from "../../src/model/snapshot.ts";
import type { Trust } from "../../src/policy/peer.ts";

export const trustDomain = "shop.internal";

/** Two authorities and a snapshot key on disk, and join doors with publishers, and gates, made of the real parts. All is gone after the test. */
export async function startFeedWorld(t: TestContext): Promise<FeedWorld> {
  const dir = await mkdtemp(join(tmpdir(), "sallyport-feed-"));
  const closers: (() => Promise<void>)[] = [];
  t.after(async () => {
    for (const close of closers.reverse()) await close();
    await rm(dir, { recursive: true, force: true });
  });
  const clock = () => Date.now();
  const [control, data] = await Promise.all(
    (["control", "data"] as const).map((plane) =>
      openAuthority({ dir: join(dir, plane), plane, trustDomain, clock }),
    ),
  );
  assert.ok(control && data);
  const authorities = { control, data };
  const rootsOf = (plane: Plane): X509Certificate[] =>
    certificatesIn(authorities[plane].bundlePem()).map((pem) => new X509Certificate(pem));
  const trust: Trust = {
    trustDomain,
    bundles: { control: rootsOf("control"), data: rootsOf("data") },
  };
  const snapshotKey = await openSnapshotKey(join(dir, "snapshot-key.pem"));

  const leaf: FeedWorld["leaf"] = async (plane, kind, name, options = {}) => {
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const purpose: Purpose =
      kind === "control" ? "server" : kind === "gate" && plane === "data" ? "both" : "client";
    const signed = await authorities[plane].signWithClock(
      {
        publicKeySpki: publicKey.export({ format: "der", type: "spki" }),
        principal: principalOf({ trustDomain, kind, name }),
        dnsNames: kind === "control" ? ["localhost"] : [],
        purpose,
        ttlMs: options.ttlMs ?? 3_600_000,
      },
      options.clock ?? clock,
    );
    return {
      keyPem: privateKey.export({ format: "pem", type: "pkcs8" }).toString(),
      chainPem: signed.chainPem,
      bundlePem: control.bundlePem(),
    };
  };
  const own = await leaf("control", "control", "main");

  const world: FeedWorld = {
    dir,
    clock,
    trust,
    snapshotKey,
    rootPem: control.rootPem(),
    own,
    leaf,
    sign: (version, fields = {}) => {
      const register = fields.register ?? registerOf();
      const digest = createHash("sha256").update(JSON.stringify(register)).digest("hex");
      const snapshot: Snapshot = {
        epoch: 1,
        version,
        author: "admin/first",
        at: clock(),
        digest,
        revocations: [],
        ...fields,
        register,
      };
      return snapshotKey.signSnapshot(JSON.stringify(snapshot));
    },
    async startDoor(options = {}) {
      const hits: Hit[] = [];
      const door = await startJoinDoor({
        binds: [{ host: "127.0.0.1", port: options.port ?? 0, admits: () => true }],
        credentials: () => own,
        trust: () => trust,
        issuance: options.issuance ?? refuseAll,
        standing: async () => undefined,
        discover: () => ({ gates: [], services: [] }),
        onFeed: (socket) => socket.destroy(),
        record(hit) {
          const id = `c-${hits.length + 1}`;
          hits.push({ ...hit, id });
          return id;
        },
        clock,
        log: silentLog,
        ...options.with,
      });
      closers.push(() => door.close());
      const { host, port } = door.addresses[0] ?? { host: "", port: 0 };
      return { door, hits, port, address: `${host}:${port}` };
    },
    async startControl(options = {}) {
      const heads: [string, unknown][] = [];
      const warnings: [string, unknown][] = [];
      const state = { latest: options.latest, enrolled: options.enrolled ?? ["front"] };
      const publisher = createPublisher({
        clock,
        log: silentLog,
        latest: () => state.latest,
        enrolled: () => state.enrolled,
        keys: () => [],
        heads: () => [],
        onHeads: (gate, list) => heads.push([gate, list]),
        onWarning: (gate, warning) => warnings.push([gate, warning]),
        ...options.with,
        timings: options.timings ?? {},
      });
      const opened = await world.startDoor({
        ...(options.port !== undefined && { port: options.port }),
        with: { onFeed: (socket, gate) => publisher.attach(socket, gate), ...options.door },
      });
      const close = async (): Promise<void> => {
        await publisher.close();
        await opened.door.close();
      };
      closers.push(close);
      return {
        ...opened,
        publisher,
        heads,
        warnings,
        publish(signed) {
          state.latest = signed;
          publisher.publish(signed);
        },
        state,
        close,
      };
    },
    async startGate(address, options = {}) {
      const name = options.name ?? "front";
      const credentials = options.credentials ?? (await leaf("control", "gate", name));
      const served: Snapshot[] = [];
      const revoked: Revocation[] = [];
      const controlHeads: unknown[] = [];
      const subscription = await startSubscription({
        join: [address],
        gate: name,
        version: "0.1.0",
        credentials: () => credentials,
        dir: join(dir, "gates", name),
        pinnedKey: snapshotKey.publicKeyPem,
        clock,
        random: () => 0,
        log: silentLog,
        onSnapshot(snapshot) {
          served.push(snapshot);
          return undefined;
        },
        onRevocation(revocation, done) {
          revoked.push(revocation);
          done();
        },
        onQuery: async function* () {},
        onVerify: async () => ({ ok: true, chains: [], problems: [] }),
        onControlHeads: (list) => controlHeads.push(list),
        heads: () => [],
        status: () => ({ requests: 1 }),
        serving: () => ({ addresses: ["127.0.0.1:7443"], servedNames: ["orders"] }),
        ...options.with,
        timings: { backoffMinMs: 20, backoffMaxMs: 200, tickMs: 50, ...options.timings },
      });
      closers.push(() => subscription.close());
      return { subscription, served, revoked, controlHeads, dir: join(dir, "gates", name) };
    },
  };
  return world;
}

export type FeedWorld = {
  readonly dir: string;
  readonly clock: () => number;
  readonly trust: Trust;
  readonly snapshotKey: SnapshotKey;
  /** The control plane's root. */
  readonly rootPem: string;
  /** Control's own credentials. */
  readonly own: Credentials;
  leaf(
    plane: Plane,
    kind: PrincipalKind,
    name: string,
    options?: { readonly ttlMs?: number; readonly clock?: () => number },
  ): Promise<Credentials>;
  sign(version: number, fields?: Partial<Snapshot>): SignedSnapshot;
  startDoor(options?: DoorChoices): Promise<OpenDoor>;
  startControl(options?: {
    readonly port?: number;
    readonly latest?: SignedSnapshot;
    readonly enrolled?: readonly string[];
    readonly timings?: Partial<PublisherTimings>;
    readonly door?: Partial<JoinDoorOptions>;
    readonly with?: Partial<PublishNeeds>;
  }): Promise<
    OpenDoor & {
      readonly publisher: Publisher;
      readonly heads: [string, unknown][];
      readonly warnings: [string, unknown][];
      readonly state: { latest: SignedSnapshot | undefined; enrolled: readonly string[] };
      publish(signed: SignedSnapshot): void;
      close(): Promise<void>;
    }
  >;
  startGate(
    address: string,
    options?: {
      readonly name?: string;
      readonly credentials?: Credentials;
      readonly with?: Partial<SubscribeNeeds> & Partial<SubscriptionOptions>;
      readonly timings?: Partial<SubscriptionTimings>;
    },
  ): Promise<{
    readonly subscription: Subscription;
    readonly served: Snapshot[];
    readonly revoked: Revocation[];
    readonly controlHeads: unknown[];
    readonly dir: string;
  }>;
};

type DoorChoices = {
  readonly port?: number;
  readonly issuance?: Issuance;
  readonly with?: Partial<JoinNeeds> & Partial<JoinDoorOptions>;
};

export type OpenDoor = {
  readonly door: JoinDoor;
  readonly hits: Hit[];
  readonly port: number;
  /** `127.0.0.1:port`. */
  readonly address: string;
};

const refuseAll: Issuance = {
  enrol: () =>
    Promise.reject(Object.assign(new Error("no"), { code: "token_unknown", status: 403 })),
  renew: () =>
    Promise.reject(Object.assign(new Error("no"), { code: "unknown_leaf", status: 403 })),
};

/** Resolves once the claim holds; fails the test when it does not within `ms`. */
export async function until(claim: () => unknown, what: string, ms = 5_000): Promise<void> {
  const end = Date.now() + ms;
  while (!claim()) {
    if (Date.now() > end) assert.fail(`waited ${ms} ms in vain: ${what}`);
    await turn();
  }
}

/** A small register: `web` may read `orders`. */
export function registerOf(extra: Partial<Register> = {}): Register {
  const door = { binds: [], from: [] };
  const service = {
    owner: "shop",
    hosts: [],
    ports: {},
    allow: [],
    deny: [],
    audit: "required",
    accept: { encodedSlash: false, underscoreHeaders: false, userHeaders: false },
  } as const;
  return {
    version: 1,
    trustDomain,
    networks: {},
    planes: { control: door, join: door, ops: door, data: door, decoys: [] },
    lifetimes: {},
    services: {
      web: { ...service, name: "web" },
      orders: {
        ...service,
        name: "orders",
        ports: {
          http: {
            name: "http",
            protocol: "http",
            via: "gate",
            exposure: "internal",
            upstreams: [{ kind: "tcp", host: "127.0.0.1", port: 9001 }],
            timeouts: { connectMs: 1_000, responseHeadMs: 15_000, idleMs: 60_000 },
          },
        },
        allow: [{ id: "web-reads", effect: "allow", from: ["web"], ports: ["http"] }],
      },
    },
    ...extra,
  };
}
