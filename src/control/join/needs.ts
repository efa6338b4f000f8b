import type { X509Certificate } from "node:crypto";
import type { Duplex } from "node:stream";
import type { Hit } from "../../model/hit.ts";
import type { Plane } from "../../model/principal.ts";
import type { RefusalCode } from "../../model/refusal.ts";
import type { Peer } from "../../policy/peer.ts";
import type { SampleCall } from "../../policy/sample-call.ts";

/**
 * The first and the later calls of an identity's life, decided by `identity/issue`. An expected no is thrown as an `Error` with a
 * `code` and an HTTP `status`, and a `principal` where one was proven; all else that is thrown is a fault.
 */
export type Issuance = {
  enrol(
    request: { readonly token: string; readonly peerAddress: string } & (
      | { readonly csr: string }
      | { readonly controlCsr: string; readonly dataCsr: string }
    ),
  ): Promise<EnrolAnswer>;
  renew(request: {
    /** Its key was proven in the handshake. It may have expired: what that means is decided there. */
    readonly leaf: X509Certificate;
    readonly plane: Plane;
    /** Absent: for leaves of names alone. */
    readonly csr?: string;
    readonly names?: readonly string[];
    readonly peerAddress: string;
  }): Promise<RenewAnswer>;
};

export type EnrolAnswer = {
  readonly leaves: {
    readonly [plane in Plane]?: { readonly chain: string; readonly bundle: string };
  };
  readonly principal: string;
  readonly controlBundle: string;
  readonly snapshotKey?: string;
};

export type RenewAnswer = {
  readonly chain: string;
  readonly bundle: string;
  readonly controlBundle: string;
  readonly names?: Readonly<Record<string, { readonly chain: string }>>;
};

/** Whom the door let in to `feed` or `discover`: a leaf that is valid now, of the right plane and kind. */
export type JoinCaller = Peer & {
  readonly plane: Plane;
  /** SHA-256 of the SPKI, base64url. */
  readonly publicKey: string;
};

export type JoinNeeds = {
  readonly issuance: Issuance;
  /** Whether a verified caller may go on: registered, and neither it nor its leaf revoked. Its own word otherwise. */
  readonly standing: (caller: JoinCaller) => Promise<RefusalCode | undefined>;
  /** What a service may learn (`discover.ts`). */
  readonly discover: (service: string) => Discovery | Promise<Discovery>;
  /** Takes ownership of the upgraded connection of a verified gate, after the `101` was written. */
  readonly onFeed: (socket: Duplex, gate: FeedGate) => void;
  /** The hit's id once it is with the kernel; undefined: it cannot be recorded, and then no answer leaves. */
  readonly record: (hit: Omit<Hit, "id">) => string | undefined;
};

/** Where the gates are, the names that the service may put into `Host`, and one call that its rules allow, when there is one. */
export type Discovery = {
  readonly gates: readonly { readonly name: string; readonly addresses: readonly string[] }[];
  readonly services: readonly string[];
  readonly example?: SampleCall;
};

export type FeedGate = {
  readonly name: string;
  /** Lower-case hex. */
  readonly serial: string;
  readonly notAfterMs: number;
  /** `ip:port`. */
  readonly address: string;
};
