import { type Cidr, formatCidr } from "../../base/address.ts";

/**
 * `count` ranges inside one that do not overlap, in order: /24 (IPv6: /64) where there is room, smaller where there is not.
 * Undefined when they would be smaller than a bridge, a gate and a service need: /29 (IPv6: /120).
 */
export function carve(range: Cidr, count: number): readonly string[] | undefined {
  const width = range.bytes.length * 8;
  const [usual, smallest] = range.family === 4 ? [24, 29] : [64, 120];
  const needed = range.prefix + Math.ceil(Math.log2(Math.max(1, count)));
  const prefix = Math.max(usual, needed);
  if (prefix > smallest) return undefined;
  const base = BigInt(`0x${Buffer.from(range.bytes).toString("hex")}`);
  return Array.from({ length: count }, (_, i) => {
    const first = base + (BigInt(i) << BigInt(width - prefix));
    const hex = first.toString(16).padStart(width / 4, "0");
    return formatCidr({ family: range.family, bytes: Buffer.from(hex, "hex"), prefix });
  });
}
