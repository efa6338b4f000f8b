import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { test } from "node:test";
import { type ConnectionOptions, connect } from "node:tls";
import { seeded } from "../../test/fuzz/random.ts";
import { readClientHello } from "./client-hello.ts";

/** The first flight of Node's own TLS client. */
async function firstFlight(options: ConnectionOptions): Promise<Buffer> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const client = connect({
    port: (server.address() as AddressInfo).port,
    host: "127.0.0.1",
    ...options,
  });
  client.on("error", () => undefined);
  const [socket] = await once(server, "connection");
  const [bytes] = await once(socket, "data");
  socket.destroy();
  client.destroy();
  server.close();
  await once(server, "close");
  return bytes;
}

const u8 = (number: number): Buffer => Buffer.from([number]);
const u16 = (number: number): Buffer => Buffer.from([number >> 8, number & 0xff]);
const vector8 = (...parts: Buffer[]): Buffer => {
  const whole = Buffer.concat(parts);
  return Buffer.concat([u8(whole.length), whole]);
};
const vector16 = (...parts: Buffer[]): Buffer => {
  const whole = Buffer.concat(parts);
  return Buffer.concat([u16(whole.length), whole]);
};
const extension = (type: number, ...content: Buffer[]): Buffer =>
  Buffer.concat([u16(type), vector16(...content)]);
const serverName = (name: string, type = 0): Buffer =>
  extension(0, vector16(u8(type), vector16(Buffer.from(name, "latin1"))));

/** A hello with these extensions; `undefined` leaves even their length out. */
function message(extensions: readonly Buffer[] | undefined, tail = Buffer.alloc(0)): Buffer {
  const body = Buffer.concat([
    u16(0x0303),
    Buffer.alloc(32, 7),
    vector8(Buffer.alloc(32)),
    vector16(u16(0x1301)),
    vector8(u8(0)),
    ...(extensions === undefined ? [] : [vector16(...extensions)]),
    tail,
  ]);
  return Buffer.concat([u8(1), u8(0), u16(body.length), body]);
}

/** The message in records of at most so many bytes. */
function records(text: Buffer, size = 16_384): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at < text.length; at += size)
    parts.push(u8(22), u16(0x0301), vector16(text.subarray(at, at + size)));
  return Buffer.concat(parts);
}

const full = message([
  serverName("Orders.Example"),
  extension(
    16,
    vector16(vector8(u16(0x0a0a)), vector8(Buffer.from("h2")), vector8(Buffer.from("http/1.1"))),
  ),
  extension(43, vector8(u16(0x2a2a), u16(0x0304), u16(0x0303), u16(0x7f1c))),
  extension(10, vector16(u16(0x1a1a), u16(4588), u16(29), u16(26))),
  extension(0x1234, Buffer.from("whatever")),
]);
const expected = {
  kind: "hello",
  sni: "orders.example",
  alpn: ["h2", "http/1.1"],
  versions: ["TLSv1.3", "TLSv1.2", "0x7f1c"],
  groups: ["X25519MLKEM768", "X25519", "0x001a"],
};

test("Node's hello is read", async () => {
  const bytes = await firstFlight({
    servername: "orders",
    ALPNProtocols: ["sallyport-tcp"],
    minVersion: "TLSv1.3",
    ecdhCurve: "X25519:P-256",
    rejectUnauthorized: false,
  });
  assert.deepEqual(readClientHello(bytes), {
    kind: "hello",
    sni: "orders",
    alpn: ["sallyport-tcp"],
    versions: ["TLSv1.3"],
    groups: ["X25519", "P-256"],
  });
});

test("a hello without name, protocols and groups is read", async () => {
  const bytes = await firstFlight({ rejectUnauthorized: false, minVersion: "TLSv1.2" });
  const hello = readClientHello(bytes);
  assert.ok(hello.kind === "hello");
  assert.equal("sni" in hello, false);
  assert.deepEqual(hello.versions, ["TLSv1.3", "TLSv1.2"]);
});

test("a hello is partial until its last byte, however many records it is in", () => {
  for (const size of [1, 3, 4, 50, 16_384]) {
    // Only the first are so small: a hello in very many records is refused.
    const bytes = Buffer.concat([
      records(full.subarray(0, 12), size),
      records(full.subarray(12), Math.max(size, 50)),
    ]);
    for (let length = 0; length < bytes.length; length += 1)
      assert.deepEqual(readClientHello(bytes.subarray(0, length)), { kind: "partial" });
    assert.deepEqual(readClientHello(bytes), expected);
    assert.deepEqual(readClientHello(Buffer.concat([bytes, Buffer.from("early data")])), expected);
  }
});

test("a hello before extensions names its version", () => {
  assert.deepEqual(readClientHello(records(message(undefined))), {
    kind: "hello",
    alpn: [],
    versions: ["TLSv1.2"],
    groups: [],
  });
});

for (const [claim, bytes, first] of [
  [
    "HTTP",
    Buffer.from("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "GET / HTTP/1.1\\x0d\\x0aHost: a\\x0d\\x0a\\x0d\\x0a",
  ],
  ["an SSLv2 hello", Buffer.from([0x80, 0x2e, 1]), "\\x80.\\x01"],
  ["a record of version 5", Buffer.from([22, 5]), "\\x16\\x05"],
  ["an alert", Buffer.from([21, 3, 1, 0, 2, 1, 0]), "\\x15\\x03\\x01\\x00\\x02\\x01\\x00"],
  ["a backslash", Buffer.from("\\x41"), "\\x5cx41"],
  ["a long text", Buffer.alloc(100, "a"), "a".repeat(64)],
] as const) {
  test(`${claim} is not TLS`, () =>
    assert.deepEqual(readClientHello(bytes), { kind: "not-tls", first }));
}

for (const [claim, bytes, why] of [
  ["an empty record", Buffer.from([22, 3, 1, 0, 0]), /empty record/],
  ["a record that is too long", Buffer.from([22, 3, 1, 0x40, 1]), /over 16384/],
  [
    "a record of another kind inside",
    Buffer.concat([records(full, 50).subarray(0, 55), Buffer.from([20])]),
    /another record/,
  ],
  [
    "a record of another version inside",
    Buffer.concat([records(full, 50).subarray(0, 55), Buffer.from([22, 4])]),
    /unknown version/,
  ],
  ["another handshake message", Buffer.from([22, 3, 1, 0, 1, 2]), /does not start with a hello/],
  ["a hello that is too long", Buffer.from([22, 3, 1, 0, 4, 1, 0, 0x40, 1]), /over 16384/],
  [
    "a flood of small records",
    records(Buffer.concat([Buffer.from([1, 0, 0x3f, 0]), Buffer.alloc(12_000)]), 1).subarray(
      0,
      16_384,
    ),
    /more than 64 records/,
  ],
  ["a hello cut short inside", records(Buffer.from([1, 0, 0, 2, 3, 3])), /beyond the end/],
  ["an extension twice", records(message([serverName("a"), serverName("a")])), /twice/],
  ["bytes behind the extensions", records(message([], Buffer.from("x"))), /behind the extensions/],
  ["an empty name", records(message([serverName("")])), /empty server name/],
  ["a name that is not visible", records(message([serverName("a\0b")])), /not visible/],
  ["a name with 8-bit octets", records(message([serverName("\xe4")])), /not visible/],
  ["a name of another type", records(message([serverName("a", 1)])), /not one host name/],
  [
    "two names",
    records(
      message([
        extension(
          0,
          vector16(u8(0), vector16(Buffer.from("a")), u8(0), vector16(Buffer.from("b"))),
        ),
      ]),
    ),
    /not one host name/,
  ],
  ["an empty protocol", records(message([extension(16, vector16(vector8()))])), /empty protocol/],
  [
    "bytes behind a list",
    records(message([extension(43, vector8(u16(0x0304)), u8(0))])),
    /behind the content/,
  ],
  ["an odd list", records(message([extension(10, vector16(u8(1)))])), /beyond the end/],
  [
    "no cipher suites",
    records(
      Buffer.concat([
        Buffer.from([1, 0, 0, 39, 3, 3]),
        Buffer.alloc(32),
        Buffer.from([0, 0, 0, 1, 0]),
      ]),
    ),
    /cipher/,
  ],
  [
    "no compression methods",
    records(
      Buffer.concat([
        Buffer.from([1, 0, 0, 40, 3, 3]),
        Buffer.alloc(32),
        Buffer.from([0, 0, 2, 0x13, 1, 0]),
      ]),
    ),
    /compression/,
  ],
] as const) {
  test(`${claim} is malformed`, () => {
    const read = readClientHello(bytes);
    assert.ok(read.kind === "malformed", JSON.stringify(read));
    assert.match(read.why, why);
  });
}

test("a verdict does not change with more bytes, and nothing is thrown", () => {
  const random = seeded(3);
  const good = records(full, 64);
  for (let round = 0; round < 3_000; round += 1) {
    const bytes = Buffer.from(good);
    for (let flips = Math.floor(random() * 4); flips >= 0; flips -= 1)
      bytes[Math.floor(random() * bytes.length)] = Math.floor(random() * 256);
    const whole = readClientHello(bytes).kind;
    const part = readClientHello(bytes.subarray(0, Math.floor(random() * bytes.length))).kind;
    assert.ok(part === "partial" || part === whole, `${part}, then ${whole}`);
  }
});

test("the cost of a hello does not grow with the number of its records", () => {
  const flood = records(Buffer.concat([Buffer.from([1, 0, 0x3f, 0]), Buffer.alloc(2_700)]), 1);
  const since = performance.now();
  for (let round = 0; round < 200; round += 1) readClientHello(flood);
  const took = performance.now() - since;
  assert.ok(took < 2_000, `200 looks at ${flood.length} bytes took ${took} ms`); // once 30 s
});
