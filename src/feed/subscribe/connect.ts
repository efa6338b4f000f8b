import { X509Certificate } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { request } from "node:https";
import type { Socket } from "node:net";
import type { DetailedPeerCertificate } from "node:tls";
import { splitHostPort } from "../../base/address.ts";
import type { Credentials } from "../../base/credentials.ts";
import { certificatesIn, clientContext } from "../../base/secure-context.ts";
import { type PrincipalParts, parsePrincipal } from "../../model/principal.ts";
import { judgePeer, type Trust } from "../../policy/peer.ts";
import { feedProtocol } from "../protocol.ts";

/**
 * Opens the feed at one join door: TLS 1.3 with the gate's control leaf, then the upgrade. The socket is the caller's.
 * Fails closed: rejects unless the server proved a `/control/` identity of our own trust domain under the control roots.
 */
export function connectFeed(
  address: string,
  options: {
    readonly credentials: Credentials;
    /** Epoch ms, to judge the server's dates by. */
    readonly nowMs: number;
    readonly timeoutMs: number;
    readonly signal: AbortSignal;
  },
): Promise<{ readonly socket: Socket; readonly head: Buffer }> {
  const place = splitHostPort(address);
  if (!place) return Promise.reject(new Error(`${address} is not host:port`));
  const trust: Trust = {
    trustDomain: ownIdentity(options.credentials).trustDomain,
    bundles: {
      control: certificatesIn(options.credentials.bundlePem).map((pem) => new X509Certificate(pem)),
    },
  };
  return new Promise((resolve, reject) => {
    const asking = request({
      ...clientContext(options.credentials),
      host: place.host,
      port: place.port,
      method: "GET",
      path: "/join/v1/feed",
      headers: { connection: "Upgrade", upgrade: feedProtocol },
      agent: false,
      maxHeaderSize: 16_384,
      signal: options.signal,
      // The name in the address proves nothing, the SPIFFE URI does. Called before a byte of ours is sent.
      checkServerIdentity: (_host, certificate) =>
        judgeServer(certificate as DetailedPeerCertificate, trust, options.nowMs),
    });
    const deadline = setTimeout(
      () => asking.destroy(new Error("the join door did not answer in time")),
      options.timeoutMs,
    );
    asking.on("upgrade", (answer, socket, head) => {
      clearTimeout(deadline);
      if (answer.headers.upgrade?.toLowerCase() === feedProtocol) resolve({ socket, head });
      else {
        socket.destroy();
        reject(new Error("the join door speaks another protocol"));
      }
    });
    asking.on("response", (answer) => {
      void refusalOf(answer).then((says) => {
        clearTimeout(deadline);
        asking.destroy();
        reject(new Error(says));
      });
    });
    asking.on("error", (cause) => {
      clearTimeout(deadline);
      reject(cause);
    });
    asking.end();
  });
}

function judgeServer(
  certificate: DetailedPeerCertificate,
  trust: Trust,
  nowMs: number,
): Error | undefined {
  const leaf = new X509Certificate(certificate.raw);
  const chain: X509Certificate[] = [];
  let issuer = certificate.issuerCertificate;
  while (issuer?.raw && chain.length < 4 && !chain.some(({ raw }) => raw.equals(issuer.raw))) {
    chain.push(new X509Certificate(issuer.raw));
    issuer = issuer.issuerCertificate;
  }
  const verdict = judgePeer({
    leaf,
    chain,
    opensslSays: undefined, // it had no objection, or this would not be asked
    nowMs,
    trust,
    expect: { plane: "control", kinds: ["control"], purpose: "server" },
  });
  if (verdict.ok) return undefined;
  return new Error(`the server is not the control plane of this trust domain: ${verdict.detail}`);
}

/** The gate's own identity, and when its leaf ends. Throws on credentials that hold none. */
export function ownIdentity(
  credentials: Credentials,
): PrincipalParts & { readonly notAfterMs: number } {
  const leaf = new X509Certificate(credentials.chainPem);
  // Our own: what is read here decides nothing but whom to look for.
  const uri = /^URI:(spiffe:[^,"]+)$/m.exec(
    (leaf.subjectAltName ?? "").replaceAll(", ", "\n"),
  )?.[1];
  const identity = parsePrincipal(uri ?? "");
  if (!identity) throw new Error("the gate's own leaf names no identity");
  return { ...identity, notAfterMs: leaf.validToDate.getTime() };
}

/** What the door said instead of upgrading: its code and sentence, never more than a line of it. */
async function refusalOf(answer: IncomingMessage): Promise<string> {
  let body = "";
  try {
    for await (const chunk of answer.setEncoding("utf8")) {
      body += chunk;
      if (body.length > 4_096) break;
    }
    const { code, message } = JSON.parse(body);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
    const clean = String(message).replace(/[\u0000-\u001f\u007f]/g, " ");
    return `the join door refused: ${String(code).slice(0, 64)}, ${clean.slice(0, 256)}`;
  } catch {
    return `the join door answered ${answer.statusCode}`;
  }
}
