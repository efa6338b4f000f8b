import assert from "node:assert/strict";
import { test } from "node:test";
import { firstCall } from "./first-call.ts";

const gates = [{ name: "g", addresses: ["[::1]:7443"] }];
const get = { host: "orders", method: "GET", path: "/pub" };
const none = "no rule lets web ";
const noGate = "no gate has said where it is";

const rows: [claim: string, told: unknown, says: string][] = [
  [
    "reading",
    { gates, example: get },
    "--connect-to 'orders:7443:[::1]:7443' https://orders:7443/pub",
  ],
  ["HEAD", { gates, example: { ...get, method: "HEAD" } }, " --head https://orders:7443/pub"],
  [
    "writing, with a warning",
    { gates, example: { ...get, method: "PUT" } },
    "# no rule lets it read",
  ],
  [
    "writing, and how",
    { gates, example: { ...get, method: "PUT" } },
    "--request PUT https://orders",
  ],
  [
    "what a shell would read is quoted",
    { gates, example: { ...get, path: "/a$(b)'c" } },
    "'https://orders:7443/a$(b)'\\''c'",
  ],
  [
    "the directory too",
    { gates, example: get },
    "curl --cert '/a b/chain.pem' --key '/a b/key.pem'",
  ],
  ["nothing was said", undefined, "--connect-to SERVICE:7443:GATE:7443 https://SERVICE:7443/"],
  ["no rule", { gates: [], services: [] }, `${none}call anything yet`],
  [
    "no HTTP",
    { gates, services: ["db"] },
    `${none}make a plain HTTP call now; there are rules for it at db`,
  ],
  ["no gate", { gates: [], example: get }, noGate],
  ["a host that is none", { gates, example: { ...get, host: "a b" } }, none],
  ["a method that is none", { gates, example: { ...get, method: "GET; ls" } }, none],
  ["a path that is none", { gates, example: { ...get, path: "/\n`ls`" } }, none],
  ["an address that is none", { gates: [{ addresses: ["$(ls):1"] }], example: get }, noGate],
  ["parts of other types", { gates, example: { host: 1, method: ["GET"], path: {} } }, none],
  ["lists that are none", { gates: [{ addresses: "a:1" }], services: "db", example: get }, noGate],
  ["no object", "hello", none],
  ["nothing at all", null, none],
];

for (const [claim, told, says] of rows)
  test(`what to try first: ${claim}`, () => {
    const text = firstCall(told, "/a b", "spiffe://t.internal/service/web").join("\n");
    assert.ok(text.includes(says), text);
  });
