import assert from "node:assert/strict";
import { generateKeyPairSync, sign } from "node:crypto";
import { test } from "node:test";
import { keyId, verifySnapshot } from "./signature.ts";

function makeSigner() {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const pem = publicKey.export({ format: "pem", type: "spki" }).toString();
  return {
    pem,
    sign: (payload: string) => ({
      payload,
      signature: sign(null, Buffer.from(payload), privateKey).toString("base64url"),
      key: keyId(pem),
    }),
  };
}

test("a snapshot is believed only when a pinned key signed exactly these bytes", () => {
  const ours = makeSigner();
  const stranger = makeSigner();
  const ec = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const ecPem = ec.publicKey.export({ format: "pem", type: "spki" }).toString();
  const good = ours.sign('{"version":1}');
  const rows: [claim: string, held: boolean, Parameters<typeof verifySnapshot>][] = [
    ["signed by the pinned key", true, [good, [ours.pem]]],
    ["signed by one of several", true, [good, [stranger.pem, ours.pem]]],
    ["nobody is pinned", false, [good, []]],
    ["a stranger is pinned", false, [good, [stranger.pem]]],
    ["another payload", false, [{ ...good, payload: '{"version":2}' }, [ours.pem]]],
    ["a blank more", false, [{ ...good, payload: `${good.payload} ` }, [ours.pem]]],
    [
      "a stranger who names our key",
      false,
      [{ ...stranger.sign(good.payload), key: good.key }, [ours.pem]],
    ],
    [
      "our signature under another name",
      false,
      [{ ...good, key: keyId(stranger.pem) }, [ours.pem]],
    ],
    ["no signature", false, [{ ...good, signature: "" }, [ours.pem]]],
    [
      "another spelling of the signature",
      false,
      [{ ...good, signature: `${good.signature}=` }, [ours.pem]],
    ],
    [
      "a signature of another length",
      false,
      [{ ...good, signature: `${good.signature}AA` }, [ours.pem]],
    ],
    ["what is pinned is no key", false, [good, ["nonsense", ""]]],
    ["what is pinned is another kind of key", false, [{ ...good, key: keyId(ecPem) }, [ecPem]]],
  ];
  for (const [claim, held, question] of rows)
    assert.equal(verifySnapshot(...question), held, claim);
});
