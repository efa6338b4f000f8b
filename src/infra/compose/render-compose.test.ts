import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parse } from "yaml";
import { parseRegister } from "../../model/register/parse.ts";
import { renderCompose } from "./render-compose.ts";

const small = `
version: 1
trustDomain: shop.internal
networks:
  mesh: ["10.20.0.0/16", "fd00:20::/48"]
  operators: ["10.30.0.0/24"]
planes:
  control: { bind: "operators:7440" }
  join: { bind: "mesh:7442" }
  data: { bind: "mesh:7443", from: [mesh] }
services:
  web:
    owner: storefront
    ports:
      site: { protocol: http, port: 8080, via: direct, exposure: public }
  orders:
    owner: commerce
    ports:
      http: { protocol: http, upstreams: ["orders:9001"], plaintext: { why: a network of their own, expires: 2099-01-01 } }
      metrics: { protocol: http, port: 9100, via: direct, exposure: operators }
    allow:
      - { id: web-reads, from: web, methods: [GET] }
  idle: { owner: nobody }
`;

type Service = Readonly<Record<string, unknown>> & {
  readonly networks?: readonly string[];
  readonly ports?: readonly Readonly<Record<string, unknown>>[];
};
type Document = {
  readonly services: Readonly<Record<string, Service>>;
  readonly networks: Readonly<
    Record<
      string,
      {
        readonly internal: boolean;
        readonly ipam?: { readonly config: readonly { subnet: string }[] };
      }
    >
  >;
};

function render(text: string, files = ["./sallyport.yaml"]) {
  const { register, problems } = parseRegister([{ name: "sallyport.yaml", text }]);
  assert.ok(register, problems.map((problem) => problem.message).join("\n"));
  const rendered = renderCompose(register, { files });
  return { ...rendered, document: parse(rendered.text ?? "{}") as Document };
}

test("only public ports are published, each on one address that must be named", () => {
  const { document, problems } = render(small);
  assert.deepEqual(problems, []);
  const publishing = Object.entries(document.services).filter(([, service]) => service.ports);
  assert.deepEqual(
    publishing.map(([name]) => name),
    ["web"],
  );
  const [port, ...others] = document.services.web?.ports ?? [];
  assert.deepEqual(others, []);
  assert.equal(port?.target, 8080);
  assert.match(String(port?.host_ip), /^\$\{PUBLIC_ADDRESS:\?/);
  for (const service of Object.values(document.services)) assert.ok(!("expose" in service));
});

test("every container is confined", () => {
  for (const [name, service] of Object.entries(render(small).document.services)) {
    assert.equal(service.read_only, true, name);
    assert.deepEqual(service.cap_drop, ["ALL"], name);
    assert.deepEqual(service.security_opt, ["no-new-privileges:true"], name);
    assert.match(String(service.image), /^\$\{[A-Z_]+_IMAGE:\?/, name);
    for (const key of ["privileged", "pid", "ipc", "cap_add", "devices"])
      assert.ok(!(key in service), `${name} has ${key}`);
    assert.notEqual(service.network_mode, "host", name);
  }
});

test("control and gate meet on the join network alone", () => {
  const { services } = render(small).document;
  const control = services["sallyport-control"]?.networks ?? [];
  const gate = services["sallyport-gate"]?.networks ?? [];
  assert.deepEqual(
    control.filter((name) => gate.includes(name)),
    ["sallyport-join"],
  );
  assert.deepEqual(control, ["sallyport-control", "sallyport-join"]);
});

test("no two services share a network that the register does not open, and one that does nothing has none", () => {
  const { services, networks } = render(small).document;
  assert.deepEqual(services.orders?.networks, ["exposed-operators", "gate-orders"]);
  assert.deepEqual(services.web?.networks, ["gate-web", "public"]);
  assert.equal(services.idle?.network_mode, "none");
  for (const name of Object.keys(networks).filter((one) => one.startsWith("gate-"))) {
    const on = Object.entries(services).filter(([, one]) => one.networks?.includes(name));
    assert.deepEqual(on.map(([one]) => one).sort(), [name.slice(5), "sallyport-gate"].sort());
  }
});

test("what must lie in a network of the register has a part of it, and no two parts overlap", () => {
  const { networks } = render(small).document;
  const subnets = Object.entries(networks).map(([name, network]) => [
    name,
    network.ipam?.config.map((one) => one.subnet) ?? [],
  ]);
  assert.deepEqual(Object.fromEntries(subnets), {
    "exposed-operators": ["10.30.0.0/25"],
    "gate-orders": [],
    "gate-web": ["10.20.0.0/24", "fd00:20::/64"],
    public: [],
    "sallyport-control": ["10.30.0.128/25"],
    "sallyport-join": ["10.20.1.0/24", "fd00:20:0:1::/64"],
  });
});

test("a network that cannot be shared out is an error", () => {
  const { text, problems } = render(small.replace("10.30.0.0/24", "10.30.0.0/29"));
  assert.equal(text, undefined);
  assert.match(problems[0]?.message ?? "", /operators is too small for the 2/);
});

test("every network but the public one is internal", () => {
  for (const [name, network] of Object.entries(render(small).document.networks))
    assert.equal(network.internal, name !== "public", name);
});

test("a gated public port publishes the gate's door, and nothing of the service", () => {
  const gated = small.replace(
    "http: { protocol: http, ups",
    "http: { protocol: http, exposure: public, ups",
  );
  const { services } = render(gated).document;
  assert.deepEqual(
    services["sallyport-gate"]?.ports?.map((port) => port.target),
    [7443],
  );
  assert.ok(!services.orders?.ports);
  assert.ok(services["sallyport-gate"]?.networks?.includes("public"));
});

test("keys and tokens come as files and volumes, never as variables", () => {
  const { text = "", document } = render(small);
  assert.doesNotMatch(text, /environment|env_file/);
  for (const service of Object.values(document.services)) assert.ok(!("environment" in service));
});

test("the same register gives the same bytes, whatever the order of its networks", () => {
  assert.equal(render(small).text, render(small).text);
  const turned = small.replace(/( {2}mesh: .*\n)( {2}operators: .*\n)/, "$2$1");
  assert.notEqual(turned, small);
  assert.equal(render(turned).text, render(small).text);
});

test("files of sallyport.d are mounted where control looks for them", () => {
  const { document } = render(small, ["./sallyport.yaml", "./sallyport.d/orders.yaml"]);
  assert.deepEqual(document.services["sallyport-control"]?.configs, [
    { source: "register", target: "/register/sallyport.yaml" },
    { source: "register-1", target: "/register/sallyport.d/orders.yaml" },
  ]);
});

const warned: readonly (readonly [claim: string, from: RegExp, to: string, code: string])[] = [
  ["a loopback door", /"mesh:7442"/, '"127.0.0.1:7442"', "compose-bind"],
  ["a loopback upstream", /"orders:9001"/, '"127.0.0.1:9001"', "compose-upstream"],
  ["an upstream called localhost", /"orders:9001"/, '"localhost:9001"', "compose-upstream"],
  ["a socket as upstream", /"orders:9001"/, '"unix:/run/orders.sock"', "compose-upstream"],
  ["two ranges of one family", /"fd00:20::\/48"/, '"10.21.0.0/16"', "compose-network"],
];

for (const [claim, from, to, code] of warned) {
  test(`${claim} gets a warning and a file all the same`, () => {
    const { problems, text } = render(small.replace(from, to));
    assert.deepEqual(
      problems.map((problem) => [problem.code, problem.severity]),
      [[code, "warning"]],
    );
    assert.ok(text);
  });
}

test("a service that takes one of our names is refused", () => {
  for (const name of ["sallyport-gate", "sallyport", "web-identity"]) {
    const { problems, text } = render(small.replace("  idle:", `  ${name}:`));
    assert.equal(text, undefined);
    assert.equal(problems[0]?.code, "compose-name");
  }
});

const schemaFile = join(
  process.env.CORPORA ?? "../shared/corpora",
  "compose-spec",
  "compose-spec.json",
);

test("the file is valid by the Compose Specification's own schema", {
  skip: !existsSync(schemaFile) && !process.env.CI && "CORPORA does not lead to the schema",
}, () => {
  const schema = JSON.parse(readFileSync(schemaFile, "utf8")) as Schema;
  assert.deepEqual(mistakes(schema, schema, render(small).document, ""), []);
  // The judge must be able to say no.
  for (const bad of [
    { services: { web: { imagee: "x" } } },
    { services: { web: { image: 1 } } },
    { services: { web: { ports: [{ target: {} }] } } },
    { networks: { mesh: { internal: [] } } },
  ])
    assert.notDeepEqual(mistakes(schema, schema, bad, ""), [], JSON.stringify(bad));
});

type Schema = {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly pattern?: string;
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly patternProperties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: boolean | Schema;
  readonly items?: Schema;
  readonly uniqueItems?: boolean;
  readonly oneOf?: readonly Schema[];
  readonly anyOf?: readonly Schema[];
  readonly allOf?: readonly Schema[];
};

/** As much of JSON Schema draft 7 as that schema uses. */
function mistakes(root: Schema, schema: Schema, value: unknown, path: string): string[] {
  if (schema.$ref) {
    const target = schema.$ref
      .slice(2)
      .split("/")
      .reduce<unknown>((at, key) => (at as Record<string, unknown>)?.[key], root);
    assert.ok(target, schema.$ref);
    return mistakes(root, target as Schema, value, path);
  }
  const found: string[] = [];
  const types = schema.type === undefined ? undefined : [schema.type].flat();
  if (types && !types.some((type) => isOf(type, value)))
    return [`${path}: not ${types.join(" or ")}`];
  if (schema.enum && !schema.enum.includes(value)) found.push(`${path}: not one of ${schema.enum}`);
  if (schema.pattern && typeof value === "string" && !new RegExp(schema.pattern).test(value))
    found.push(`${path}: not like ${schema.pattern}`);
  const fits = (one: Schema): boolean => mistakes(root, one, value, path).length === 0;
  if (schema.oneOf && schema.oneOf.filter(fits).length !== 1)
    found.push(`${path}: fits ${schema.oneOf.filter(fits).length} of its alternatives`);
  if (schema.anyOf && !schema.anyOf.some(fits)) found.push(`${path}: fits no alternative`);
  for (const one of schema.allOf ?? []) found.push(...mistakes(root, one, value, path));
  if (Array.isArray(value)) {
    if (
      schema.uniqueItems &&
      new Set(value.map((item) => JSON.stringify(item))).size < value.length
    )
      found.push(`${path}: says something twice`);
    for (const [i, item] of value.entries())
      if (schema.items) found.push(...mistakes(root, schema.items, item, `${path}[${i}]`));
  } else if (typeof value === "object" && value !== null) {
    for (const key of schema.required ?? [])
      if (!Object.hasOwn(value, key)) found.push(`${path}: ${key} is missing`);
    for (const [key, item] of Object.entries(value)) {
      const fitting = [
        ...(schema.properties?.[key] ? [schema.properties[key]] : []),
        ...Object.entries(schema.patternProperties ?? {}).flatMap(([pattern, one]) =>
          new RegExp(pattern).test(key) ? [one] : [],
        ),
      ];
      for (const one of fitting) found.push(...mistakes(root, one, item, `${path}.${key}`));
      if (fitting.length > 0) continue;
      if (schema.additionalProperties === false) found.push(`${path}.${key}: unknown`);
      else if (typeof schema.additionalProperties === "object")
        found.push(...mistakes(root, schema.additionalProperties, item, `${path}.${key}`));
    }
  }
  return found;
}

function isOf(type: string, value: unknown): boolean {
  if (type === "null") return value === null;
  if (type === "array") return Array.isArray(value);
  if (type === "integer") return Number.isInteger(value);
  if (type === "object")
    return typeof value === "object" && value !== null && !Array.isArray(value);
  return typeof value === type;
}
