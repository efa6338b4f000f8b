/** What `sallyport init` asks for. */
export type FirstRegister = {
  readonly trustDomain: string;
  readonly owner: string;
  /** In order. Without an upstream a service only calls. */
  readonly services: readonly { readonly name: string; readonly upstream?: string }[];
  readonly allow: readonly { readonly caller: string; readonly service: string }[];
};

/** The text of a first register: small, commented, and without a key that is only there for show. */
export function writeFirstRegister(first: FirstRegister): string {
  const services = first.services.map(({ name, upstream }) => {
    const head = `  ${scalar(name)}:\n    owner: ${scalar(first.owner)}\n`;
    if (upstream === undefined) return `${head}    # calls others, offers nothing\n`;
    const rules = first.allow
      .filter(({ service }) => service === name)
      .map(({ caller }) => {
        // The longest names leave no room for both in an id.
        const id = `${caller}-calls-${name}`.slice(0, 63).replace(/-+$/, "");
        return `      - { id: ${scalar(id)}, from: ${scalar(caller)} }\n`;
      });
    const allow =
      rules.length > 0
        ? `    allow:\n${rules.join("")}`
        : `    # nobody may call it yet; allow: [{ id: web-calls, from: web }]\n`;
    return `${head}    protocol: http\n    upstreams: [${JSON.stringify(upstream)}]\n${allow}`;
  });
  return `# The register: every internal port, who owns it, what stands behind it, and who may reach it.
# "sallyport check" says what is wrong with it; docs/register.md explains every key.
version: 1
trustDomain: ${scalar(first.trustDomain)}

# Sallyport's own doors. Loopback is where they start; give them a network when there is more than one machine.
planes:
  control: { bind: "127.0.0.1:7440" }   # administrators and automation
  ops:     { bind: "127.0.0.1:7441" }   # health and metrics
  join:    { bind: "127.0.0.1:7442" }   # enrol, renew
  data:    { bind: "127.0.0.1:7443" }   # services call through this one

# What is not allowed here is refused.
services:
${services.join("\n")}`;
}

/** Plain where every YAML reader takes it for the same text, else in quotes. */
function scalar(text: string): string {
  const isPlain = /^[a-z][a-z0-9.-]*[a-z0-9]$/.test(text) || /^[a-z]$/.test(text);
  const isWord = /^(null|true|false|yes|no|on|off|y|n)$/.test(text);
  return isPlain && !isWord ? text : JSON.stringify(text);
}
