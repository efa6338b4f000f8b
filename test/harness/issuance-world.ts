import { createPublicKey } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import type { TLSSocket } from "node:tls";
import { serverOptions } from "../../src/base/secure-context.ts";
import { type Authority, openAuthority } from "../../src/identity/authority/authority.ts";
import { openSnapshotKey, type SnapshotKey } from "../../src/identity/authority/snapshot-key.ts";
import { makeKey } from "../../src/identity/enroll/make-csr.ts";
import { createIssuance, type Issuance } from "../../src/identity/issue/issuance.ts";
import { IssueRefused } from "../../src/identity/issue/refused.ts";
import type { IssuanceStore } from "../../src/identity/needs.ts";
import type { IssuedRecord, TokenRecord } from "../../src/model/issued.ts";
import {
  type Plane,
  type Principal,
  type PrincipalKind,
  parsePrincipal,
  principalOf,
} from "../../src/model/principal.ts";

export const trustDomain = "shop.internal";

export type IssuanceWorld = {
  readonly dir: string;
  /** Turned by hand: `world.clock.now += …`. Begins at the real time, because OpenSSL asks the real clock. */
  readonly clock: { now: number };
  readonly authorities: Record<Plane, Authority>;
  readonly issuance: Issuance;
  readonly snapshotKey: SnapshotKey;
  readonly leaves: IssuedRecord[];
  readonly tokens: Map<string, TokenRecord>;
  readonly registered: Set<string>;
  /** Short forms or lineages → when. */
  readonly revoked: Map<string, number>;
  readonly grace: Map<string, number>;
  readonly events: string[];
  leafMs: number;
  joinAddress: string;
  principal(kind: PrincipalKind, name: string): Principal;
  /** Called after the test, before the directory is removed; the last first. */
  atEnd(end: () => unknown): void;
};

/** Real authorities and real issuing over a store in memory; everything is gone after the test. */
export async function startIssuanceWorld(t: TestContext): Promise<IssuanceWorld> {
  const dir = await mkdtemp(join(tmpdir(), "sallyport-issuance-"));
  const endings: (() => unknown)[] = [];
  t.after(async () => {
    // The runner calls what was registered first, first: what still writes has to end before its directory goes.
    for (const end of endings.reverse()) await end();
    await rm(dir, { recursive: true, force: true });
  });
  const clock = { now: Date.now() };
  const open = (plane: Plane) =>
    openAuthority({ dir: join(dir, plane), plane, trustDomain, clock: () => clock.now });
  const world: Omit<IssuanceWorld, "issuance"> = {
    dir,
    clock,
    authorities: { control: await open("control"), data: await open("data") },
    snapshotKey: await openSnapshotKey(join(dir, "snapshot-key.pem")),
    leaves: [],
    tokens: new Map(),
    registered: new Set(["service/web", "service/orders", "gate/g1", "admin/first"]),
    revoked: new Map(),
    grace: new Map(),
    events: [],
    leafMs: 3_600_000,
    joinAddress: "127.0.0.1:7442",
    principal: (kind, name) => principalOf({ trustDomain, kind, name }),
    atEnd: (end) => void endings.push(end),
  };
  const issuance = createIssuance({
    store: storeIn(world),
    authorities: world.authorities,
    trustDomain,
    clock: () => clock.now,
    leafMs: () => world.leafMs,
    snapshotKeyPem: world.snapshotKey.publicKeyPem,
    joinAddress: () => world.joinAddress,
    mayServe: (gate, name) => gate === "g1" && /^(?:orders|metrics\.orders|s\d+)$/.test(name),
    onIssued: (leaf) => void world.events.push(`issued ${leaf.via}`),
    onTokenReuse: async (_token, issued) => {
      world.events.push(`token reuse ${issued.length}`);
      for (const leaf of issued) world.revoked.set(leaf.lineage, clock.now);
    },
    onLineageFork: async () => void world.events.push("fork"),
  });
  return Object.assign(world, { issuance });
}

export type TestDoor = {
  readonly address: string;
  /** What arrived: `POST /join/v1/enrol`. */
  readonly requests: string[];
  /** The next answers are thrown away with their connections, after the work was done. */
  loseAnswers: number;
  /** What it tells a service of the others; by default the call fails. */
  discovery?: unknown;
};

/** A join door for tests: real TLS, real issuing, nothing else. `serveAs` presents other credentials. */
export async function startTestDoor(
  world: IssuanceWorld,
  serveAs?: { readonly keyPem: string; readonly chainPem: string },
): Promise<TestDoor> {
  const own = serveAs ?? (await controlLeaf(world));
  const bundlePem = world.authorities.control.bundlePem() + world.authorities.data.bundlePem();
  const door: TestDoor & { address: string } = { requests: [], loseAnswers: 0, address: "" };
  const server = createServer(
    serverOptions({ keyPem: own.keyPem, chainPem: own.chainPem, bundlePem }),
    async (request, answer) => {
      door.requests.push(`${request.method} ${request.url}`);
      const pieces: Buffer[] = [];
      for await (const piece of request) pieces.push(piece as Buffer);
      const socket = request.socket as TLSSocket;
      if (request.url === "/join/v1/discover" && door.discovery !== undefined) {
        answer.writeHead(200, { "content-type": "application/json" });
        return void answer.end(JSON.stringify(door.discovery));
      }
      try {
        const body = JSON.parse(Buffer.concat(pieces).toString()) as Record<string, never>;
        const peerAddress = socket.remoteAddress ?? "";
        const leaf = socket.getPeerX509Certificate();
        const says =
          request.url === "/join/v1/enrol"
            ? await world.issuance.enrol({ ...body, token: body.token ?? "", peerAddress })
            : await world.issuance.renew({
                ...body,
                leaf: leaf as NonNullable<typeof leaf>,
                plane: planeOf(leaf?.subjectAltName ?? "", leaf?.issuer ?? ""),
                peerAddress,
              });
        if (door.loseAnswers > 0) {
          door.loseAnswers -= 1;
          return void socket.destroy();
        }
        answer.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(says));
      } catch (cause) {
        const refused = cause instanceof IssueRefused;
        const { code, message } = refused ? cause : { code: "fault", message: String(cause) };
        answer.writeHead(refused ? cause.status : 500, { "content-type": "application/json" });
        answer.end(JSON.stringify({ error: { code, message } }));
      }
    },
  );
  server.on("tlsClientError", (_cause, socket) => socket.destroy());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  world.atEnd(() => {
    server.closeAllConnections();
    server.close();
  });
  door.address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  world.joinAddress = door.address;
  return door;
}

/** Control's own leaf, as `issueDirect` makes it: its chain shows the root. */
export async function controlLeaf(
  world: IssuanceWorld,
): Promise<{ keyPem: string; chainPem: string }> {
  const keyPem = await makeKey();
  const { chain } = await world.issuance.issueDirect({
    principal: world.principal("control", "main"),
    plane: "control",
    publicKeySpki: spkiOf(keyPem),
  });
  return { keyPem, chainPem: chain };
}

/** SPKI, DER, of a private key. */
export function spkiOf(keyPem: string): Uint8Array {
  return createPublicKey(keyPem).export({ format: "der", type: "spki" });
}

/** As a careless door might: the issuer's name alone. Issuing has to notice by itself. */
function planeOf(_names: string, issuer: string): Plane {
  return issuer.includes("sallyport control") ? "control" : "data";
}

function storeIn(world: Omit<IssuanceWorld, "issuance">): IssuanceStore {
  const shortOf = (principal: Principal) => {
    const parts = parsePrincipal(principal);
    return `${parts?.kind}/${parts?.name}`;
  };
  return {
    saveToken: async (token) => void world.tokens.set(token.hash, token),
    findToken: async (hash) => world.tokens.get(hash),
    spendToken: async (hash, publicKey, at) => {
      const token = world.tokens.get(hash);
      if (!token) throw new Error("no such token");
      const spent = token.spentBy ? token : { ...token, spentBy: publicKey, spentMs: at };
      world.tokens.set(hash, spent);
      return spent;
    },
    saveIssued: async (leaf) => void world.leaves.push(leaf),
    findIssued: async (plane, serial) =>
      world.leaves.find((leaf) => leaf.plane === plane && leaf.serial === serial),
    issuedByToken: async (hash) => world.leaves.filter((leaf) => leaf.token === hash),
    successorOf: async (plane, serial) =>
      world.leaves.find((leaf) => leaf.plane === plane && leaf.predecessor === serial),
    isRegistered: async (principal) => world.registered.has(shortOf(principal)),
    isRevoked: async (leaf) => {
      const at = world.revoked.get(shortOf(leaf.principal));
      return (at !== undefined && leaf.at <= at) || world.revoked.has(leaf.lineage);
    },
    graceMs: async (principal) => world.grace.get(shortOf(principal)) ?? 0,
  };
}
