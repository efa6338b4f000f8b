import { z } from "@hono/zod-openapi";
import { parseCidr } from "../../base/address.ts";
import { type Role, type TokenRecord, tokenLifeMs } from "../../model/issued.ts";
import {
  type PrincipalKind,
  parsePrincipal,
  principalOf,
  shortName,
} from "../../model/principal.ts";
import { ControlRefusal } from "../refusals.ts";
import { type ApiWorld, addOperation, type Call, type ControlApp } from "./operation.ts";
import { nameShape, tokenShape } from "./shapes.ts";

const idSays = "the id of a token is 16 lower-case hex digits or more, as GET /v1/tokens shows it";
const ttlSays = "whole milliseconds, from 60000 (1m) to 86400000 (24h)";
const fromSays = "a range of addresses, as in 10.20.0.0/16, with no bits behind its prefix";

const common = {
  ttlMs: z
    .number(ttlSays)
    .int(ttlSays)
    .min(tokenLifeMs.min, ttlSays)
    .max(tokenLifeMs.max, ttlSays)
    .optional()
    .describe("Default 10 minutes"),
  from: z
    .array(z.string().refine((text) => parseCidr(text) !== undefined, fromSays))
    .max(64)
    .optional()
    .describe("CIDRs the enrolment must come from"),
};

const requestShape = z
  .union(
    [
      z.strictObject({ service: nameShape, ...common }),
      z.strictObject({ gate: nameShape, ...common }),
      z.strictObject({
        role: z.enum(["admin", "deployer", "enroller", "auditor"]),
        name: nameShape,
        owners: z.array(z.string().min(1).max(128)).max(256).optional().describe("For `deployer`"),
        services: z
          .array(z.union([nameShape, z.literal("*")]))
          .max(256)
          .optional()
          .describe("For `enroller`: services it may make tokens for; `*` is every one"),
        ...common,
      }),
    ],
    "a token is for one: service, gate, or role with name",
  )
  .openapi("TokenRequest");

type TokenRequest = z.output<typeof requestShape>;

/** Automation holds the two roles that scripts need; people hold the others under their own names. */
const kindOf: Readonly<Record<Role, PrincipalKind>> = {
  admin: "admin",
  deployer: "automation",
  enroller: "automation",
  auditor: "auditor",
};

/** Single-use rights to enrol. The secret is in the answer of `POST` and nowhere else. */
export function addTokens(app: ControlApp, world: ApiWorld): void {
  const { needs, store } = world;
  addOperation(
    app,
    "GET /v1/tokens",
    {
      summary: "Tokens that have not expired, without their secrets",
      answer: z.object({ tokens: z.array(tokenShape) }),
    },
    async (_, call) => {
      const all = (await store.tokens(needs.clock())).map(tokenOf);
      return { tokens: all.filter((token) => maySee(call, token.principal)) };
    },
  );
  addOperation(
    app,
    "POST /v1/tokens",
    {
      summary: "Makes a token for a service, a gate, or somebody with a role",
      description: "An enroller makes tokens for its services only.",
      body: requestShape,
      answer: z.object({ token: z.string().describe("Shown once"), record: tokenShape }),
    },
    async ({ body }, call) => {
      const principal = principalFor(body, world);
      const short = shortName(partsOf(principal));
      call.detail = short;
      if (!maySee(call, short))
        throw new ControlRefusal("not_yours", `${call.name} may not make tokens for ${short}`, {
          hint: `it may for ${call.record.services.join(", ") || "nobody"}; an admin can for everybody`,
        });
      if ("service" in body && !(await store.isRegistered(principal)))
        throw new ControlRefusal("not_found", `the register has no service "${body.service}"`, {
          hint: "add it to sallyport.yaml (a service that only calls needs just an owner) and apply",
        });
      const role = "role" in body ? body.role : undefined;
      await admit(body, principal, call);
      const { token, record } = await needs.createToken({
        principal,
        createdBy: call.name,
        ...(role && { role }),
        ...(body.from && { from: body.from }),
        ...(body.ttlMs !== undefined && { ttlMs: body.ttlMs }),
      });
      return { token, record: tokenOf(record) };
    },
  );
  addOperation(
    app,
    "DELETE /v1/tokens/{id}",
    {
      summary: "Makes a token void",
      params: z.object({ id: z.string().regex(/^[0-9a-f]{16,64}$/, idSays) }),
      answer: z.object({ deleted: z.number() }),
    },
    async ({ params }, call) => {
      const known = (await store.tokens(0)).find((token) => token.hash.startsWith(params.id));
      if (known) call.detail = tokenOf(known).principal;
      if (!known || !maySee(call, tokenOf(known).principal))
        throw new ControlRefusal("not_found", `there is no token ${params.id}`, {
          hint: "sallyport token list shows them",
        });
      return { deleted: await store.deleteToken(known.hash) };
    },
  );

  /** Registers gates and operators with the token that invites them. Services stand in the register instead. */
  async function admit(
    body: TokenRequest,
    principal: ReturnType<typeof principalFor>,
    call: Call,
  ): Promise<void> {
    if ("service" in body) return;
    const role = "role" in body ? body.role : undefined;
    const known = await store.findPrincipal(principal);
    const stands = known !== undefined && known.removedMs === undefined;
    // Making a token for a name that stands must not change what those who hold the name may do.
    if (stands && known.role !== role)
      throw new ControlRefusal(
        "refused_step",
        `${shortName(partsOf(principal))} is ${known.role}`,
        {
          hint: "take another name, or revoke it first",
        },
      );
    await store.savePrincipal({
      principal,
      ...(role && { role }),
      owners: ("owners" in body ? body.owners : undefined) ?? (stands ? known.owners : []),
      services: ("services" in body ? body.services : undefined) ?? (stands ? known.services : []),
      createdBy: stands ? known.createdBy : call.name,
      createdMs: stands ? known.createdMs : needs.clock(),
    });
  }

  function principalFor(body: TokenRequest, { registry: { current } }: ApiWorld) {
    const trustDomain = current()?.snapshot.register.trustDomain;
    if (!trustDomain) throw new ControlRefusal("no_register");
    if ("service" in body) return principalOf({ trustDomain, kind: "service", name: body.service });
    if ("gate" in body) return principalOf({ trustDomain, kind: "gate", name: body.gate });
    return principalOf({ trustDomain, kind: kindOf[body.role], name: body.name });
  }

  /** Fails closed: an enroller deals with the services it was made for, and only with services. */
  function maySee(call: Call, principal: string): boolean {
    if (call.record.role !== "enroller") return true;
    const [kind, name = ""] = principal.split("/");
    const { services } = call.record;
    return kind === "service" && (services.includes("*") || services.includes(name));
  }

  function tokenOf(record: TokenRecord): z.input<typeof tokenShape> {
    return {
      id: record.hash.slice(0, 16),
      principal: shortName(partsOf(record.principal)),
      ...(record.role && { role: record.role }),
      createdBy: record.createdBy,
      createdMs: record.createdMs,
      expiresMs: record.expiresMs,
      from: [...record.from],
      ...(record.spentMs !== undefined && { spentMs: record.spentMs }),
    };
  }

  function partsOf(principal: string) {
    const parts = parsePrincipal(principal);
    if (!parts) throw new Error("the store holds a principal that is none");
    return parts;
  }
}
