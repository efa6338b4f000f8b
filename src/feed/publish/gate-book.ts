import type { Clock } from "../../base/clock.ts";
import type { FeedPeer } from "../needs.ts";
import type { Hello, Up } from "../protocol.ts";
import type { GateStatus } from "./publisher.ts";

/** What is known of each gate, also of those that are away. Kept by name; a gate that is no longer enrolled is struck out. */
export function createGateBook(clock: Clock): GateBook {
  const entries = new Map<string, GateStatus>();
  const change = (name: string, fields: Partial<GateStatus>): void => {
    entries.set(name, { ...(entries.get(name) ?? unknown(name)), ...fields });
  };
  return {
    arrived(peer, hello) {
      const { runningSince, ...old } = entries.get(peer.name) ?? unknown(peer.name);
      // One that has only connected anew serves what it served; of any other its next status says since when.
      const isAsBefore = old.boot === hello.boot && isSame(old.running, hello.running);
      entries.set(peer.name, {
        ...old,
        ...(isAsBefore && runningSince !== undefined && { runningSince }),
        connected: true,
        connectedSince: clock(),
        address: peer.address,
        boot: hello.boot,
        versions: hello.versions,
        running: hello.running,
        addresses: hello.addresses,
        servedNames: hello.servedNames,
      });
    },
    heard(name, message) {
      const now = clock();
      if (message.type === "ack") {
        const { epoch, version, digest } = message;
        const { problem: _, ...rest } = entries.get(name) ?? unknown(name);
        const running = { epoch, version, digest };
        // Said again with each connection, and when revocations were added to it.
        if (isSame(rest.running, running)) entries.set(name, rest);
        else entries.set(name, { ...rest, running, runningSince: now });
      } else if (message.type === "problem") {
        const { code, epoch, version } = message;
        change(name, {
          running: message.running,
          problem: { at: now, code, message: message.message, epoch, version },
        });
      } else if (message.type === "status") {
        const { addresses, servedNames, counters } = message;
        const { running, runningSince } = entries.get(name) ?? unknown(name);
        const since = runningSince ?? (running ? saidSince(counters, now) : undefined);
        change(name, {
          addresses,
          servedNames,
          counters,
          ...(since !== undefined && { runningSince: since }),
        });
      }
    },
    left(name, heardMs) {
      const entry = entries.get(name);
      if (entry) change(name, { lastSeen: Math.max(heardMs, entry.lastSeen ?? 0) });
    },
    running: (name) => entries.get(name)?.running ?? null,
    list(enrolled, heardMs) {
      for (const name of entries.keys())
        if (!enrolled.has(name) && heardMs(name) === undefined) entries.delete(name);
      return [...new Set([...enrolled, ...entries.keys()])].sort().map((name) => {
        const entry = entries.get(name) ?? unknown(name);
        const seen = heardMs(name);
        if (seen !== undefined) return { ...entry, connected: true, lastSeen: seen };
        const { connectedSince: _, ...rest } = entry;
        return { ...rest, connected: false };
      });
    },
  };
}

export type GateBook = {
  arrived(peer: FeedPeer, hello: Hello): void;
  heard(name: string, message: Up): void;
  left(name: string, heardMs: number): void;
  /** What it last said it serves, connected or not. */
  running(name: string): GateStatus["running"];
  /** `heardMs`: when a connected gate was last heard; undefined for one that is not connected. */
  list(
    enrolled: ReadonlySet<string>,
    heardMs: (name: string) => number | undefined,
  ): readonly GateStatus[];
};

function isSame(one: GateStatus["running"], other: GateStatus["running"]): boolean {
  return (
    one?.epoch === other?.epoch && one?.version === other?.version && one?.digest === other?.digest
  );
}

/** In the gate's own time, which is only believed of the past. */
function saidSince({ snapshotSince }: GateStatus["counters"], now: number): number | undefined {
  const isTime = typeof snapshotSince === "number" && snapshotSince > 0;
  return isTime ? Math.min(snapshotSince, now) : undefined;
}

function unknown(name: string): GateStatus {
  return { name, connected: false, running: null, addresses: [], servedNames: [], counters: {} };
}
