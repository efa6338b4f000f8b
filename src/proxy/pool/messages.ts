import type { Credentials } from "../../base/credentials.ts";
import type { BindRequest, Endpoint, LocalAddress } from "../../base/guard.ts";
import type { Hit } from "../../model/hit.ts";
import type { Revocation } from "../../model/snapshot.ts";
import type { PackedPatch } from "../../policy/pack.ts";

/** A door as a worker opens it: one descriptor of its own, and what decides who may come in. */
export type DoorOrder = {
  readonly door: "data" | "decoy";
  readonly fd: number;
  readonly at: Endpoint;
  readonly bind: BindRequest;
  readonly from: readonly string[];
  readonly networks: Readonly<Record<string, readonly string[]>>;
  readonly interfaces: readonly LocalAddress[];
};

/** By the name in SNI. */
export type NameCredentials = ReadonlyMap<string, Pick<Credentials, "keyPem" | "chainPem">>;

/** Leaves and roots, as PEM: everything a worker needs for handshakes. */
export type CredentialOrder = {
  readonly trustDomain: string;
  readonly own: Credentials;
  /** Their roots are those of `own`. To a worker that runs already: only what is new to it. */
  readonly byName: NameCredentials;
  /** Roots that callers are judged by, and their issuing certificates. Empty: nobody is let in. */
  readonly dataBundlePem: string;
  /** Roots of the control plane: only to tell its leaves from a stranger's. */
  readonly controlBundlePem: string;
};

/** What a worker starts with. */
export type WorkerStart = {
  readonly gate: string;
  readonly worker: number;
  readonly boot: string;
  readonly hitsDir: string;
  readonly credentials: CredentialOrder;
  /** One 32-bit word per (rule, caller). */
  readonly limits: SharedArrayBuffer;
  /** One float: when control last confirmed the view, epoch ms. */
  readonly confirmed: SharedArrayBuffer;
};

/** Main thread → worker. Every order is answered by `done` with its number. */
export type Order = { readonly number: number } & (
  | { readonly kind: "view"; readonly patch: PackedPatch }
  | { readonly kind: "revoke"; readonly revocation: Revocation }
  | { readonly kind: "credentials"; readonly credentials: CredentialOrder }
  /** Leaves for names that are new, or newer than those it has. */
  | { readonly kind: "names"; readonly names: NameCredentials }
  | { readonly kind: "open"; readonly order: DoorOrder }
  /** Who may come in through an open door has changed. */
  | { readonly kind: "admit"; readonly order: Omit<DoorOrder, "fd"> }
  | { readonly kind: "shut"; readonly door: "data" | "decoy"; readonly at: Endpoint }
  | { readonly kind: "own-doors"; readonly doors: readonly Endpoint[] }
  | { readonly kind: "drain"; readonly withinMs: number }
);

/** Worker → main thread. */
export type Report =
  | { readonly kind: "done"; readonly number: number; readonly problem?: string }
  /** Once a second. */
  | {
      readonly kind: "beat";
      readonly heads: readonly { chain: string; sequence: number; head: string }[];
      readonly counters: Readonly<Record<string, number>>;
      readonly auditFailing: boolean;
    }
  /** Refusals that are in the log, for early warning; `missed` more were not worth copying. */
  | { readonly kind: "seen"; readonly hits: readonly Hit[]; readonly missed: number };
