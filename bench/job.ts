import type { Credentials } from "../src/base/credentials.ts";

/** The one job that every peer is given: see README.md. Also what the load asks for and what the origin answers. */
export const job = {
  host: "orders",
  method: "GET",
  path: "/orders/7",
  /** What a caller may reach; everything else is refused by every peer. */
  allowedPrefix: "/orders/",
  trustDomain: "bench.internal",
  caller: "web",
  body: '{"id":7,"item":"lamp","price":1999,"currency":"EUR","state":"new"}',
} as const;

/** What a peer is started with. */
export type Assignment = {
  /** A directory for its configuration and its log, removed afterwards. */
  readonly dir: string;
  /** Port of the origin, plain HTTP/1.1 on 127.0.0.1. */
  readonly originPort: number;
  /** A server leaf for `job.host`, and the roots that callers are judged by: the same for every peer. */
  readonly server: Credentials;
  /** The only caller that is let in: serial number of its leaf in upper-case hex, and its SPIFFE URI. */
  readonly callerSerial: string;
  readonly callerUri: string;
};

/** A proxy that runs. */
export type Peer = {
  readonly name: string;
  readonly version: string;
  /** The process whose CPU time counts. */
  readonly pid: number;
  readonly port: number;
  /** Where its access log is: must have grown by a line a request. */
  readonly logLines: () => number;
  close(): Promise<void>;
};
