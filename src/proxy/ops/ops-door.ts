import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { assertBound, type Endpoint } from "../../base/guard.ts";
import type { Running } from "../../base/lifecycle.ts";

/** What a gate says about itself. No name of a caller is ever in it. */
export type OpsFacts = {
  /** Undefined: ready. Else why not, in one sentence. */
  readonly notReady: () => string | undefined;
  /** Metric name (Prometheus, without prefix) → value; the type and help come from `metricHelp`. */
  readonly metrics: () => Readonly<Record<string, number>>;
};

/** Every metric of a gate, with its type and meaning. */
export const metricHelp = {
  requests_total: ["counter", "Requests whose head was read, refused ones included."],
  refused_total: ["counter", "Requests and handshakes that were refused."],
  connections: ["gauge", "Open connections of identified callers."],
  workers: ["gauge", "Worker threads that are running."],
  worker_deaths_total: ["counter", "Workers that ended without being told to."],
  snapshot_epoch: ["gauge", "Epoch of the snapshot in force."],
  snapshot_version: ["gauge", "Version of the snapshot in force."],
  snapshot_age_seconds: ["gauge", "Time since control last confirmed the snapshot in force."],
  control_connected: ["gauge", "1 while the feed from control is up."],
  audit_failing: ["gauge", "1 while the hit log cannot be written."],
  leaf_expires_seconds: ["gauge", "Time until the gate's data leaf expires."],
} as const satisfies Record<string, readonly ["counter" | "gauge", string]>;

/**
 * The ops door: plain HTTP, GET and HEAD only, `/live`, `/ready`, `/metrics`, nothing else and nothing forwarded. Fails closed: peers
 * outside `admits` are hung up on. Binds exactly `at` and asserts it.
 */
export async function openOpsDoor(
  at: Endpoint,
  admits: (address: string) => boolean,
  facts: OpsFacts,
): Promise<Running & { readonly port: number }> {
  const server: Server = createServer(
    { maxHeaderSize: 8_192, requestTimeout: 5_000 },
    (request, response) => {
      const answer = (status: number, body: string, type = "text/plain; charset=utf-8"): void => {
        response.writeHead(status, { "content-type": type, "cache-control": "no-store" });
        response.end(request.method === "HEAD" ? undefined : body);
      };
      if (request.method !== "GET" && request.method !== "HEAD") return answer(405, "GET only\n");
      const why = facts.notReady();
      if (request.url === "/live") return answer(200, "live\n");
      if (request.url === "/ready")
        return answer(why === undefined ? 200 : 503, `${why ?? "ready"}\n`);
      if (request.url === "/metrics")
        return answer(200, render(facts.metrics()), "text/plain; version=0.0.4");
      return answer(404, "/live, /ready, /metrics\n");
    },
  );
  server.maxConnections = 256;
  server.headersTimeout = 5_000;
  server.on("connection", (socket) => {
    if (!admits(socket.remoteAddress ?? "")) socket.destroy();
  });
  server.listen(at.port, at.host);
  await once(server, "listening");
  try {
    assertBound(server.address() as AddressInfo, [at]);
  } catch (cause) {
    server.close();
    throw cause;
  }
  let closed: Promise<void> | undefined;
  return {
    port: (server.address() as AddressInfo).port,
    close() {
      closed ??= new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      });
      return closed;
    },
  };
}

function render(values: Readonly<Record<string, number>>): string {
  const known: Readonly<Record<string, readonly [string, string]>> = metricHelp;
  let text = "";
  for (const [name, value] of Object.entries(values)) {
    const [type, help] = known[name] ?? ["gauge", name];
    text += `# HELP sallyport_${name} ${help}\n# TYPE sallyport_${name} ${type}\nsallyport_${name} ${value}\n`;
  }
  return text;
}
