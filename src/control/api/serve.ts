import { X509Certificate } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server } from "node:https";
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { getRequestListener } from "@hono/node-server";
import { formatHostPort } from "../../base/address.ts";
import type { Credentials } from "../../base/credentials.ts";
import { assertBound, type Endpoint } from "../../base/guard.ts";
import type { Running } from "../../base/lifecycle.ts";
import { certificatesIn, serverContext, serverOptions } from "../../base/secure-context.ts";
import { type RefusalCode, refusals } from "../../model/refusal.ts";
import {
  chainOf,
  judgePeer,
  type PeerVerdict,
  publicKeyOf,
  type Trust,
} from "../../policy/peer.ts";
import type { Needs } from "../needs.ts";
import type { ApiBindings, ControlApp } from "./operation.ts";

/** The control door, open. */
export type ApiDoor = Running & {
  /** Where it really listens. */
  readonly address: Endpoint;
  /** Every later handshake uses these; open connections keep what they have. Throws and keeps the old ones when they do not fit. */
  swap(credentials: Credentials): void;
};

export type ApiDoorOptions = {
  readonly app: ControlApp;
  /** Already judged by the guard. Port 0 picks a free one. */
  readonly endpoint: Endpoint;
  readonly credentials: Credentials;
  readonly trustDomain: string;
  /** Roots of the data plane, PEM: only to tell its leaves from a stranger's. */
  readonly otherBundlePem: () => string;
  /** By the peer's address, before the first byte of TLS. */
  readonly admits: (ip: string) => boolean;
  readonly needs: Pick<Needs, "clock" | "log" | "record">;
  readonly limits?: Partial<ApiLimits>;
};

export type ApiLimits = {
  /** From accept to the end of the handshake. Default 5 s. */
  readonly handshakeMs: number;
  /** Default 10 s. */
  readonly headMs: number;
  /** From the first byte of a request to its last. Default 30 s. */
  readonly requestMs: number;
  /** Without a request. Default 30 s. */
  readonly idleMs: number;
  /** At once. Default 256. */
  readonly connectionsMax: number;
  /** Of one address that has not finished its handshake. Default 16. */
  readonly handshakesPerAddressMax: number;
};

const defaults: ApiLimits = {
  handshakeMs: 5_000,
  headMs: 10_000,
  requestMs: 30_000,
  idleMs: 30_000,
  connectionsMax: 256,
  handshakesPerAddressMax: 16,
};

/**
 * Opens the control door on one address: mutual TLS, leaves of the control plane only. Fails closed: who comes from elsewhere
 * is cut before a byte of TLS, who proves no operator's identity before a byte of HTTP is parsed; each is a hit. `close` lets
 * requests in flight finish.
 */
export async function openApiDoor(options: ApiDoorOptions): Promise<ApiDoor> {
  const { app, endpoint, admits, needs, trustDomain } = options;
  const limits = { ...defaults, ...options.limits };
  const peers = new WeakMap<Socket, ApiBindings["peer"]>();
  /** By which roots each was judged. */
  const judged = new WeakMap<Socket, { readonly leaf: X509Certificate; by: Trust }>();
  const arrivals = new WeakMap<Socket, Arrival>();
  const handshakes = new Map<string, number>();
  let credentials = options.credentials;
  let trust = trustOf(credentials);

  function trustOf({ bundlePem }: Credentials): Trust {
    const read = (pem: string) => certificatesIn(pem).map((one) => new X509Certificate(one));
    return {
      trustDomain,
      bundles: { control: read(bundlePem), data: read(options.otherBundlePem()) },
    };
  }

  const answer = app.fetch;
  const listener = getRequestListener(
    (request, env) => {
      const { socket } = env.incoming as IncomingMessage;
      const peer = peers.get(socket);
      // Unreachable: no request is parsed on a socket whose peer was not judged.
      if (!peer) throw new Error("a request without a peer");
      if (!isStillTrusted(socket as TLSSocket)) return new Response(null, { status: 401 });
      return answer(request, { peer, remote: remoteOf(socket), local: localOf(socket) });
    },
    { overrideGlobalObjects: false },
  );
  const server = createServer(
    {
      ...serverOptions(credentials, { handshakeTimeoutMs: limits.handshakeMs }),
      maxHeaderSize: 16 * 1024,
      headersTimeout: limits.headMs,
      requestTimeout: limits.requestMs,
      keepAliveTimeout: limits.idleMs,
      connectionsCheckingInterval: 1_000,
      insecureHTTPParser: false,
      requireHostHeader: true,
    },
    (request: IncomingMessage, response: ServerResponse) => void listener(request, response),
  );
  server.maxHeadersCount = 100;
  server.maxConnections = limits.connectionsMax;

  /** Node's own steps, taken over so that ours come before them: the address before TLS, the identity before HTTP. */
  const [startTls] = server.listeners("connection");
  const [startHttp] = server.listeners("secureConnection");
  if (!startTls || !startHttp) throw new Error("node:https is built differently than expected");
  for (const event of ["connection", "secureConnection", "tlsClientError"])
    server.removeAllListeners(event);

  server.on("connection", (socket: Socket) => {
    socket.on("error", () => {}); // a reset by the peer is no news, and must not end the process
    const ip = socket.remoteAddress ?? "";
    const inFlight = handshakes.get(ip) ?? 0;
    let isOver = false;
    const arrival: Arrival = {
      remote: remoteOf(socket),
      local: localOf(socket),
      isRefused: false,
      handshakeOver() {
        if (isOver) return;
        isOver = true;
        clearTimeout(deadline);
        const left = (handshakes.get(ip) ?? 1) - 1;
        if (left > 0) handshakes.set(ip, left);
        else handshakes.delete(ip);
      },
    };
    handshakes.set(ip, inFlight + 1);
    // `handshakeTimeout` fires an event and closes nothing.
    const deadline = setTimeout(
      () => refuse(socket, arrival, "handshake_timeout"),
      limits.handshakeMs,
    );
    socket.once("close", arrival.handshakeOver);
    arrivals.set(socket, arrival);
    if (!admits(ip)) refuse(socket, arrival, "address_not_allowed");
    else if (inFlight >= limits.handshakesPerAddressMax)
      refuse(socket, arrival, "too_many_handshakes");
    else startTls.call(server, socket);
  });

  // Node hangs up by itself when the house is full: that is a hit like any other.
  server.on("drop", (dropped) => {
    needs.record({
      at: needs.clock(),
      plane: "control",
      kind: "connection",
      decision: "refused",
      code: "too_many_connections",
      peer: formatHostPort(dropped?.remoteAddress ?? "", dropped?.remotePort ?? 0),
      local: formatHostPort(dropped?.localAddress ?? "", dropped?.localPort ?? 0),
      status: 0,
    });
  });

  server.on("tlsClientError", (cause: NodeJS.ErrnoException, socket: TLSSocket) => {
    const arrival = arrivalOf(socket);
    const isPlain =
      cause.code === "ERR_SSL_HTTP_REQUEST" || cause.code === "ERR_SSL_WRONG_VERSION_NUMBER";
    const code = isPlain ? "not_tls" : "handshake_failed";
    if (arrival) refuse(socket, arrival, code, String(cause.code ?? cause.message));
    socket.destroy();
  });

  /** A connection outlives a rotation; the root that it was judged by may be the one that was stolen. Fails closed. */
  function isStillTrusted(socket: TLSSocket): boolean {
    const known = judged.get(socket);
    if (known?.by === trust) return true;
    const arrival = arrivalOf(socket);
    if (!known || !arrival) {
      socket.destroy();
      return false;
    }
    const verdict = judge(known.leaf, undefined);
    if (verdict.ok) known.by = trust;
    else refuse(socket, arrival, verdict.code, verdict.detail);
    return verdict.ok;
  }

  function judge(leaf: X509Certificate | undefined, opensslSays: string | undefined): PeerVerdict {
    return judgePeer({
      leaf,
      chain: leaf ? chainOf(leaf) : [],
      opensslSays,
      nowMs: needs.clock(),
      trust,
      expect: { plane: "control", kinds: ["admin", "automation", "auditor"], purpose: "client" },
    });
  }

  server.on("secureConnection", (socket: TLSSocket) => {
    socket.on("error", () => {});
    const arrival = arrivalOf(socket);
    if (!arrival) return void socket.destroy();
    arrival.handshakeOver();
    const leaf = socket.getPeerX509Certificate();
    const verdict = judge(leaf, socket.authorized ? undefined : String(socket.authorizationError));
    if (!verdict.ok || !leaf) {
      if (verdict.ok) return void socket.destroy();
      refuse(socket, arrival, verdict.code, verdict.detail, verdict.claimed);
      return;
    }
    peers.set(socket, { ...verdict, publicKey: publicKeyOf(leaf) });
    judged.set(socket, { leaf, by: trust });
    startHttp.call(server, socket);
  });

  server.on("clientError", (cause: NodeJS.ErrnoException, socket: Socket) => {
    const peer = peers.get(socket);
    const arrival = arrivalOf(socket as TLSSocket);
    if (peer && arrival && cause.code !== "ECONNRESET" && socket.writable) {
      const code: RefusalCode =
        cause.code === "HPE_HEADER_OVERFLOW"
          ? "head_too_large"
          : cause.code === "ERR_HTTP_REQUEST_TIMEOUT"
            ? "head_timeout"
            : "bad_request";
      refuse(socket, arrival, code, String(cause.code));
    } else socket.destroy();
  });

  /** Node's own name for the socket under a TLS socket; it is in no document, hence the tests. */
  function arrivalOf(socket: TLSSocket): Arrival | undefined {
    const { _parent: under } = socket as unknown as { _parent?: Socket };
    return under && arrivals.get(under);
  }

  /** Takes ownership of the socket: it is recorded, once, told where it can hear, and closed. */
  function refuse(
    socket: Socket,
    arrival: Arrival,
    code: RefusalCode,
    detail?: string,
    claimed?: string,
  ): void {
    if (arrival.isRefused) return;
    arrival.isRefused = true;
    const peer = peers.get(socket);
    const { http: status } = refusals[code];
    const hit = needs.record({
      at: needs.clock(),
      plane: "control",
      kind: "connection",
      decision: "refused",
      code,
      ...(peer && { caller: `${peer.principal.kind}/${peer.principal.name}`, serial: peer.serial }),
      ...(claimed && { claimed }),
      peer: arrival.remote,
      local: arrival.local,
      status,
      ...(detail && { detail: detail.slice(0, 512) }),
    });
    const isSecure = "encrypted" in socket;
    if (status === 0 || !isSecure) socket.destroy();
    else turnAway(socket, status, code, hit);
  }

  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(endpoint.port, endpoint.host, () => {
      server.removeListener("error", reject);
      resolve();
    });
  });
  const bound = server.address();
  try {
    assertBound(bound, [endpoint]);
  } catch (cause) {
    server.close();
    throw cause;
  }
  if (bound === null || typeof bound === "string") throw new Error("not bound to an address");
  server.on("error", (cause) => needs.log.error({ err: cause }, "the control door failed"));

  let closing: Promise<void> | undefined;
  return {
    address: { host: bound.address, port: bound.port },
    swap(next) {
      server.setSecureContext(serverContext(next));
      credentials = next;
      trust = trustOf(credentials);
    },
    close() {
      closing ??= closeServer(server, limits.requestMs);
      return closing;
    },
  };
}

/** A connection before it is anybody's. Its addresses are kept, because a socket forgets them when it is destroyed. */
type Arrival = {
  readonly remote: string;
  readonly local: string;
  isRefused: boolean;
  /** Stops the clock and makes room for another handshake. Safe to call twice. */
  handshakeOver(): void;
};

/**
 * Takes ownership. Written without having read a byte, then closed in order: half-closed, what still comes thrown away, so
 * that the answer is not lost in a reset.
 */
function turnAway(
  socket: Socket,
  status: number,
  code: RefusalCode,
  hit: string | undefined,
): void {
  const error = { code, says: refusals[code].says, ...(hit !== undefined && { hit }) };
  const body = JSON.stringify({ error });
  const head = [
    `HTTP/1.1 ${status} ${status === 401 ? "Unauthorized" : "Refused"}`,
    "Content-Type: application/json",
    `Content-Length: ${Buffer.byteLength(body)}`,
    "Connection: close",
    ...(hit !== undefined ? [`Sallyport-Hit: ${hit}`] : []),
  ].join("\r\n");
  let discarded = 0;
  const deadline = setTimeout(() => socket.destroy(), 2_000);
  socket.once("close", () => clearTimeout(deadline));
  socket.on("data", (bytes: Buffer) => {
    discarded += bytes.length;
    if (discarded > 1024 * 1024) socket.destroy();
  });
  socket.on("end", () => socket.destroy());
  socket.end(`${head}\r\n\r\n${body}`);
  socket.resume();
}

async function closeServer(server: Server, withinMs: number): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  const deadline = setTimeout(() => server.closeAllConnections(), withinMs);
  await closed;
  clearTimeout(deadline);
}

function remoteOf(socket: Socket): string {
  return formatHostPort(socket.remoteAddress ?? "", socket.remotePort ?? 0);
}

function localOf(socket: Socket): string {
  return formatHostPort(socket.localAddress ?? "", socket.localPort ?? 0);
}
