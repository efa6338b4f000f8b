import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { assertBound, type BoundAddress, type Endpoint } from "../../base/guard.ts";
import type { Running } from "../../base/lifecycle.ts";

/**
 * Listens on a duplicate of a descriptor that the supervisor has bound, and asserts once more that it is what was allowed. Fails closed:
 * a socket bound anywhere else is closed again and the promise rejects. `close` stops accepting; connections live on.
 */
export async function listenOn(
  descriptor: { readonly fd: number; readonly allowed: Endpoint },
  onSocket: (socket: Socket) => void,
): Promise<Running> {
  const server: Server = createServer({ allowHalfOpen: true, pauseOnConnect: false }, onSocket);
  server.listen({ fd: descriptor.fd, backlog: 4_096 });
  await once(server, "listening");
  try {
    assertBound(server.address() as BoundAddress, [descriptor.allowed]);
  } catch (cause) {
    server.close();
    throw cause;
  }
  server.on("error", () => undefined); // EMFILE and the like: the kernel keeps the backlog
  let closed: Promise<unknown> | undefined;
  return {
    async close() {
      // Only the listener: waiting for connections is the sessions' business.
      closed ??= new Promise<void>((done) => {
        server.close();
        done();
      });
      await closed;
    },
  };
}
