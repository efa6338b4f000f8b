import type { X509Certificate } from "node:crypto";

/** A caller whose key was proven in the handshake: what `identify` makes of a leaf, once per connection. */
export type Caller = {
  /** Service name: `web`. */
  readonly name: string;
  /** `spiffe://<trust domain>/service/web`: what the upstream is told. */
  readonly uri: string;
  /** `service/web`: what the hit log says. */
  readonly shortName: string;
  /** Serial of the leaf, lower-case hex. */
  readonly serial: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** The root that its leaf led to. */
  readonly root: X509Certificate;
};
