import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { job } from "./job.ts";

// The service behind every peer, in a process of its own: answers each GET on a keep-alive connection with the same small JSON.

const response = Buffer.from(
  `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${job.body.length}\r\nDate: ${new Date().toUTCString()}\r\nServer: origin\r\n\r\n${job.body}`,
);
const headEnd = Buffer.from("\r\n\r\n");

const server = createServer((socket) => {
  socket.setNoDelay(true);
  socket.on("error", () => undefined);
  let rest = Buffer.alloc(0);
  socket.on("data", (chunk) => {
    let bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    for (;;) {
      const at = bytes.indexOf(headEnd);
      if (at < 0) break;
      socket.write(response);
      bytes = bytes.subarray(at + headEnd.length);
    }
    rest = bytes;
  });
});
server.listen(0, "127.0.0.1", () => {
  process.send?.({ port: (server.address() as AddressInfo).port });
});
process.on("disconnect", () => process.exit());
