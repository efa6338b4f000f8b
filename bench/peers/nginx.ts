import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { countLines } from "../count-lines.ts";
import { type Assignment, job, type Peer } from "../job.ts";
import { cores, end, freePort, pinner, startProgram, versionOf } from "../processes.ts";

/** nginx as one process, its access log unbuffered, as it comes. Undefined when it is not installed. */
export async function startNginx(given: Assignment): Promise<Peer | undefined> {
  const version = versionOf("nginx", ["-v"], /nginx\/(\S+)/);
  if (version === undefined) return undefined;
  const port = await freePort();
  const at = (file: string) => join(given.dir, file);
  writeFileSync(at("key.pem"), given.server.keyPem, { mode: 0o600 });
  writeFileSync(at("chain.pem"), given.server.chainPem);
  writeFileSync(at("roots.pem"), given.server.bundlePem);
  writeFileSync(at("nginx.conf"), configuration(given, port));
  const args = [
    "-c",
    String(cores.proxy),
    "nginx",
    "-p",
    given.dir,
    "-e",
    at("error.txt"),
    "-c",
    at("nginx.conf"),
  ];
  const child = await startProgram(pinner, args, { port, outputFile: at("output.txt") });
  return {
    name: "nginx",
    version,
    pid: child.pid ?? 0,
    port,
    logLines: () => countLines([at("access.txt")]),
    close: () => end(child),
  };
}

function configuration(given: Assignment, port: number): string {
  return `daemon off;
master_process off;
pid nginx.pid;
error_log error.txt warn;
events { worker_connections 4096; }
http {
  access_log access.txt combined;
  client_body_temp_path temp-body;
  proxy_temp_path temp-proxy;
  fastcgi_temp_path temp-fastcgi;
  uwsgi_temp_path temp-uwsgi;
  scgi_temp_path temp-scgi;
  keepalive_requests 1000000000;
  upstream orders {
    server 127.0.0.1:${given.originPort};
    keepalive 256;
    keepalive_requests 1000000000;
  }
  server {
    listen 127.0.0.1:${port} ssl;
    ssl_certificate chain.pem;
    ssl_certificate_key key.pem;
    ssl_client_certificate roots.pem;
    ssl_verify_client on;
    ssl_verify_depth 3;
    ssl_protocols TLSv1.3;
    ssl_session_tickets off;
    if ($ssl_client_serial != ${given.callerSerial}) { return 403; }
    location / { return 403; }
    location ${job.allowedPrefix}debug/ { return 403; }
    location ${job.allowedPrefix} {
      limit_except GET POST { deny all; }
      proxy_pass http://orders;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host ${job.host};
      proxy_set_header Sallyport-Caller ${given.callerUri};
    }
  }
}
`;
}
