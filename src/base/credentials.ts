/** A leaf that is in use: frozen, replaced whole. PEM texts. */
export type Credentials = {
  /** PKCS#8 private key. Never logged. */
  readonly keyPem: string;
  /** The leaf first, then its issuing certificate. */
  readonly chainPem: string;
  /** The roots that peers are judged by. Never empty. */
  readonly bundlePem: string;
};
