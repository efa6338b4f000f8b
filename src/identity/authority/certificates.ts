import "reflect-metadata";
import { randomBytes, type webcrypto } from "node:crypto";
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  Extension,
  type JsonGeneralNames,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  PublicKey,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from "@peculiar/x509";
import { type Plane, type Principal, parsePrincipal, shortName } from "../../model/principal.ts";

type CryptoKey = webcrypto.CryptoKey;
export type Signer = { readonly certPem: string; readonly key: CryptoKey };

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const hourMs = 3_600_000;
const yearMs = 365.25 * 24 * hourMs;

/** What a leaf may be used for. */
export type Purpose = "client" | "server" | "both";

/** A self-signed root: P-256, 10 years, path length 1, and name constraints that keep it inside its trust domain. */
export async function makeRoot(
  of: { readonly plane: Plane; readonly trustDomain: string; readonly id: string },
  nowMs: number,
): Promise<{ certPem: string; keyPem: string }> {
  const keys = await newKeys();
  const name = authorityName("root", of);
  const cert = await X509CertificateGenerator.createSelfSigned({
    serialNumber: newSerial(),
    name,
    ...validity(nowMs - hourMs, nowMs + 10 * yearMs),
    keys,
    signingAlgorithm: algorithm,
    extensions: [
      new BasicConstraintsExtension(true, 1, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
      nameConstraints(of),
    ],
  });
  return { certPem: cert.toString("pem"), keyPem: await privatePem(keys.privateKey) };
}

/**
 * An issuing certificate under the root: P-256, 1 year, path length 0. It repeats the name constraints, because a verifier
 * may leave a trust anchor's own unread (RFC 5280 section 6.1).
 */
export async function makeIssuing(
  of: { readonly plane: Plane; readonly trustDomain: string; readonly id: string },
  root: Signer,
  nowMs: number,
): Promise<{ certPem: string; keyPem: string }> {
  const keys = await newKeys();
  const rootCert = new X509Certificate(root.certPem);
  const cert = await X509CertificateGenerator.create({
    serialNumber: newSerial(),
    subject: authorityName("issuing", of),
    issuer: rootCert.subjectName,
    ...validity(nowMs - hourMs, Math.min(nowMs + yearMs, rootCert.notAfter.getTime())),
    publicKey: keys.publicKey,
    signingKey: root.key,
    signingAlgorithm: algorithm,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
      await AuthorityKeyIdentifierExtension.create(rootCert),
      nameConstraints(of),
    ],
  });
  return { certPem: cert.toString("pem"), keyPem: await privatePem(keys.privateKey) };
}

/** A leaf: exactly one URI SAN, the DNS names it is given, a random positive serial of 128 bits. Decides nothing. */
export async function makeLeaf(
  of: {
    readonly publicKeySpki: Uint8Array;
    readonly principal: Principal;
    readonly dnsNames: readonly string[];
    readonly purpose: Purpose;
    readonly notBeforeMs: number;
    readonly notAfterMs: number;
  },
  issuing: Signer,
): Promise<{ certPem: string; serial: string; notBeforeMs: number; notAfterMs: number }> {
  const issuer = new X509Certificate(issuing.certPem);
  const publicKey = new PublicKey(of.publicKeySpki as Uint8Array<ArrayBuffer>);
  const dates = validity(of.notBeforeMs, of.notAfterMs);
  const names: JsonGeneralNames = [
    { type: "url", value: of.principal },
    ...of.dnsNames.map((value) => ({ type: "dns", value }) as const),
  ];
  const serial = newSerial();
  const cert = await X509CertificateGenerator.create({
    serialNumber: serial,
    // A slash keeps the common name from ever passing for a host name.
    subject: [{ CN: [commonName(of.principal)] }],
    issuer: issuer.subjectName,
    ...dates,
    publicKey,
    signingKey: issuing.key,
    signingAlgorithm: algorithm,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension(usages[of.purpose]),
      new SubjectAlternativeNameExtension(names),
      await SubjectKeyIdentifierExtension.create(publicKey),
      await AuthorityKeyIdentifierExtension.create(issuer),
    ],
  });
  return {
    certPem: cert.toString("pem"),
    serial,
    notBeforeMs: dates.notBefore.getTime(),
    notAfterMs: dates.notAfter.getTime(),
  };
}

/** Throws when the text is not a PKCS#8 P-256 key. */
export async function signingKey(keyPem: string): Promise<CryptoKey> {
  const der = PemConverter.decode(keyPem)[0];
  if (!der) throw new Error("no private key in the file");
  return crypto.subtle.importKey("pkcs8", der, algorithm, false, ["sign"]);
}

const usages: Readonly<Record<Purpose, ExtendedKeyUsage[]>> = {
  client: [ExtendedKeyUsage.clientAuth],
  server: [ExtendedKeyUsage.serverAuth],
  both: [ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth],
};

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
}

async function privatePem(key: CryptoKey): Promise<string> {
  return `${PemConverter.encode(await crypto.subtle.exportKey("pkcs8", key), "PRIVATE KEY")}\n`;
}

/** 128 bits, positive, no leading zero: every tool prints the same 32 digits (RFC 5280 section 4.1.2.2). */
function newSerial(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return bytes.toString("hex");
}

/** Whole seconds, rounded down: that is all a certificate can say. */
function validity(notBeforeMs: number, notAfterMs: number): { notBefore: Date; notAfter: Date } {
  const whole = (ms: number) => new Date(Math.floor(ms / 1_000) * 1_000);
  return { notBefore: whole(notBeforeMs), notAfter: whole(notAfterMs) };
}

function authorityName(
  level: "root" | "issuing",
  of: { readonly plane: Plane; readonly trustDomain: string; readonly id: string },
): Record<string, string[]>[] {
  // The id makes every name its own: a verifier that looks issuers up by name never meets two.
  return [
    { O: [of.trustDomain.slice(0, 64)] },
    { CN: [`sallyport ${of.plane} ${level} ${of.id}`] },
  ];
}

function commonName(principal: Principal): string {
  const parts = parsePrincipal(principal);
  if (!parts) throw new TypeError("not a principal");
  return shortName(parts).slice(0, 64); // RFC 5280, ub-common-name
}

/**
 * RFC 5280 section 4.2.1.10, critical. URIs only of the trust domain; no IP address at all; on the control plane, DNS names
 * only below the trust domain, and `localhost`. DNS names of the data plane are those of services, which the register may name
 * at any time (`orders`, `shop.example`), so a root that lives ten years cannot list them.
 */
function nameConstraints(of: { readonly plane: Plane; readonly trustDomain: string }): Extension {
  const permitted = [generalName(uriTag, ascii(of.trustDomain))];
  if (of.plane === "control")
    permitted.push(
      generalName(dnsTag, ascii(of.trustDomain)),
      generalName(dnsTag, ascii("localhost")),
    );
  // An address and a mask of zeros: every IPv4 address, every IPv6 address.
  const excluded = [generalName(ipTag, Buffer.alloc(8)), generalName(ipTag, Buffer.alloc(32))];
  const value = der(0x30, [der(0xa0, permitted), der(0xa1, excluded)]);
  return new Extension("2.5.29.30", true, new Uint8Array(value));
}

// Context tags of GeneralName (RFC 5280 section 4.2.1.6).
const dnsTag: number = 0x82;
const uriTag: number = 0x86;
const ipTag: number = 0x87;

/** A GeneralSubtree: the name; `minimum` is 0 by default, and DER leaves defaults out. */
function generalName(tag: number, value: Buffer): Buffer {
  return der(0x30, [der(tag, [value])]);
}

function der(tag: number, parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat(parts);
  const length =
    body.length < 0x80
      ? [body.length]
      : body.length < 0x100
        ? [0x81, body.length]
        : [0x82, body.length >> 8, body.length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...length]), body]);
}

function ascii(text: string): Buffer {
  return Buffer.from(text, "latin1");
}
