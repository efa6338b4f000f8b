import { X509Certificate } from "node:crypto";
import { Agent, type RequestOptions, request } from "node:https";
import type { PeerCertificate, TLSSocket } from "node:tls";
import { splitHostPort } from "../../base/address.ts";
import type { Clock } from "../../base/clock.ts";
import type { Credentials } from "../../base/credentials.ts";
import type { Problem } from "../../base/problem.ts";
import { certificatesIn, clientContext } from "../../base/secure-context.ts";
import { chainOf, judgePeer } from "../../policy/peer.ts";

/** Talks to one control plane with one operator's credentials. */
export type ControlClient = {
  /** Rejects with `ApiUnreachable`, `ApiRefused`. */
  call(method: "GET" | "PUT" | "POST" | "DELETE", path: string, more?: CallOptions): Promise<Reply>;
  /** Releases its connections. Safe to call twice. */
  close(): void;
};

export type CallOptions = {
  /** Left out where undefined. */
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON. */
  readonly body?: unknown;
  /** Until the whole answer is there. Default 15 s, and whatever `waitMs` asks for on top. */
  readonly timeoutMs?: number;
};

export type Reply = {
  readonly status: number;
  /** Parsed, where it is JSON; else the text. */
  readonly body: unknown;
  readonly etag: string | undefined;
  /** Id of the call in the hit log. */
  readonly hit: string | undefined;
};

export type ClientOptions = {
  /** `https://127.0.0.1:7440`. */
  readonly api: string;
  readonly trustDomain: string;
  readonly credentials: Credentials;
  readonly clock: Clock;
};

/** No answer that could be trusted: nobody there, or somebody else. */
export class ApiUnreachable extends Error {
  readonly hint: string;
  constructor(message: string, hint: string, options?: ErrorOptions) {
    super(message, options);
    this.hint = hint;
  }
}

/** The control plane said no. */
export class ApiRefused extends Error {
  readonly status: number;
  /** Stable. */
  readonly code: string;
  readonly hint: string | undefined;
  readonly hit: string | undefined;
  readonly problems: readonly Problem[];
  constructor(status: number, told: Told) {
    super(told.says);
    this.status = status;
    this.code = told.code;
    this.hint = told.hint;
    this.hit = told.hit;
    this.problems = told.problems ?? [];
  }
}

type Told = {
  readonly code: string;
  readonly says: string;
  readonly hint?: string;
  readonly hit?: string;
  readonly problems?: readonly Problem[];
};

const answerBytesMax = 128 * 1024 * 1024;

/** Opens no connection yet. Throws a `TypeError` when the address is none or the bundle holds no certificate. */
export function createControlClient(options: ClientOptions): ControlClient {
  const { api, trustDomain, credentials, clock } = options;
  const address = api.startsWith("https://") ? splitHostPort(api.slice(8)) : undefined;
  if (!address) throw new TypeError(`not the address of a control plane: ${api}`);
  const roots = certificatesIn(credentials.bundlePem).map((one) => new X509Certificate(one));
  const agent = new Agent({ keepAlive: true, maxSockets: 4 });

  /** Who answers is told by the SPIFFE URI of its leaf: a name in DNS proves nothing here. Fails closed. */
  function checkServer(socket: TLSSocket): Error | undefined {
    const leaf = socket.getPeerX509Certificate();
    const verdict = judgePeer({
      leaf,
      chain: leaf ? chainOf(leaf) : [],
      opensslSays: socket.authorized ? undefined : String(socket.authorizationError),
      nowMs: clock(),
      trust: { trustDomain, bundles: { control: roots } },
      expect: { plane: "control", kinds: ["control"], purpose: "server" },
    });
    return verdict.ok ? undefined : new Error(`${verdict.code}: ${verdict.detail}`);
  }

  return {
    async call(method, path, more = {}) {
      const body = more.body === undefined ? undefined : JSON.stringify(more.body);
      const waitMs = Number(more.query?.waitMs ?? 0);
      const settings: RequestOptions = {
        ...clientContext(credentials),
        agent,
        method,
        host: address.host,
        port: address.port,
        path: path + queryText(more.query),
        servername: `control.${trustDomain}`,
        // The chain is checked by OpenSSL against our roots; the name by `checkServer`, before a byte is sent.
        checkServerIdentity: (_: string, peer: PeerCertificate) => nameProblem(peer, trustDomain),
        headers: {
          ...(body !== undefined && {
            "Content-Type": "application/json",
            "Content-Length": Buffer.byteLength(body),
          }),
          ...more.headers,
        },
      };
      const { status, headers, text } = await exchange(settings, body, {
        timeoutMs: more.timeoutMs ?? 15_000 + waitMs,
        checkServer,
      }).catch((cause: NodeJS.ErrnoException) => {
        throw unreachable(api, cause);
      });
      const parsed = /^application\/json\b/.test(headers["content-type"] ?? "")
        ? parseJson(text, api)
        : text;
      if (status >= 400 && isError(parsed)) throw new ApiRefused(status, parsed.error);
      const hit = headers["sallyport-hit"];
      return {
        status,
        body: parsed,
        etag: headers.etag,
        hit: typeof hit === "string" ? hit : undefined,
      };
    },
    close: () => agent.destroy(),
  };
}

type Exchanged = {
  readonly status: number;
  readonly headers: import("node:http").IncomingHttpHeaders;
  readonly text: string;
};

function exchange(
  settings: RequestOptions,
  body: string | undefined,
  guard: {
    readonly timeoutMs: number;
    readonly checkServer: (socket: TLSSocket) => Error | undefined;
  },
): Promise<Exchanged> {
  return new Promise((resolve, reject) => {
    const outgoing = request(settings);
    const deadline = setTimeout(() => {
      outgoing.destroy(Object.assign(new Error("no answer in time"), { code: "ETIMEDOUT" }));
    }, guard.timeoutMs);
    outgoing.on("error", reject);
    outgoing.on("close", () => clearTimeout(deadline));
    outgoing.on("socket", (socket) => {
      const tls = socket as TLSSocket;
      const send = () => {
        const wrong = guard.checkServer(tls);
        if (wrong) outgoing.destroy(wrong);
        else outgoing.end(body);
      };
      // A kept connection has been checked, and is checked again: its leaf may have ended since.
      if (tls.getProtocol() === "TLSv1.3" && !tls.connecting) send();
      else tls.once("secureConnect", send);
    });
    outgoing.on("response", (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on("data", (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes > answerBytesMax) outgoing.destroy(new Error("the answer is too large"));
        else chunks.push(chunk);
      });
      response.on("error", reject);
      response.on("end", () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          text: Buffer.concat(chunks).toString("utf8"),
        }),
      );
    });
  });
}

/** Asked by Node inside the handshake, before anything is sent: exactly our control plane's SPIFFE URI. Fails closed. */
function nameProblem(peer: PeerCertificate, trustDomain: string): Error | undefined {
  const names = (peer.subjectaltname ?? "").split(", ");
  const uris = names.filter((name) => name.startsWith("URI:"));
  const isControl =
    uris.length === 1 && uris[0]?.startsWith(`URI:spiffe://${trustDomain}/control/`) === true;
  return isControl ? undefined : new Error("bad_identity: the server is not a control plane");
}

function queryText(query: CallOptions["query"]): string {
  const given = new URLSearchParams();
  for (const [key, value] of Object.entries(query ?? {}))
    if (value !== undefined) given.set(key, String(value));
  return given.size === 0 ? "" : `?${given.toString()}`;
}

function parseJson(text: string, api: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ApiUnreachable(`${api} answered, but not with JSON`, hints.other, { cause });
  }
}

function isError(value: unknown): value is { readonly error: Told } {
  const error = (value as { error?: Partial<Told> } | null)?.error;
  return typeof error?.code === "string" && typeof error.says === "string";
}

const hints = {
  nobody: "start it with sallyport up or sallyport control, or choose another with --context",
  other: "another program may have the port: see who listens there, or choose another context",
  identity:
    "enrol again with a new token; under sallyport up, restarting it renews the administrator",
} as const;

function unreachable(api: string, cause: NodeJS.ErrnoException): ApiUnreachable {
  if (cause instanceof ApiUnreachable) return cause;
  const code = cause.code ?? "";
  const isNobody = ["ECONNREFUSED", "ENOTFOUND", "EHOSTUNREACH", "ENETUNREACH"].includes(code);
  if (isNobody)
    return new ApiUnreachable(`no control plane answers at ${api}`, hints.nobody, { cause });
  if (code === "ETIMEDOUT")
    return new ApiUnreachable(`${api} did not answer in time`, hints.nobody, { cause });
  if (code === "ECONNRESET" || code === "EPIPE")
    return new ApiUnreachable(
      `${api} closed the connection: the door may not be for this address`,
      hints.identity,
      { cause },
    );
  return new ApiUnreachable(
    `whoever answers at ${api} is not the control plane of this context (${cause.message})`,
    hints.other,
    { cause },
  );
}
