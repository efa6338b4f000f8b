import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { Running } from "../../base/lifecycle.ts";

/** Three services as a shop might have them: plain HTTP on loopback, no idea of certificates. They say what they were told. */
export async function startServices(): Promise<
  Running & { readonly ports: Readonly<Record<"orders" | "billing" | "stock", number>> }
> {
  const servers: Server[] = [];
  const start = async (name: string): Promise<number> => {
    const server = createServer((request, response) => {
      request.resume().on("end", () => {
        response.setHeader("content-type", "application/json");
        response.end(
          `${JSON.stringify({ service: name, path: request.url, caller: request.headers["sallyport-caller"] ?? null })}\n`,
        );
      });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    servers.push(server);
    return (server.address() as AddressInfo).port;
  };
  const ports = {
    orders: await start("orders"),
    billing: await start("billing"),
    stock: await start("stock"),
  };
  return {
    ports,
    async close() {
      for (const server of servers) {
        server.close();
        server.closeAllConnections();
      }
    },
  };
}
