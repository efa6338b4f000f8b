import assert from "node:assert/strict";
import { test } from "node:test";
import { holdDescriptors, ListenFailed } from "./hold-descriptors.ts";

test("an address belongs to the child that asked first; what is no address is not bound", (t) => {
  const descriptors = holdDescriptors();
  t.after(() => descriptors.closeAll());
  const mine = descriptors.hold("one", { host: "127.0.0.1", port: 0 }, 0);
  const again = descriptors.hold("one", { host: "127.0.0.1", port: mine.port }, 0);
  assert.equal(again, mine);
  const rows: [claim: string, owner: string, host: string, port: number, code: string][] = [
    ["another child's", "two", "127.0.0.1", mine.port, "EADDRINUSE"],
    ["another child's, spelled otherwise", "two", "::ffff:127.0.0.1", mine.port, "EADDRINUSE"],
    ["a name", "two", "localhost", 0, "EINVAL"],
    ["nothing", "two", "", 0, "EINVAL"],
    ["every address in one letter", "two", "0", 0, "EINVAL"],
    ["a port that is none", "two", "127.0.0.1", 65_536, "EINVAL"],
    ["half a port", "two", "127.0.0.1", 1.5, "EINVAL"],
  ];
  for (const [claim, owner, host, port, code] of rows)
    assert.throws(
      () => descriptors.hold(owner, { host, port }, 0),
      (cause) => cause instanceof ListenFailed && cause.code === code,
      claim,
    );
  descriptors.release("two", mine);
  assert.throws(() => descriptors.hold("two", mine, 0), ListenFailed, "nor released for another");
});
