import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { countLines } from "../count-lines.ts";
import { type Assignment, job, type Peer } from "../job.ts";
import { cores, end, freePort, pinner, startProgram, versionOf } from "../processes.ts";

/** HAProxy with one thread, its access log in a file through standard output. Undefined when it is not installed. */
export async function startHaproxy(given: Assignment): Promise<Peer | undefined> {
  const version = versionOf("haproxy", ["-v"], /version (\S+)/);
  if (version === undefined) return undefined;
  const port = await freePort();
  const { keyPem, chainPem, bundlePem } = given.server;
  const at = (file: string) => join(given.dir, file);
  const secret = { mode: 0o600 };
  writeFileSync(at("server.pem"), `${keyPem}\n${chainPem}`, secret);
  writeFileSync(at("roots.pem"), bundlePem);
  writeFileSync(at("haproxy.cfg"), configuration(given, port));
  const outputFile = at("access.txt");
  const args = ["-c", String(cores.proxy), "haproxy", "-db", "-f", at("haproxy.cfg")];
  const child = await startProgram(pinner, args, { port, outputFile });
  return {
    name: "haproxy",
    version,
    pid: child.pid ?? 0,
    port,
    logLines: () => countLines([outputFile]),
    close: () => end(child),
  };
}

/** 2.6 cannot read a URI out of a certificate: the caller is known by the serial number of its leaf. */
function configuration(given: Assignment, port: number): string {
  return `global
  nbthread 1
  maxconn 4096
  log stdout len 1024 format raw local0 info

defaults
  mode http
  log global
  option httplog
  http-reuse always
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-request 10s
  timeout http-keep-alive 60s

frontend data
  bind 127.0.0.1:${port} ssl crt ${join(given.dir, "server.pem")} ca-file ${join(given.dir, "roots.pem")} verify required ssl-min-ver TLSv1.3 ssl-max-ver TLSv1.3 no-tls-tickets alpn http/1.1
  acl is-web ssl_c_serial,hex -m str -i ${given.callerSerial}
  acl is-read method GET POST
  acl is-orders path_beg ${job.allowedPrefix}
  acl is-debug path_beg ${job.allowedPrefix}debug/
  http-request deny if is-debug
  http-request deny unless is-web is-read is-orders
  http-request set-header Sallyport-Caller ${given.callerUri}
  default_backend orders

backend orders
  server orders 127.0.0.1:${given.originPort}
`;
}
