import assert from "node:assert/strict";
import { test } from "node:test";
import { formatHostPort } from "../../base/address.ts";
import { silentLog } from "../../base/log.ts";
import type { Bind, Register } from "../../model/register.ts";
import { followDoor } from "./control-doors.ts";

const future = Date.now() + 3_600_000;
const past = Date.now() - 1;
// An empty label fails in every resolver without asking anybody.
const unknown: Bind = { text: "no..name:7440", host: "no..name", kind: "hostname", port: 7440 };
const loopback: Bind = { text: "127.0.0.1:7440", host: "127.0.0.1", kind: "address", port: 7440 };
const named: Bind = { text: "localhost:7441", host: "localhost", kind: "hostname", port: 7441 };
const everywhere = (expiresMs: number): Bind => ({
  text: "0.0.0.0:7440",
  host: "0.0.0.0",
  kind: "address",
  port: 7440,
  unsafeBind: { why: "a test", expiresMs },
});

function registerWith(binds: readonly Bind[]): Register {
  return { networks: {}, planes: { control: { binds, from: [] } } } as unknown as Register;
}

test("a door is closed when it may no longer be open, whatever became of its other binds", async () => {
  const rows: [claim: string, before: Bind[], after: Bind[], left: string[]][] = [
    ["an unsafeBind that expired", [everywhere(future)], [everywhere(past)], []],
    [
      "the same, beside a name that cannot be looked up",
      [everywhere(future), loopback],
      [everywhere(past), loopback, unknown],
      ["127.0.0.1:7440"],
    ],
    ["a bind that was taken out, beside such a name", [loopback], [unknown], []],
    [
      "a name that cannot be looked up this time keeps what it opened",
      [{ ...named, text: unknown.text }],
      [unknown],
      ["127.0.0.1:7441"],
    ],
  ];
  for (const [claim, before, after, left] of rows) {
    const open = new Set<string>();
    const door = followDoor({
      name: "control",
      log: silentLog,
      remembered: { port: async () => 0, keep: async () => {} },
      async open(endpoint) {
        const key = formatHostPort(endpoint.host, endpoint.port);
        open.add(key);
        return { opened: { close: async () => void open.delete(key) }, address: endpoint };
      },
    });
    await door.follow(registerWith(before));
    assert.ok(open.size > 0, claim);
    await door.follow(registerWith(after));
    const [...names] = open;
    assert.deepEqual(
      names.filter((name) => !name.startsWith("[")),
      left,
      claim,
    );
  }
});
