import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  type AddressClass,
  cidrContains,
  cidrCovers,
  cidrMayBePublic,
  classifyAddress,
  compileCidrs,
  formatCidr,
  formatHostPort,
  parseAddress,
  parseCidr,
  splitHostPort,
  suggestCidr,
} from "./address.ts";

const classes: readonly (readonly [claim: string, text: string, class_: AddressClass])[] = [
  ["an empty host listens everywhere", "", "wildcard"],
  ["blanks too", "  ", "wildcard"],
  ["a star is everywhere", "*", "wildcard"],
  ["inet_aton reads 0 as everywhere", "0", "wildcard"],
  ["and 0.0", "0.0", "wildcard"],
  ["and hexadecimal", "0x0.0", "wildcard"],
  ["and octal", "00.00.00.00", "wildcard"],
  ["and mixtures", "0X0.0.00.0x00", "wildcard"],
  ["the plain one", "0.0.0.0", "wildcard"],
  ["mapped", "::ffff:0.0.0.0", "wildcard"],
  ["mapped in hexadecimal", "::ffff:0:0", "wildcard"],
  ["IPv6", "::", "wildcard"],
  ["IPv6 with a zero", "::0", "wildcard"],
  ["IPv6 in full", "0:0:0:0:0:0:0:0", "wildcard"],
  ["IPv6 in brackets", "[::]", "wildcard"],
  ["IPv6 with a zone", "::%lo", "wildcard"],
  ["IPv6 ending in dots", "::0.0.0.0", "wildcard"],
  ["an octal spelling is no address", "0127.1", "reserved"],
  ["nor this one, that some read as 8.0.0.1", "010.0.0.1", "reserved"],
  ["nor a short one", "127.1", "reserved"],
  ["nor a number", "2130706433", "reserved"],
  ["nor hexadecimal", "0x7f.0.0.1", "reserved"],
  ["nor one with a blank", "127.0.0.1 ", "reserved"],
  ["nor a name", "localhost", "reserved"],
  ["nor a range", "10.0.0.0/8", "reserved"],
  ["nor five parts", "10.0.0.0.1", "reserved"],
  ["loopback is a whole /8", "127.200.3.4", "loopback"],
  ["loopback mapped", "::ffff:127.0.0.1", "loopback"],
  ["loopback mapped in hexadecimal", "::ffff:7f00:1", "loopback"],
  ["loopback of IPv6", "::1", "loopback"],
  ["the address beside it is not", "::2", "reserved"],
  ["private /8", "10.255.255.255", "private"],
  ["private /12 begins", "172.16.0.0", "private"],
  ["private /12 ends", "172.31.255.255", "private"],
  ["one below it is public", "172.15.255.255", "public"],
  ["one above it is public", "172.32.0.0", "public"],
  ["private /16", "192.168.1.1", "private"],
  ["private mapped", "::ffff:10.0.0.1", "private"],
  ["unique local", "fd00:20::1", "private"],
  ["unique local, the other half", "fc00::1", "private"],
  ["shared begins", "100.64.0.0", "shared"],
  ["shared ends", "100.127.255.255", "shared"],
  ["below shared", "100.63.255.255", "public"],
  ["above shared", "100.128.0.0", "public"],
  ["link-local", "169.254.1.1", "link-local"],
  ["link-local of IPv6", "fe80::1", "link-local"],
  ["link-local with a zone", "fe80::1%eth0", "link-local"],
  ["link-local is a /10", "febf::1", "link-local"],
  ["site-local is gone", "fec0::1", "reserved"],
  ["metadata", "169.254.169.254", "metadata"],
  ["metadata mapped", "::ffff:169.254.169.254", "metadata"],
  ["metadata mapped in hexadecimal", "::ffff:a9fe:a9fe", "metadata"],
  ["metadata by NAT64", "64:ff9b::a9fe:a9fe", "metadata"],
  ["metadata by NAT64 of one's own", "64:ff9b:1::a9fe:a9fe", "metadata"],
  ["metadata by 6to4", "2002:a9fe:a9fe::1", "metadata"],
  ["metadata by Teredo", "2001:0:1:2:3:4:5601:5601", "metadata"],
  ["metadata, compatible", "::169.254.169.254", "metadata"],
  ["metadata in unique local space", "fd00:ec2::254", "metadata"],
  ["metadata in shared space", "100.100.100.200", "metadata"],
  ["metadata in public space", "168.63.129.16", "metadata"],
  ["loopback by NAT64 is nobody's loopback", "64:ff9b::7f00:1", "reserved"],
  ["private by 6to4 is not private", "2002:a00:1::1", "reserved"],
  ["loopback, compatible, is not loopback", "::127.0.0.1", "reserved"],
  ["private by Teredo is not private", "2001:0:1:2:3:4:f5ff:fffe", "reserved"],
  ["public by NAT64", "64:ff9b::808:808", "public"],
  ["public by 6to4", "2002:808:808::1", "public"],
  ["public", "8.8.8.8", "public"],
  ["public mapped", "::ffff:8.8.8.8", "public"],
  ["public IPv6", "2606:4700::1111", "public"],
  ["multicast", "224.0.0.1", "multicast"],
  ["multicast mapped", "::ffff:239.1.1.1", "multicast"],
  ["multicast of IPv6", "ff02::1", "multicast"],
  ["broadcast", "255.255.255.255", "reserved"],
  ["the rest of 0/8", "0.0.0.1", "reserved"],
  ["documentation", "203.0.113.9", "reserved"],
  ["documentation of IPv6", "2001:db8::1", "reserved"],
  ["never handed out", "4000::1", "reserved"],
];

for (const [claim, text, expected] of classes) {
  test(`${claim}: ${JSON.stringify(text)} is ${expected}`, () => {
    assert.equal(classifyAddress(text), expected);
  });
}

const spellings: readonly (readonly [text: string, canonical: string | undefined])[] = [
  ["127.0.0.1", "127.0.0.1"],
  ["::ffff:127.0.0.1", "127.0.0.1"],
  ["::FFFF:7f00:1", "127.0.0.1"],
  ["0:0:0:0:0:ffff:10.0.0.1", "10.0.0.1"],
  ["FD00:0020::0001", "fd00:20::1"],
  ["1:0:0:2:0:0:0:3", "1:0:0:2::3"],
  ["1:0:0:2:3:0:0:4", "1::2:3:0:0:4"],
  ["1:2:3:4:5:6:0:8", "1:2:3:4:5:6:0:8"],
  ["0:0:0:0:0:0:0:1", "::1"],
  ["1::", "1::"],
  ["64:ff9b::10.0.0.1", "64:ff9b::a00:1"],
  ["fe80::1%eth0.5", "fe80::1%eth0.5"],
  ["fe80::1%", undefined],
  ["fe80::1%a b", undefined],
  ["::ffff:1.2.3.4%eth0", undefined],
  ["[::1]", undefined],
  ["::1/128", undefined],
  ["1.2.3", undefined],
  ["1.2.3.256", undefined],
  ["1.2.3.04", undefined],
  ["1:2:3:4:5:6:7:8:9", undefined],
  [":::", undefined],
  ["", undefined],
];

for (const [text, canonical] of spellings) {
  test(`${JSON.stringify(text)} is ${canonical ?? "no address"}`, () => {
    assert.equal(parseAddress(text)?.text, canonical);
  });
}

test("the canonical spelling reads back as the same bytes", () => {
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (text) => {
      const first = parseAddress(text);
      assert.ok(first, text);
      const again = parseAddress(first.text);
      assert.deepEqual(again, first);
      assert.equal(classifyAddress(first.text), classifyAddress(text));
    }),
  );
});

test("no text makes the reader throw", () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 60 }), (text) => {
      classifyAddress(text);
      parseCidr(text);
      splitHostPort(text);
    }),
  );
});

const ranges: readonly (readonly [text: string, canonical: string | undefined])[] = [
  ["10.0.0.0/8", "10.0.0.0/8"],
  ["10.20.0.1", "10.20.0.1/32"],
  ["fd00:20::/48", "fd00:20::/48"],
  ["FD00:0020:0::/48", "fd00:20::/48"],
  ["::/0", "::/0"],
  ["0.0.0.0/0", "0.0.0.0/0"],
  ["::ffff:10.0.0.0/104", "10.0.0.0/8"],
  ["::ffff:0:0/96", "0.0.0.0/0"],
  ["::ffff:0:0/95", undefined],
  ["10.20.3.4/16", undefined],
  ["10.0.0.0/33", undefined],
  ["10.0.0.0/08", undefined],
  ["10.0.0.0/", undefined],
  ["10.0.0.0/-1", undefined],
  ["10.0.0/8", undefined],
  ["fe80::%eth0/10", undefined],
  ["fd00::1/64", undefined],
  ["/8", undefined],
  ["mesh", undefined],
];

for (const [text, canonical] of ranges) {
  test(`${JSON.stringify(text)} is ${canonical ?? "no range"}`, () => {
    const cidr = parseCidr(text);
    assert.equal(cidr && formatCidr(cidr), canonical);
  });
}

test("a range with host bits gets a suggestion", () => {
  assert.equal(suggestCidr("10.20.3.4/16"), "10.20.0.0/16");
  assert.equal(suggestCidr("fd00:20::9/48"), "fd00:20::/48");
  assert.equal(suggestCidr("mesh"), undefined);
});

const members: readonly (readonly [range: string, ip: string, inside: boolean])[] = [
  ["10.20.0.0/16", "10.20.255.255", true],
  ["10.20.0.0/16", "::ffff:10.20.0.1", true],
  ["10.20.0.0/16", "10.21.0.0", false],
  ["10.20.0.0/16", "10.20.0.1 ", false],
  ["10.20.0.0/16", "010.20.0.1", false],
  ["10.20.0.0/16", "", false],
  ["10.20.0.0/15", "10.21.0.0", true],
  ["0.0.0.0/0", "::1", false],
  ["::/0", "10.0.0.1", false],
  ["::/0", "::ffff:10.0.0.1", false],
  ["fd00:20::/48", "fd00:20:0:1::1", true],
  ["fd00:20::/48", "fd00:20:1::", false],
  ["fe80::/10", "fe80::1%eth0", true],
  ["127.0.0.1/32", "127.0.0.2", false],
];

for (const [range, ip, inside] of members) {
  test(`${JSON.stringify(ip)} is ${inside ? "in" : "not in"} ${range}`, () => {
    const cidr = parseCidr(range);
    assert.ok(cidr);
    assert.equal(cidrContains(cidr, ip), inside);
    assert.equal(compileCidrs([range])(ip), inside);
  });
}

test("the compiled list agrees with asking each range", () => {
  const texts = ["10.0.0.0/9", "192.168.4.0/22", "fd00::/10", "2001:db8:4::/47", "8.8.8.8/32"];
  const compiled = compileCidrs(texts);
  const list = texts.map((text) => parseCidr(text)).filter((cidr) => cidr !== undefined);
  assert.equal(list.length, texts.length);
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (ip) => {
      assert.equal(
        compiled(ip),
        list.some((cidr) => cidrContains(cidr, ip)),
      );
    }),
  );
});

test("an empty list holds nobody, and a list with a mistake in it is not compiled", () => {
  assert.equal(compileCidrs([])("127.0.0.1"), false);
  assert.throws(() => compileCidrs(["10.0.0.0/8", "mesh"]), TypeError);
});

test("one range covers another only in its own family", () => {
  const cidr = (text: string) => {
    const parsed = parseCidr(text);
    assert.ok(parsed);
    return parsed;
  };
  assert.ok(cidrCovers(cidr("10.0.0.0/8"), cidr("10.9.0.0/16")));
  assert.ok(!cidrCovers(cidr("10.9.0.0/16"), cidr("10.0.0.0/8")));
  assert.ok(!cidrCovers(cidr("::/0"), cidr("10.0.0.0/8")));
});

for (const [range, open] of [
  ["10.0.0.0/8", false],
  ["10.20.0.0/16", false],
  ["100.64.0.0/10", false],
  ["fd00::/8", false],
  ["fe80::/10", false],
  ["10.0.0.0/7", true],
  ["192.168.0.0/15", true],
  ["0.0.0.0/0", true],
  ["8.8.8.8/32", true],
  ["64:ff9b::/96", true],
  ["2000::/16", true],
  ["::/0", true],
] as const) {
  test(`${range} ${open ? "may hold" : "holds no"} public addresses`, () => {
    const cidr = parseCidr(range);
    assert.ok(cidr);
    assert.equal(cidrMayBePublic(cidr), open);
  });
}

const hostPorts: readonly (readonly [text: string, host?: string, port?: number])[] = [
  ["127.0.0.1:7443", "127.0.0.1", 7443],
  ["mesh:0", "mesh", 0],
  ["[::1]:65535", "::1", 65_535],
  ["[fe80::1%eth0]:80", "fe80::1%eth0", 80],
  ["[::ffff:10.0.0.1]:80", "::ffff:10.0.0.1", 80],
  [":7443"],
  ["[]:7443"],
  ["[127.0.0.1]:80"],
  ["[::1]"],
  ["::1:80"],
  ["host"],
  ["host:"],
  ["host:65536"],
  ["host:080"],
  ["host:+80"],
  ["host:80 "],
  ["a b:80"],
  ["user@host:80"],
  ["host/path:80"],
  ["host:1:2"],
];

for (const [text, host, port] of hostPorts) {
  test(`${JSON.stringify(text)} is ${host === undefined ? "no host and port" : `${host} and ${port}`}`, () => {
    const parsed = splitHostPort(text);
    assert.deepEqual(parsed, host === undefined ? undefined : { host, port });
    if (parsed) assert.equal(formatHostPort(parsed.host, parsed.port), text);
  });
}
