import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { writeFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import {
  connect,
  createServer,
  getCACertificates,
  type Server,
  setDefaultCACertificates,
} from "node:tls";
import { spkiOf, startIssuanceWorld } from "../../test/harness/issuance-world.ts";
import { openAuthority } from "../identity/authority/authority.ts";
import { makeKey } from "../identity/enroll/make-csr.ts";
import type { Credentials } from "./credentials.ts";
import {
  certificatesIn,
  clientContext,
  pinnedContext,
  serverContext,
  serverOptions,
} from "./secure-context.ts";

/** A gate's listener, what each client's certificate was said to be, and our own client's credentials. */
async function startServer(t: TestContext): Promise<{
  server: Server;
  port: number;
  verdicts: string[];
  gate: Credentials;
  client: Credentials;
  dir: string;
}> {
  const world = await startIssuanceWorld(t);
  const leaf = async (kind: "gate" | "service", name: string): Promise<Credentials> => {
    const keyPem = await makeKey();
    const { chain, bundle } = await world.issuance.issueDirect({
      principal: world.principal(kind, name),
      plane: "data",
      publicKeySpki: spkiOf(keyPem),
    });
    return { keyPem, chainPem: chain, bundlePem: bundle };
  };
  const gate = await leaf("gate", "g1");
  const client = await leaf("service", "web");
  const verdicts: string[] = [];
  const server = createServer(serverOptions(gate), (socket) => {
    verdicts.push(socket.authorized ? "ours" : String(socket.authorizationError));
    socket.on("error", () => {});
    socket.end("hello\n");
  });
  server.on("tlsClientError", (cause: NodeJS.ErrnoException, socket) => {
    verdicts.push(String(cause.code));
    socket.destroy();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  return { server, port, verdicts, gate, client, dir: world.dir };
}

/** Resolves to all that `openssl s_client` printed. */
async function sClient(port: number, ...args: string[]): Promise<string> {
  const child = spawn("openssl", ["s_client", "-connect", `127.0.0.1:${port}`, ...args]);
  let said = "";
  child.stdout.on("data", (piece) => (said += piece));
  child.stderr.on("data", (piece) => (said += piece));
  // Standard input stays open until the server has said its word, or the session would not be read.
  child.stdout.on("data", () => said.includes("hello") && child.stdin.end());
  await new Promise((resolve) => child.once("close", resolve));
  return said;
}

/** What the server said to this client: its greeting, or the code of the error. */
function dial(port: number, options: object): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({
      port,
      host: "127.0.0.1",
      checkServerIdentity: () => undefined,
      ...options,
    });
    let said = "";
    socket.on("data", (piece) => (said += piece));
    socket.once("close", () => resolve(said.trim()));
    socket.once("error", (cause: NodeJS.ErrnoException) => resolve(String(cause.code)));
  });
}

test("TLS 1.2 is refused, nothing resumes, a public root's certificate is a stranger: at the start and after every swap", async (t) => {
  const { server, port, verdicts, gate, client, dir } = await startServer(t);
  // A certificate that every context without roots of its own would trust: what Node trusts by default is "public".
  const publicCa = await openAuthority({
    dir: join(dir, "public"),
    plane: "data",
    trustDomain: "shop.internal",
    clock: Date.now,
  });
  const keyPem = await makeKey();
  const publicLeaf = await publicCa.sign({
    publicKeySpki: spkiOf(keyPem),
    principal: "spiffe://shop.internal/service/web" as never,
    dnsNames: [],
    purpose: "client",
    ttlMs: 3_600_000,
  });
  const defaults = getCACertificates();
  setDefaultCACertificates([...defaults, publicCa.bundlePem()]);
  t.after(() => setDefaultCACertificates(defaults));
  const session = join(dir, "session.pem");
  const files = [join(dir, "c.pem"), join(dir, "k.pem")] as const;
  await writeFile(files[0], client.chainPem);
  await writeFile(files[1], client.keyPem);
  const identity = ["-cert", files[0], "-cert_chain", files[0], "-key", files[1]];
  for (const moment of ["at the start", "after a swap", "after another"]) {
    if (moment !== "at the start") server.setSecureContext(serverContext(gate));
    verdicts.length = 0;
    assert.equal(await dial(port, clientContext(client)), "hello", moment);
    assert.match(
      await dial(port, { ...clientContext(client), minVersion: "TLSv1.2", maxVersion: "TLSv1.2" }),
      /ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION/,
      moment,
    );
    assert.equal(
      await dial(port, { ...clientContext(client), key: keyPem, cert: publicLeaf.chainPem }),
      "hello",
    );
    assert.deepEqual(
      verdicts,
      ["ours", "ERR_SSL_UNSUPPORTED_PROTOCOL", "UNABLE_TO_GET_ISSUER_CERT_LOCALLY"],
      moment,
    );
    const first = await sClient(port, "-tls1_3", ...identity, "-sess_out", session);
    assert.match(first, /New, TLSv1\.3/, moment);
    // OpenSSL still sends two tickets that name sessions in a cache; ours keeps none, so they open nothing.
    const again = await sClient(port, "-tls1_3", ...identity, "-sess_in", session);
    assert.doesNotMatch(again, /Reused/, moment);
    assert.match(
      await sClient(port, "-tls1_2", ...identity),
      /protocol version|no protocols/,
      moment,
    );
  }
});

test("a context without roots is never made", async (t) => {
  const { gate } = await startServer(t);
  for (const [claim, bundlePem] of [
    ["an empty bundle", ""],
    ["blanks", " \n"],
    ["a key in its place", gate.keyPem],
    ["a certificate cut short", gate.bundlePem.slice(0, 80)],
  ] as const) {
    assert.throws(() => serverContext({ ...gate, bundlePem }), TypeError, claim);
    assert.throws(() => clientContext({ ...gate, bundlePem }), TypeError, claim);
    assert.throws(() => serverOptions({ ...gate, bundlePem }), TypeError, claim);
  }
  assert.throws(() => certificatesIn(gate.bundlePem.replace("MII", "AAA")), "half a bundle");
});

test("a client is as strict about its server", async (t) => {
  const { server, port, gate, client, dir } = await startServer(t);
  const stranger = await openAuthority({
    dir: join(dir, "stranger"),
    plane: "data",
    trustDomain: "shop.internal",
    clock: Date.now,
  });
  assert.match(
    await dial(port, clientContext({ ...client, bundlePem: stranger.bundlePem() })),
    /UNABLE_TO_(GET|VERIFY)|SELF_SIGNED/,
  );
  assert.equal(
    await dial(port, pinnedContext()),
    "hello",
    "trusts nobody, and says so to its user",
  );
  const { rejectUnauthorized, ca } = pinnedContext();
  assert.deepEqual({ rejectUnauthorized, ca }, { rejectUnauthorized: false, ca: [] });
  server.setSecureContext(serverContext(gate));
  assert.equal(await dial(port, clientContext(client)), "hello");
});

test("the hybrid key exchange is used where OpenSSL has it", async (t) => {
  const { port, client } = await startServer(t);
  const socket = connect({
    port,
    host: "127.0.0.1",
    ...clientContext(client),
    checkServerIdentity: () => undefined,
  });
  await new Promise((resolve) => socket.once("secureConnect", resolve));
  assert.equal(socket.getProtocol(), "TLSv1.3");
  assert.ok(new X509Certificate(certificatesIn(client.chainPem)[0] ?? ""));
  const plain = await dial(port, { ...clientContext(client), ecdhCurve: "X25519" });
  assert.equal(plain, "hello", "a client without it is served");
  assert.equal(await dial(port, { ...clientContext(client), ecdhCurve: "P-256" }), "hello");
  assert.match(await dial(port, { ...clientContext(client), ecdhCurve: "P-521" }), /ERR_SSL/);
  socket.destroy();
});
