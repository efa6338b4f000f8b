/**
 * The address without its port. IPv6 by its /64: whoever has one address has the other 2^64 too. A mapped IPv4 address is the
 * IPv4 address.
 */
export function sourceOf(peer: string | undefined): string {
  if (peer === undefined) return "unknown";
  const colon = peer.lastIndexOf(":");
  if (!peer.startsWith("[")) return colon < 0 ? peer : peer.slice(0, colon);
  const address = peer.slice(1, peer.indexOf("]"));
  if (address.includes(".")) return address.slice(address.lastIndexOf(":") + 1);
  const [left = "", right] = address.split("::");
  const groups = left === "" ? [] : left.split(":");
  const tail = right === undefined || right === "" ? [] : right.split(":");
  while (groups.length + tail.length < 8) groups.push("0");
  return `${[...groups, ...tail].slice(0, 4).join(":")}::/64`;
}
