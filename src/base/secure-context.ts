import { constants, X509Certificate } from "node:crypto";
import type { SecureContextOptions, TlsOptions } from "node:tls";
import type { Credentials } from "./credentials.ts";

/**
 * What every listener of ours starts with: a client certificate is always asked for, and judged by us (see `policy/peer`), never
 * by Node, whose own rejection loses the reason. Later credentials go in through `setSecureContext(serverContext(next))`.
 * Nothing is closed by `handshakeTimeoutMs` alone: `tlsClientError` must destroy its socket. Throws as `serverContext` does.
 */
export function serverOptions(
  credentials: Credentials,
  options: { readonly handshakeTimeoutMs?: number } = {},
): TlsOptions {
  return {
    ...serverContext(credentials),
    requestCert: true,
    rejectUnauthorized: false,
    handshakeTimeout: options.handshakeTimeoutMs ?? 5_000,
    ALPNProtocols: ["http/1.1", "http/1.0"],
  };
}

/**
 * The whole secure context of a listener, for its start and for every later swap. `setSecureContext` forgets whatever it is
 * not given: TLS 1.2, resumption and Node's public roots all come back through an option left out, so nobody else writes
 * these options. Throws a `TypeError` when the bundle holds no certificate (Node would trust its public roots instead).
 */
export function serverContext(credentials: Credentials): SecureContextOptions {
  return { ...shared(credentials.bundlePem), key: credentials.keyPem, cert: credentials.chainPem };
}

/**
 * For `tls.connect`: our leaf, and the roots that the server is judged by. The name of the server is not checked here: pass a
 * `checkServerIdentity` that reads the SPIFFE URI. Throws a `TypeError` when the bundle holds no certificate.
 */
export function clientContext(
  credentials: Credentials,
): SecureContextOptions & { readonly rejectUnauthorized: true } {
  return { ...serverContext(credentials), rejectUnauthorized: true };
}

/**
 * For the one connection that is made before there is anything to trust: an enrolment, whose server is pinned by the
 * fingerprint in its token. Trusts no root at all; whoever uses it must judge the chain before sending a byte.
 */
export function pinnedContext(): SecureContextOptions & { readonly rejectUnauthorized: false } {
  return { ...limits(), ca: [], rejectUnauthorized: false };
}

function shared(bundlePem: string): SecureContextOptions {
  const ca = certificatesIn(bundlePem);
  if (ca.length === 0)
    throw new TypeError("the trust bundle is empty: nobody could be told from a stranger");
  return { ...limits(), ca };
}

function limits(): SecureContextOptions {
  return {
    minVersion: "TLSv1.3",
    maxVersion: "TLSv1.3",
    ecdhCurve: groups,
    // With no ticket and nobody listening for `newSession` or `resumeSession`, there is nothing to resume from: every
    // connection proves its key anew, so a revocation cannot be slept through.
    secureOptions: constants.SSL_OP_NO_TICKET,
    sessionTimeout: 1,
  };
}

// The question mark (OpenSSL 3.5) lets a build without ML-KEM pass over it; older OpenSSL does not know the mark itself.
const groups = isAtLeast(process.versions.openssl, 3, 5)
  ? "?X25519MLKEM768:X25519:P-256"
  : "X25519:P-256";

function isAtLeast(version: string, major: number, minor: number): boolean {
  const [a = 0, b = 0] = version.split(".").map(Number);
  return a > major || (a === major && b >= minor);
}

/** Each certificate of a PEM text by itself. Throws on one that cannot be read: half a bundle is not a bundle. */
export function certificatesIn(pem: string): string[] {
  const found = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  for (const one of found) new X509Certificate(one);
  return found;
}
