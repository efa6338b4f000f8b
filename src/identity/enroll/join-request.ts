import { X509Certificate } from "node:crypto";
import { request as httpRequest } from "node:http";
import { isIP } from "node:net";
import { type ConnectionOptions, connect, type TLSSocket } from "node:tls";
import { formatHostPort, splitHostPort } from "../../base/address.ts";
import type { Credentials } from "../../base/credentials.ts";
import { certificatesIn, clientContext, pinnedContext } from "../../base/secure-context.ts";
import { keyId } from "../../base/signature.ts";
import { chainOf, judgePeer } from "../../policy/peer.ts";
import { factsOf } from "../leaf-facts.ts";

export type JoinRequest = {
  /** `host:port` of the join door. */
  readonly join: string;
  readonly trust: JoinTrust;
  /** Epoch ms, to judge the server's dates by. */
  readonly nowMs: number;
  readonly method: "GET" | "POST";
  /** `/join/v1/…`. */
  readonly path: string;
  /** Sent as JSON. */
  readonly body?: unknown;
  /** From the first packet to the last byte of the answer. Default 10 s. */
  readonly deadlineMs?: number;
  /** Ends it early. */
  readonly signal?: AbortSignal;
};

/** Whom to take for the join door. */
export type JoinTrust =
  /** By the fingerprint in a token: SHA-256 of the SPKI of the root that its chain has to end in, base64url. */
  | { readonly fingerprint: string }
  /** By the control plane's roots (`bundlePem`), showing our own leaf of either plane. */
  | { readonly credentials: Credentials; readonly trustDomain: string };

/** The join door could not be reached, or what answered there is not it. Trying again later may help. */
export class JoinUnreachable extends Error {}

/** The join door said no. */
export class JoinRefused extends Error {
  readonly status: number;
  /** Stable: `token_spent`, `revoked`. */
  readonly code: string;
  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

const deadlineMsDefault = 10_000;
// The largest, a batch of names, is 64 chains of some 1.7 kB.
const answerBytesMax = 4 * 1_048_576;

/**
 * One request to the join door on a connection of its own. Not a byte is sent before the server has been judged: its chain,
 * and that its leaf is `/control/`. Resolves to the parsed answer of a 200; throws `JoinRefused` on another status,
 * `JoinUnreachable` on everything else.
 */
export async function joinRequest(request: JoinRequest): Promise<unknown> {
  const { join, trust } = request;
  const address = splitHostPort(join);
  if (!address) throw new JoinUnreachable(`not an address to join at: ${join}`);
  const timeout = AbortSignal.timeout(request.deadlineMs ?? deadlineMsDefault);
  const deadline = request.signal ? AbortSignal.any([timeout, request.signal]) : timeout;
  const socket = connect({
    host: address.host,
    port: address.port,
    servername: isIP(address.host) ? "" : address.host,
    ALPNProtocols: ["http/1.1"],
    ...trustOptions(trust),
  });
  try {
    await handshake(socket, join, deadline);
    assertControl(socket, request);
    const { status, text } = await exchange(socket, request, address, deadline);
    return readAnswer(join, status, text);
  } catch (cause) {
    if (cause instanceof JoinRefused || cause instanceof JoinUnreachable) throw cause;
    throw new JoinUnreachable(`${join}: ${reasonOf(cause)}`, { cause });
  } finally {
    socket.destroy();
  }
}

function trustOptions(trust: JoinTrust): ConnectionOptions {
  if ("fingerprint" in trust) return pinnedContext();
  // Judged by its SPIFFE URI, in `assertControl`: the address it was found at says nothing about who it is.
  return { ...clientContext(trust.credentials), checkServerIdentity: () => undefined };
}

function handshake(socket: TLSSocket, join: string, deadline: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => reject(new JoinUnreachable(`${join} did not answer in time`));
    if (deadline.aborted) stop();
    deadline.addEventListener("abort", stop, { once: true });
    socket.once("secureConnect", resolve);
    socket.once("close", () => reject(new JoinUnreachable(`${join} closed the connection`)));
    // Stays for good: an error after the answer is nobody's business, and must not end the process.
    socket.on("error", reject);
  });
}

/**
 * Fails closed, before a byte is sent: the leaf, whose key the server has just proven, is a control plane's, and its chain
 * ends in a root that we know, or in the one whose fingerprint the token carries.
 */
function assertControl(socket: TLSSocket, { join, trust, nowMs }: JoinRequest): void {
  const leaf = socket.getPeerX509Certificate();
  const chain = leaf ? chainOf(leaf) : [];
  const isPinned = "fingerprint" in trust;
  const roots = isPinned
    ? chain.filter((one) => fingerprintOf(one) === trust.fingerprint)
    : certificatesIn(trust.credentials.bundlePem).map((pem) => new X509Certificate(pem));
  if (isPinned && roots.length === 0)
    throw new JoinUnreachable(
      `${join}: the server there is not the one that the token was made for; nothing was sent to it`,
    );
  // A pinned root is all that is known yet; of which trust domain it is, only the leaf under it can say.
  const trustDomain = isPinned ? leaf && factsOf(leaf)?.parts.trustDomain : trust.trustDomain;
  const verdict = judgePeer({
    leaf,
    chain,
    opensslSays: undefined,
    nowMs,
    trust: { trustDomain: trustDomain ?? "", bundles: { control: roots } },
    expect: { plane: "control", kinds: ["control"], purpose: "server" },
  });
  if (!verdict.ok)
    throw new JoinUnreachable(
      `${join}: the server there is not a control plane to trust (${verdict.detail}); nothing was sent to it`,
    );
}

function fingerprintOf(certificate: X509Certificate): string {
  return keyId(certificate.publicKey.export({ format: "der", type: "spki" }));
}

function exchange(
  socket: TLSSocket,
  request: JoinRequest,
  address: { host: string; port: number },
  deadline: AbortSignal,
): Promise<{ status: number; text: string }> {
  const body = request.body === undefined ? undefined : JSON.stringify(request.body);
  return new Promise((resolve, reject) => {
    const call = httpRequest({
      createConnection: () => socket,
      method: request.method,
      path: request.path,
      signal: deadline,
      headers: {
        host: formatHostPort(address.host, address.port),
        accept: "application/json",
        connection: "close",
        ...(body !== undefined && {
          "content-type": "application/json",
          "content-length": Buffer.byteLength(body),
        }),
      },
    });
    call.once("error", (cause) =>
      reject(deadline.aborted ? new JoinUnreachable("the answer took too long") : cause),
    );
    call.once("response", (answer) => {
      const pieces: Buffer[] = [];
      let bytes = 0;
      answer.on("data", (piece: Buffer) => {
        bytes += piece.length;
        pieces.push(piece);
        if (bytes > answerBytesMax) reject(new JoinUnreachable("the answer is larger than 4 MiB"));
      });
      answer.once("error", reject);
      answer.once("end", () =>
        resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(pieces).toString("utf8") }),
      );
    });
    call.end(body);
  });
}

function readAnswer(join: string, status: number, text: string): unknown {
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new JoinUnreachable(`${join} answered ${status}, but not in JSON: is it a join door?`);
  }
  if (status === 200) return answer;
  const { code, message } = refusalIn(answer);
  // A fault or an overload over there is no verdict about us.
  if (status >= 500) throw new JoinUnreachable(`${join} answered ${status}: ${message}`);
  throw new JoinRefused(status, code, message);
}

/** `{ error: { code, message } }` or `{ code, message }`. */
function refusalIn(answer: unknown): { code: string; message: string } {
  const outer = answer as { error?: unknown } | null;
  const inner = (typeof outer?.error === "object" ? outer.error : outer) as {
    code?: unknown;
    message?: unknown;
  } | null;
  const code = typeof inner?.code === "string" ? inner.code.slice(0, 64) : "refused";
  const message = typeof inner?.message === "string" ? inner.message.slice(0, 512) : code;
  return { code, message };
}

function reasonOf(cause: unknown): string {
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === "ECONNREFUSED") return "nobody is listening there";
  if (code === "ENOTFOUND" || code === "EAI_AGAIN") return "the name does not resolve";
  return message;
}
