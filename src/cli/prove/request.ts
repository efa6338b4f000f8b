/** A request as bytes, exactly as given: attempts need what no HTTP library would send. */
export function request(
  method: string,
  target: string,
  host: string,
  more: { readonly fields?: readonly string[]; readonly body?: string; readonly canary: string },
): string {
  const fields = [`Host: ${host}`, `Sallyport-Canary: ${more.canary}`, ...(more.fields ?? [])];
  return `${method} ${target} HTTP/1.1\r\n${fields.join("\r\n")}\r\n\r\n${more.body ?? ""}`;
}
