import { X509Certificate } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { formatHostPort } from "../../base/address.ts";
import type { Clock } from "../../base/clock.ts";
import type { Credentials } from "../../base/credentials.ts";
import { assertBound } from "../../base/guard.ts";
import type { Running } from "../../base/lifecycle.ts";
import type { Log } from "../../base/log.ts";
import { certificatesIn, serverContext, serverOptions } from "../../base/secure-context.ts";
import type { Hit } from "../../model/hit.ts";
import type { Trust } from "../../policy/peer.ts";
import { type Answer, admitFeed, type Call, discoverFor, enrol, no, renew } from "./answer-call.ts";
import { createFailureBudget, sourceOf } from "./failure-budget.ts";
import type { JoinNeeds } from "./needs.ts";

/**
 * Opens the join door: exactly four calls, and no path to anything else. Fails closed. Certificates of either plane are taken in
 * and judged by us; nothing accepted here can change the register. Every call, and every connection that never became one, is a hit
 * before its answer leaves. Resolves once every address is bound; rejects, with all of them closed, when one cannot be.
 */
export async function startJoinDoor(options: JoinDoorOptions): Promise<JoinDoor> {
  const { clock, log } = options;
  const limits: JoinLimits = { ...defaults, ...options.limits };
  const world = { ...options, failures: createFailureBudget(clock) };
  const arrivals = new Map<string, Arrival>();
  const perSource = new Map<string, Source>();
  const servers: Server[] = [];
  let isClosing = false;

  const record = (
    hit: Partial<Omit<Hit, "id">> & Pick<Hit, "decision">,
    arrival: Where,
  ): string | undefined =>
    options.record({
      at: arrival.atMs,
      plane: "join",
      kind: "connection",
      peer: arrival.peer,
      local: arrival.local,
      tookMs: Math.max(0, clock() - arrival.atMs),
      ...hit,
    });

  /** Before the first byte of TLS. Counts the connection and starts its deadline, or records why not. */
  const admit = (socket: Socket, bind: JoinBind): boolean => {
    const address = plainAddress(socket.remoteAddress);
    const peer = formatHostPort(address, socket.remotePort ?? 0);
    const local = formatHostPort(plainAddress(socket.localAddress), socket.localPort ?? 0);
    const name = sourceOf(address);
    const source = perSource.get(name) ?? { open: 0, shaking: 0 };
    const where: Where = { atMs: clock(), peer, local };
    let code: string | undefined;
    if (address === "" || isClosing) code = "draining";
    else if (!bind.admits(address)) code = "address_not_allowed";
    else if (source.open >= limits.connectionsPerSource || arrivals.size >= limits.connections)
      code = "too_many_connections";
    else if (source.shaking >= limits.handshakesPerSource) code = "too_many_handshakes";
    if (code) {
      record({ decision: "refused", code }, where);
      socket.destroy();
      return false;
    }
    source.open += 1;
    source.shaking += 1;
    perSource.set(name, source);
    // One deadline from accept to the end of the handshake: Node's own starts anew with every byte.
    const deadline = setTimeout(() => {
      arrival.failure = { code: "handshake_timeout" };
      socket.destroy();
    }, limits.handshakeMs);
    const arrival: Arrival = { ...where, address, socket, source, deadline, isSecure: false };
    const key = keyOf(socket);
    arrivals.set(key, arrival);
    socket.on("error", () => socket.destroy());
    socket.once("close", () => {
      clearTimeout(deadline);
      arrivals.delete(key);
      source.open -= 1;
      if (!arrival.isSecure) {
        source.shaking -= 1;
        const failure = arrival.failure ?? {
          code: "handshake_failed",
          detail: "closed by the peer",
        };
        record({ decision: "refused", ...failure }, where);
      }
      if (source.open === 0) perSource.delete(name);
    });
    return true;
  };
  const arrivalOf = (socket: Ends): Arrival | undefined => arrivals.get(keyOf(socket));

  const onSecure = (socket: TLSSocket): void => {
    const arrival = arrivalOf(socket);
    if (!arrival) {
      // Its raw socket is gone already.
      socket.destroy();
      return;
    }
    clearTimeout(arrival.deadline);
    arrival.isSecure = true;
    arrival.source.shaking -= 1;
  };
  const onTlsError = (cause: Error, socket: TLSSocket): void => {
    const arrival = arrivalOf(socket);
    if (arrival && !arrival.isSecure) {
      const detail = String((cause as NodeJS.ErrnoException).code ?? cause.message).slice(0, 512);
      const isPlain =
        detail === "ERR_SSL_HTTP_REQUEST" || detail === "ERR_SSL_WRONG_VERSION_NUMBER";
      arrival.failure ??= { code: isPlain ? "not_tls" : "handshake_failed", detail };
    }
    // The event closes nothing by itself: without this the socket would stay open for ever.
    socket.destroy();
    arrival?.socket.destroy();
  };

  /** The last step of every call: recorded, then sent. Fails closed: what cannot be recorded is not answered. */
  const settle = (
    answer: Answer,
    request: IncomingMessage,
    arrival: Arrival,
    atMs: number,
  ): Answer => {
    const id = record(
      {
        at: atMs,
        kind: "action",
        tookMs: Math.max(0, clock() - atMs),
        method: request.method ?? "",
        path: pathOf(request),
        status: answer.status,
        ...answer.hit,
      },
      arrival,
    );
    if (id === undefined)
      return no(503, "audit_unavailable", "the call cannot be recorded, so it is not answered");
    const body = answer.status < 400 ? answer.body : { ...answer.body, hit: id };
    return { ...answer, body, headers: { ...answer.headers, "sallyport-hit": id } };
  };

  const onRequest = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const atMs = clock();
    const socket = request.socket as TLSSocket;
    const arrival = arrivalOf(socket);
    if (!arrival) {
      socket.destroy();
      return;
    }
    arrival.isBusy = true;
    const answer = settle(await answerTo(request, arrival), request, arrival, atMs);
    if (response.destroyed) return;
    const text = `${JSON.stringify(answer.body)}\n`;
    response.writeHead(answer.status, {
      ...headersOf(answer),
      "content-length": Buffer.byteLength(text),
    });
    response.end(text);
    // What is left of a body that nobody wants is read and thrown away, within the same limits as any body.
    if (!request.complete) {
      let spareBytes = limits.bodyBytes * 16;
      request.on("data", (chunk: Buffer) => {
        spareBytes -= chunk.length;
        if (spareBytes < 0) socket.destroy();
      });
      request.resume();
    }
  };

  const answerTo = async (request: IncomingMessage, arrival: Arrival): Promise<Answer> => {
    const path = pathOf(request);
    const known = Object.hasOwn(calls, path) ? calls[path as keyof typeof calls] : undefined;
    if (!known || request.url !== path)
      return no(404, "not_found", "the join door has no such call");
    if (request.method !== known.method)
      return {
        ...no(405, "method_not_allowed", `this call takes ${known.method}`),
        headers: { allow: known.method },
      };
    if (known.answer === undefined)
      return {
        ...no(426, "upgrade_required", "this call upgrades to sallyport-feed/1", {
          action: "feed",
        }),
        headers: { upgrade: feedProtocol, connection: "close, Upgrade" },
      };
    const call: Call = { socket: request.socket as TLSSocket, address: arrival.address };
    let body: unknown;
    if (known.method === "POST") {
      const read = await readJson(request, limits.bodyBytes);
      if ("refusal" in read) return read.refusal;
      body = read.value;
    }
    return within(limits.answerMs, known.answer({ ...call, body }, world));
  };

  const onUpgrade = async (
    request: IncomingMessage,
    socket: TLSSocket,
    head: Buffer,
  ): Promise<void> => {
    const atMs = clock();
    // Node has let go of the socket: nobody else would hear it break.
    socket.on("error", () => socket.destroy());
    const arrival = arrivalOf(socket);
    if (!arrival) {
      socket.destroy();
      return;
    }
    arrival.isBusy = true;
    const isFeed =
      request.method === "GET" &&
      request.url === "/join/v1/feed" &&
      request.headers.upgrade?.toLowerCase() === feedProtocol;
    const call: Call = { socket, address: arrival.address };
    const { answer, gate } = isFeed
      ? await admitFeed(call, world)
      : {
          answer: no(
            400,
            "upgrade_not_supported",
            "only the feed is upgraded, to sallyport-feed/1",
          ),
          gate: undefined,
        };
    const settled = settle(answer, request, arrival, atMs);
    if (socket.destroyed) return;
    if (!gate || settled.status !== 101) {
      endWith(socket, settled);
      return;
    }
    const id = settled.headers?.["sallyport-hit"] ?? "";
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${feedProtocol}\r\nSallyport-Hit: ${id}\r\n\r\n`,
    );
    socket.setTimeout(0);
    if (head.length > 0) socket.unshift(head);
    arrival.isBusy = false;
    options.onFeed(socket, {
      name: gate.principal.name,
      serial: gate.serial,
      notAfterMs: gate.notAfterMs,
      address: arrival.peer,
    });
  };

  /** Bytes that are no request, or one that took too long. */
  const onClientError = (cause: NodeJS.ErrnoException, socket: Socket): void => {
    const arrival = arrivalOf(socket);
    // Node says failed handshakes here a second time.
    if (!arrival?.isSecure) {
      socket.destroy();
      return;
    }
    const code = cause.code ?? "";
    const [status, name, message] =
      code === "ERR_HTTP_REQUEST_TIMEOUT"
        ? ([408, "head_timeout", "the request took too long"] as const)
        : code === "HPE_HEADER_OVERFLOW"
          ? ([431, "head_too_large", "the request head is too large"] as const)
          : ([400, "bad_request", "the request is malformed"] as const);
    if (code !== "ECONNRESET" && code !== "EPIPE")
      record({ kind: "request", decision: "refused", code: name, status, detail: code }, arrival);
    if (socket.writable && code !== "ECONNRESET") endWith(socket, no(status, name, message));
    else socket.destroy();
  };

  const open = async (bind: JoinBind): Promise<{ host: string; port: number }> => {
    const server = createServer({
      ...serverOptions(presented(options), { handshakeTimeoutMs: limits.handshakeMs }),
      maxHeaderSize: 16_384,
      headersTimeout: limits.requestMs,
      requestTimeout: limits.requestMs,
      connectionsCheckingInterval: 1_000,
      keepAliveTimeout: 5_000,
      insecureHTTPParser: false,
      requireHostHeader: true,
    });
    server.maxHeadersCount = 100;
    // Ours comes first: a peer that may not come in is not even answered with a ServerHello.
    const startTls = server.listeners("connection") as ((socket: Socket) => void)[];
    server.removeAllListeners("connection");
    server.on("connection", (socket: Socket) => {
      if (admit(socket, bind)) for (const start of startTls) start.call(server, socket);
    });
    server.prependListener("secureConnection", onSecure);
    server.on("tlsClientError", onTlsError);
    server.on("clientError", onClientError);
    server.on("request", (request, response) => {
      onRequest(request, response).catch((cause) => {
        log.error({ cause: String(cause) }, "a join call could not be answered");
        request.socket.destroy();
      });
    });
    server.on("upgrade", (request, socket, head) => {
      onUpgrade(request, socket as TLSSocket, head).catch((cause) => {
        log.error({ cause: String(cause) }, "a feed could not be opened");
        socket.destroy();
      });
    });
    server.on("connect", (request: IncomingMessage, socket) => {
      const arrival = arrivalOf(socket as TLSSocket);
      const answer = no(405, "method_not_allowed", "the join door is no proxy");
      if (arrival) endWith(socket as TLSSocket, settle(answer, request, arrival, clock()));
      else socket.destroy();
    });
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ host: bind.host, port: bind.port }, () => {
        server.off("error", reject);
        server.on("error", (cause) =>
          log.error({ cause: cause.message }, "the join door faltered"),
        );
        resolve();
      });
    });
    servers.push(server);
    assertBound(server.address(), [bind]);
    const { address, port } = server.address() as AddressInfo;
    return { host: address, port };
  };

  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => {
    closing ??= (async () => {
      isClosing = true;
      const ended = servers.map(
        (server) => new Promise<void>((resolve) => server.close(() => resolve())),
      );
      // Calls under way are answered; feeds are closed by whoever was given them, and at the latest here.
      const patience = setTimeout(() => {
        for (const arrival of arrivals.values()) arrival.socket.destroy();
      }, limits.closeMs);
      for (const arrival of arrivals.values()) if (!arrival.isBusy) arrival.socket.destroy();
      await Promise.all(ended);
      clearTimeout(patience);
    })();
    return closing;
  };

  try {
    const addresses = [];
    for (const bind of options.binds) addresses.push(await open(bind));
    return {
      addresses,
      swap() {
        const context = serverContext(presented(options));
        for (const server of servers) server.setSecureContext(context);
      },
      close,
    };
  } catch (cause) {
    await close();
    throw cause;
  }
}

const feedProtocol = "sallyport-feed/1";

const calls = {
  "/join/v1/enrol": { method: "POST", answer: enrol },
  "/join/v1/renew": { method: "POST", answer: renew },
  "/join/v1/discover": { method: "GET", answer: discoverFor },
  "/join/v1/feed": { method: "GET", answer: undefined },
} as const;

export type JoinDoorOptions = JoinNeeds & {
  /** IP literals, each already judged by `base/guard`; port 0 picks a free one. */
  readonly binds: readonly JoinBind[];
  /** Control's own leaf, and the roots of the control plane as its bundle. */
  readonly credentials: () => Credentials;
  /** The roots of both planes. Return the same object until something changes: proofs are remembered by it. */
  readonly trust: () => Trust;
  readonly clock: Clock;
  readonly log: Log;
  /** Overrides for tests. */
  readonly limits?: Partial<JoinLimits>;
};

export type JoinBind = {
  readonly host: string;
  readonly port: number;
  /** Whether a peer's IP address may use this door (`admitsFrom` of `base/guard`). */
  readonly admits: (ip: string) => boolean;
};

export type JoinDoor = Running & {
  /** What was bound, in the order of `binds`. */
  readonly addresses: readonly { readonly host: string; readonly port: number }[];
  /** Takes `credentials()` and `trust()` into use for every later handshake. */
  swap(): void;
};

export type JoinLimits = {
  /** From accept to the end of the handshake. Default 5 s. */
  readonly handshakeMs: number;
  /** Head and body of a request together. Default 10 s. */
  readonly requestMs: number;
  /** What an answer may take. Default 10 s. */
  readonly answerMs: number;
  /** Default 64 KiB. */
  readonly bodyBytes: number;
  /** Connections at a time, of one IPv4 address or IPv6 /64: default 128, and in all: default 4,096. */
  readonly connectionsPerSource: number;
  readonly connections: number;
  /** Handshakes in flight from one source. Default 32. */
  readonly handshakesPerSource: number;
  /** How long `close` waits for calls under way. Default 2 s. */
  readonly closeMs: number;
};

const defaults: JoinLimits = {
  handshakeMs: 5_000,
  requestMs: 10_000,
  answerMs: 10_000,
  bodyBytes: 65_536,
  connectionsPerSource: 128,
  connections: 4_096,
  handshakesPerSource: 32,
  closeMs: 2_000,
};

/** A raw socket, or the TLS socket around it: both know the same two ends. */
type Ends = Pick<Socket, "remoteAddress" | "remotePort" | "localAddress" | "localPort">;

function keyOf(socket: Ends): string {
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}

type Where = { readonly atMs: number; readonly peer: string; readonly local: string };

type Arrival = Where & {
  readonly address: string;
  readonly socket: Socket;
  readonly source: Source;
  readonly deadline: NodeJS.Timeout;
  isSecure: boolean;
  /** A call is being answered on it. */
  isBusy?: boolean;
  /** Why the handshake came to nothing, where that is known before the socket closes. */
  failure?: { readonly code: string; readonly detail?: string };
};

type Source = { open: number; shaking: number };

/**
 * What the door shows and whom it asks for: the root goes along with the chain, so that somebody who enrols can hold it against the
 * fingerprint in the token before sending anything, and callers of either plane are asked for their leaf.
 */
function presented({
  credentials,
  trust,
}: Pick<JoinDoorOptions, "credentials" | "trust">): Credentials {
  const { keyPem, chainPem, bundlePem } = credentials();
  const { bundles } = trust();
  const last = new X509Certificate(certificatesIn(chainPem).at(-1) ?? "");
  const root = certificatesIn(bundlePem).find((pem) => last.checkIssued(new X509Certificate(pem)));
  const roots = [...(bundles.control ?? []), ...(bundles.data ?? [])].map(String);
  return {
    keyPem,
    chainPem: `${chainPem.trimEnd()}\n${root ?? ""}\n`,
    bundlePem: roots.join("\n"),
  };
}

/** `::ffff:10.0.0.1` is `10.0.0.1`. */
function plainAddress(address: string | undefined): string {
  return (address ?? "").replace(/^::ffff:(?=\d+\.)/i, "");
}

/** Without the query, which is never recorded, and at most 1,024 characters. */
function pathOf(request: IncomingMessage): string {
  return (request.url ?? "").split("?", 1)[0]?.slice(0, 1_024) ?? "";
}

function headersOf(answer: Answer): Record<string, string> {
  return {
    "content-type": "application/json",
    "cache-control": "no-store",
    // One call a connection: leaves are judged at the handshake, and there is no second call to hurry for.
    connection: "close",
    ...answer.headers,
  };
}

/** For sockets that Node's HTTP has let go of. */
function endWith(socket: Socket, answer: Answer): void {
  const text = `${JSON.stringify(answer.body)}\n`;
  const head = Object.entries({ ...headersOf(answer), "content-length": Buffer.byteLength(text) })
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join("");
  socket.setTimeout(2_000, () => socket.destroy());
  socket.resume();
  socket.end(
    `HTTP/1.1 ${answer.status} ${answer.status < 500 ? "Refused" : "Failed"}\r\n${head}\r\n${text}`,
    () => socket.destroySoon(),
  );
}

async function readJson(
  request: IncomingMessage,
  bytesMax: number,
): Promise<{ readonly value: unknown } | { readonly refusal: Answer }> {
  const type = request.headers["content-type"]?.split(";", 1)[0]?.trim().toLowerCase();
  if (type !== "application/json")
    return { refusal: no(415, "bad_request", "send application/json") };
  const tooLarge = { refusal: no(413, "body_too_large", `a body has at most ${bytesMax} bytes`) };
  if (Number(request.headers["content-length"] ?? 0) > bytesMax) return tooLarge;
  const chunks: Buffer[] = [];
  let bytes = 0;
  const isWhole = await new Promise<boolean | undefined>((resolve) => {
    request.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > bytesMax) resolve(false);
      else chunks.push(chunk);
    });
    request.on("end", () => resolve(true));
    request.on("error", () => resolve(undefined));
    request.on("close", () => resolve(undefined));
  });
  if (isWhole === undefined) return { refusal: no(400, "bad_request", "the body ended early") };
  if (!isWhole) return tooLarge;
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(chunks));
    return { value: JSON.parse(text) };
  } catch {
    return { refusal: no(400, "bad_request", "the body is not JSON") };
  }
}

/** An answer that takes too long is none: the caller may come again, and what was issued is given again for the same key. */
async function within(ms: number, answer: Promise<Answer>): Promise<Answer> {
  let deadline: NodeJS.Timeout | undefined;
  const late = new Promise<Answer>((resolve) => {
    deadline = setTimeout(
      () => resolve(no(503, "overloaded", "the control plane took too long to answer")),
      ms,
    );
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(deadline);
  }
}
