import { isReading, type SampleCall } from "../policy/sample-call.ts";
import { plain } from "./output.ts";

/**
 * What somebody who has just enrolled can try: a curl line for the call that the join door says is allowed, else what stands in
 * the way; a line to fill in where the door said nothing (`told` undefined). `out` is the directory of the credentials,
 * `principal` a SPIFFE URI. Whatever the door says, nothing but words of its own kind gets into a line that is going to be pasted.
 */
export function firstCall(told: unknown, out: string, principal: string): string[] {
  if (told === undefined)
    return curlLines(out, "GATE:7443", { host: "SERVICE", method: "GET", path: "/" });
  const { gates, services, example } = Object(told) as Record<string, unknown>;
  const call = readExample(example);
  const [gate] = Array.isArray(gates) ? gates : [];
  const address = wordsOf(Object(gate).addresses).find((each) => addressForm.test(each));
  if (call && address) return curlLines(out, address, call);
  if (call) return ["no gate has said where it is yet: sallyport status"];
  const name = principal.slice(principal.lastIndexOf("/") + 1);
  const known = wordsOf(services).slice(0, 5).map(plain);
  if (known.length === 0)
    return [`no rule lets ${name} call anything yet: add one to the register`];
  return [
    `no rule lets ${name} make a plain HTTP call now; there are rules for it at ${known.join(", ")}`,
  ];
}

/** One word of a POSIX shell. */
export function quoted(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

const addressForm = /^(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):\d{1,5}$/;

function wordsOf(list: unknown): string[] {
  return Array.isArray(list) ? list.filter((each) => typeof each === "string") : [];
}

function readExample(example: unknown): SampleCall | undefined {
  const { host, method, path } = Object(example) as Record<string, unknown>;
  const isUsable =
    /^[a-z0-9][a-z0-9.-]{0,252}$/.test(`${host}`) &&
    /^[A-Z][A-Z-]{0,31}$/.test(`${method}`) &&
    /^\/[\w.~!$&'()+,;=:@%/-]{0,2000}$/.test(`${path}`);
  return isUsable ? { host: `${host}`, method: `${method}`, path: `${path}` } : undefined;
}

function curlLines(out: string, address: string, { host, method, path }: SampleCall): string[] {
  const port = address.slice(address.lastIndexOf(":") + 1);
  const how = method === "GET" ? "" : method === "HEAD" ? "--head " : `--request ${method} `;
  const file = (name: string) => quoted(`${out}/${name}.pem`);
  return [
    ...(isReading({ method }) ? [] : ["# no rule lets it read; this may change something:"]),
    `curl --cert ${file("chain")} --key ${file("key")} --cacert ${file("bundle")} \\`,
    `     --connect-to ${quoted(`${host}:${port}:${address}`)} ${how}${quoted(`https://${host}:${port}${path}`)}`,
  ];
}
