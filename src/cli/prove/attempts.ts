import type { ConnectionOptions } from "node:tls";
import type { Credentials } from "../../base/credentials.ts";
import type { Endpoint } from "../../base/guard.ts";
import type { Attempt } from "./attempt.ts";
import { request } from "./request.ts";
import { speak } from "./speak.ts";
import { strangerCertificate } from "./stranger-certificate.ts";

/** A request that the register allows, and somebody who may make it: what every attack is a variation of. */
export type Allowed = {
  /** Service name of the caller. */
  readonly caller: string;
  readonly credentials: Credentials;
  readonly host: string;
  /** Safe to ask for: `prove` sends nothing that changes anything. */
  readonly method: "GET" | "HEAD";
  readonly path: string;
};

/** A running gate and what is known about it. */
export type Ground = {
  readonly data: Endpoint;
  readonly control: Endpoint;
  readonly decoy: Endpoint | undefined;
  readonly trustDomain: string;
  readonly allowed: Allowed;
  /** An identity of the control plane: the operator's own. */
  readonly operator: Credentials;
  /** Written into every hit, so that our own attempts are told from real ones. */
  readonly canary: string;
};

/** What an identity shows in a handshake with the data door. */
export function shown(
  credentials: Pick<Credentials, "keyPem" | "chainPem">,
  sni?: string,
): ConnectionOptions {
  return {
    key: credentials.keyPem,
    cert: credentials.chainPem,
    // The attempts look at what the gate does, not at who it is.
    rejectUnauthorized: false,
    ...(sni !== undefined && { servername: sni }),
  };
}

/**
 * The attacks that need nothing but one allowed request: they hold against any register. Each is read-only, on a connection of its own, and
 * leaves a hit.
 */
export function standardAttempts(ground: Ground): Attempt[] {
  const { allowed, canary, control, data, operator, trustDomain } = ground;
  const { host, method, path } = allowed;
  const plain = request(method, path, host, { canary });
  const own = shown(allowed.credentials);
  const ask =
    (bytes: string, tls: ConnectionOptions = own) =>
    () =>
      speak(data, bytes, tls);
  const fields = (...fields: string[]) => request(method, path, host, { canary, fields });
  const list: Attempt[] = [
    {
      name: "no client certificate",
      expected: { status: 401, code: "no_certificate" },
      run: ask(plain, { rejectUnauthorized: false }),
    },
    {
      name: `a self-signed certificate that says it is ${allowed.caller}`,
      expected: { status: 401, code: "unknown_issuer" },
      run: async () => {
        const uri = `spiffe://${trustDomain}/service/${allowed.caller}`;
        return speak(data, plain, shown(await strangerCertificate(uri)));
      },
    },
    {
      name: "a control-plane identity on the data port",
      expected: { status: 401, code: "other_plane" },
      run: ask(plain, shown(operator)),
    },
    {
      name: `${allowed.caller}'s identity on the control port`,
      expected: { status: 401, code: "other_plane" },
      run: () => speak(control, request("GET", "/v1/status", "control", { canary }), own),
      plane: "control",
    },
    {
      name: "plaintext on the TLS port",
      expected: { ended: true, code: "not_tls" },
      run: () => speak(data, plain),
    },
    {
      name: "TLS 1.2",
      expected: { ended: true, code: "handshake_failed" },
      run: ask(plain, { ...own, minVersion: "TLSv1.2", maxVersion: "TLSv1.2" }),
    },
    {
      name: "a service that is not behind this gate",
      expected: { status: 404, code: "unknown_service" },
      run: ask(request(method, path, "no-such-service.invalid", { canary })),
    },
    {
      name: "a path that climbs out by an escaped slash",
      expected: { status: 400, code: "bad_path" },
      run: ask(request(method, `${path}/..%2fadmin`, host, { canary })),
    },
    {
      name: "an escape of an escape (%252e%252e)",
      expected: { status: 400, code: "bad_path" },
      run: ask(request(method, `${path}/%252e%252e/admin`, host, { canary })),
    },
    {
      name: "Content-Length together with Transfer-Encoding",
      expected: { status: 400, code: "ambiguous_length" },
      run: ask(
        request("POST", path, host, {
          canary,
          fields: ["Content-Length: 6", "Transfer-Encoding: chunked"],
          body: "0\r\n\r\nX",
        }),
      ),
    },
    {
      name: "two Host fields",
      expected: { status: 400, code: "bad_host" },
      run: ask(fields("Host: elsewhere")),
    },
    {
      name: "a folded header line",
      expected: { status: 400, code: "bad_header" },
      run: ask(fields("X-A: one\r\n two")),
    },
  ];
  if (ground.decoy !== undefined) {
    const { decoy } = ground;
    list.push({
      name: "a decoy port is touched",
      expected: { ended: true, code: "decoy" },
      run: () => speak(decoy, "hello\r\n"),
      plane: "decoy",
    });
  }
  return list;
}
