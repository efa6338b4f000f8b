import { once } from "node:events";
import { createWriteStream, readFileSync } from "node:fs";
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { TLSSocket } from "node:tls";
import { Pool } from "undici";
import { type Assignment, job } from "../job.ts";

const [given] = (await once(process, "message")) as [Assignment & { logFile: string }];

const hopByHop = new Set([
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "host",
  "sallyport-caller",
]);
const pool = new Pool(`http://127.0.0.1:${given.originPort}`, { connections: 256, pipelining: 1 });
const accessLog = createWriteStream(given.logFile, { flags: "a", mode: 0o600 });
/** The SPIFFE URI of each connection, read once: its certificate does not change. */
const callers = new WeakMap<TLSSocket, string>();

const server = createServer(
  {
    key: given.server.keyPem,
    cert: given.server.chainPem,
    ca: given.server.bundlePem,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: "TLSv1.3",
    ALPNProtocols: ["http/1.1"],
    keepAliveTimeout: 60_000,
  },
  (request, response) => void answer(request, response),
);
server.on("secureConnection", (socket: TLSSocket) => {
  const names = socket.getPeerCertificate().subjectaltname?.split(", ") ?? [];
  callers.set(socket, names.find((name) => name.startsWith("URI:"))?.slice(4) ?? "");
});
server.listen(0, "127.0.0.1", () => {
  const undici = readFileSync(new URL(import.meta.resolve("undici/package.json")), "utf8");
  process.send?.({
    port: (server.address() as AddressInfo).port,
    undici: (JSON.parse(undici) as { version: string }).version,
  });
});
process.on("disconnect", () => process.exit());

function without(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  const kept: IncomingHttpHeaders = {};
  for (const name in headers) if (!hopByHop.has(name)) kept[name] = headers[name];
  return kept;
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const startedMs = performance.now();
  const socket = request.socket as TLSSocket;
  const method = request.method ?? "";
  const path = request.url ?? "";
  const caller = callers.get(socket) ?? "";
  response.on("finish", () => {
    const line = {
      at: Date.now(),
      caller,
      peer: socket.remoteAddress,
      method,
      path,
      status: response.statusCode,
      tookMs: performance.now() - startedMs,
    };
    accessLog.write(`${JSON.stringify(line)}\n`);
  });
  if (
    caller !== given.callerUri ||
    (method !== "GET" && method !== "POST") ||
    !path.startsWith(job.allowedPrefix) ||
    path.startsWith(`${job.allowedPrefix}debug/`)
  ) {
    response.writeHead(403).end();
    return;
  }
  try {
    await pool.stream(
      {
        method,
        path,
        headers: { ...without(request.headers), host: job.host, "sallyport-caller": caller },
        body: method === "GET" ? null : request,
      },
      ({ statusCode, headers }) => response.writeHead(statusCode, without(headers)),
    );
  } catch {
    if (response.headersSent) response.destroy();
    else response.writeHead(502).end();
  }
}
