import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { promisify } from "node:util";
import { startOneService } from "../harness/one-service.ts";
import { until } from "../harness/until.ts";

const run = promisify(execFile);
const have = (program: string): boolean => !spawnSync(program, ["--version"]).error;
/** In CI a missing program is a failure: a scenario that is skipped proves nothing. */
const need = (program: string) => ({
  skip: !have(program) && !process.env.CI && `${program} is not installed`,
});

function temporary(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "sallyport-tools-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** A Node server that answers with what it was asked, and hashes what it was sent. */
async function nodeService(t: TestContext, at: { path: string } | { port: number }) {
  const server = createServer((request, response) => {
    const hash = createHash("sha256");
    let bytes = 0;
    request.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      hash.update(chunk);
    });
    request.on("end", () => {
      const body = JSON.stringify({
        method: request.method,
        url: request.url,
        bytes,
        hash: hash.digest("hex"),
        caller: request.headers["sallyport-caller"],
      });
      response.setHeader("Content-Type", "application/json");
      if (request.url === "/chunked") response.write(body);
      response.end(request.url === "/chunked" ? "" : body);
    });
  });
  server.listen("path" in at ? at.path : { port: 0, host: "127.0.0.1" });
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return "path" in at ? `unix:${at.path}` : `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** A gate before `upstream`, and `web`'s credentials as the files that enrolment leaves. */
async function startFiles(t: TestContext, upstream: string) {
  const one = await startOneService(t, { upstreams: [upstream], plane: { names: ["orders"] } });
  const dir = temporary(t);
  const file = (name: string, text: string): string => {
    writeFileSync(join(dir, name), text, { mode: 0o600 });
    return join(dir, name);
  };
  const key = file("key.pem", one.web.keyPem);
  const chain = file("chain.pem", one.web.chainPem);
  const bundle = file("bundle.pem", one.web.bundlePem);
  const { port } = one.world;
  const curl = async (...args: string[]): Promise<string> => {
    const { stdout } = await run("curl", [
      "--silent",
      "--show-error",
      "--fail-with-body",
      "--max-time",
      "20",
      "--key",
      key,
      "--cert",
      chain,
      "--cacert",
      bundle,
      "--resolve",
      `orders:${port}:127.0.0.1`,
      ...args,
    ]);
    return stdout;
  };
  return { ...one, dir, file, key, chain, bundle, curl, url: `https://orders:${port}` };
}

async function asCurl(t: TestContext, upstream: string): Promise<void> {
  const { curl, url, file, world } = await startFiles(t, upstream);
  const got = JSON.parse(await curl(`${url}/a?b=c`));
  assert.deepEqual(
    [got.method, got.url, got.caller],
    ["GET", "/a?b=c", "spiffe://test.internal/service/web"],
  );
  const body = Buffer.alloc(10 * 1_048_576, "0123456789abcdef");
  const path = file("body", body.toString("latin1"));
  const hash = createHash("sha256").update(body).digest("hex");
  for (const how of [["--header", "Expect:"], [], ["--header", "Transfer-Encoding: chunked"]]) {
    const posted = JSON.parse(await curl("--data-binary", `@${path}`, ...how, `${url}/upload`));
    assert.deepEqual([posted.bytes, posted.hash], [body.length, hash], how.join(" "));
  }
  assert.ok((await curl(`${url}/chunked`)).includes('"GET"'));
  assert.ok((await curl("--http1.0", `${url}/old`)).includes('"GET"'), "it offers ALPN http/1.0");
  assert.match(
    await curl("--head", `${url}/a`),
    /^HTTP\/1\.1 200 OK\r\n(?:[^\r]+\r\n)*sallyport-hit: /i,
  );
  const connects = await curl(
    "--write-out",
    "%{num_connects};",
    "--output",
    "/dev/null",
    `${url}/1`,
    "--output",
    "/dev/null",
    `${url}/2`,
    "--output",
    "/dev/null",
    `${url}/3`,
  );
  assert.equal(connects, "1;0;0;", "one connection for three requests");
  assert.ok(world.hits.every(({ decision }) => decision === "allowed"));
}

test("curl speaks to a Node server", need("curl"), async (t) => {
  await asCurl(t, await nodeService(t, { port: 0 }));
});

test("curl speaks to a Node server on a unix socket", need("curl"), async (t) => {
  await asCurl(t, await nodeService(t, { path: join(temporary(t), "service.sock") }));
});

test("curl without a certificate is told why", need("curl"), async (t) => {
  const { url, world, bundle } = await startFiles(t, await nodeService(t, { port: 0 }));
  const { stdout } = await run("curl", [
    "--silent",
    "--cacert",
    bundle,
    "--resolve",
    `orders:${world.port}:127.0.0.1`,
    `${url}/a`,
  ]);
  assert.match(stdout, /no_certificate/);
});

for (const version of ["1.0", "1.1"])
  test(
    `nginx behind the gate is spoken to, keeping HTTP/${version} behind itself`,
    need("nginx"),
    async (t) => {
      const dir = temporary(t);
      const service = await nodeService(t, { port: 0 });
      const { port, stop } = await startNginx(dir, service, version);
      t.after(stop);
      const { curl, url, file } = await startFiles(t, `127.0.0.1:${port}`);
      assert.equal(JSON.parse(await curl(`${url}/a`)).caller, "spiffe://test.internal/service/web");
      assert.ok((await curl(`${url}/chunked`)).includes('"GET"'));
      const body = Buffer.alloc(1_048_576, "x");
      const posted = JSON.parse(
        await curl(
          "--data-binary",
          `@${file("body", body.toString())}`,
          "--header",
          "Transfer-Encoding: chunked",
          `${url}/up`,
        ),
      );
      assert.equal(posted.bytes, body.length);
      assert.match(await curl("--head", `${url}/static.txt`), /Content-Length: 6\r\n/);
      assert.equal(await curl(`${url}/static.txt`), "static");
      const connects = await curl(
        "--write-out",
        "%{num_connects};",
        "--output",
        "/dev/null",
        `${url}/static.txt`,
        "--output",
        "/dev/null",
        `${url}/static.txt`,
      );
      assert.equal(connects, "1;0;");
    },
  );

async function startNginx(
  dir: string,
  service: string,
  version: string,
): Promise<{ port: number; stop: () => Promise<void> }> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, "close");
  mkdirSync(join(dir, "www"));
  writeFileSync(join(dir, "www", "static.txt"), "static");
  const config = join(dir, "nginx.conf");
  writeFileSync(
    config,
    `daemon off; master_process off; pid ${dir}/pid; error_log stderr;
events { worker_connections 64; }
http {
  access_log off; client_max_body_size 20m;
  client_body_temp_path ${dir}/1; proxy_temp_path ${dir}/2; fastcgi_temp_path ${dir}/3; uwsgi_temp_path ${dir}/4; scgi_temp_path ${dir}/5;
  server {
    listen 127.0.0.1:${port};
    location = /static.txt { root ${dir}/www; }
    location / { proxy_pass http://${service}; proxy_http_version ${version}; }
  }
}`,
  );
  const nginx: ChildProcess = spawn("nginx", ["-p", dir, "-c", config], { stdio: "ignore" });
  const exited = once(nginx, "exit");
  for (let isUp = false; !isUp; ) {
    assert.equal(nginx.exitCode, null, "nginx did not start");
    const socket = connect(port, "127.0.0.1");
    isUp = await new Promise((done) => {
      socket.once("connect", () => done(true));
      socket.once("error", () => done(false));
    });
    socket.destroy();
  }
  return {
    port,
    async stop() {
      nginx.kill("SIGKILL");
      await exited;
    },
  };
}

test("openssl s_client: TLS 1.3 alone, and nothing is ever resumed", need("openssl"), async (t) => {
  const { world, key, chain, bundle, dir } = await startFiles(t, await nodeService(t, { port: 0 }));
  const session = join(dir, "session");
  const client = async (...args: string[]): Promise<{ said: string; code: number | null }> => {
    const child = spawn("openssl", [
      "s_client",
      "-connect",
      `127.0.0.1:${world.port}`,
      "-servername",
      "orders",
      "-key",
      key,
      "-cert",
      chain,
      "-CAfile",
      bundle,
      "-ign_eof",
      ...args,
    ]);
    let said = "";
    child.stdout.on("data", (chunk: Buffer) => (said += chunk));
    child.stderr.on("data", (chunk: Buffer) => (said += chunk));
    child.stdin.on("error", () => undefined);
    child.stdin.write("GET /a HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n");
    const [code] = (await once(child, "close")) as [number | null];
    return { said, code };
  };
  const first = await client("-sess_out", session);
  assert.match(first.said, /HTTP\/1\.1 200 OK/);
  assert.match(first.said, /New, TLSv1\.3/);
  assert.match(first.said, /Verify return code: 0/);
  // OpenSSL hands out a ticket all the same, one that names a session; nobody keeps such sessions.
  assert.ok(existsSync(session), "a session to come back with");
  for (let turn = 0; turn < 2; turn++) {
    const again = await client("-sess_in", session);
    assert.match(again.said, /HTTP\/1\.1 200 OK/);
    assert.ok(!again.said.includes("Reused"), "nothing resumes");
  }
  const old = await client("-tls1_2");
  assert.ok(!old.said.includes("HTTP/1.1 200"), old.said);
  await until("its hit", () => world.hits.find(({ code }) => code === "handshake_failed"));
});
