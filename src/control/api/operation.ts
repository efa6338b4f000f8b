import { createRoute, type OpenAPIHono, type z } from "@hono/zod-openapi";
import type { Context } from "hono";
import type { Role } from "../../model/issued.ts";
import type { Peer } from "../../policy/peer.ts";
import type { Needs } from "../needs.ts";
import { ControlRefusal } from "../refusals.ts";
import type { Registry } from "../registry/registry.ts";
import type { ControlStore, PrincipalRecord } from "../store/store.ts";
import { accessOf, type RouteName } from "./access.ts";
import { errorShape } from "./shapes.ts";

/** Where the nouns of the API find everything. */
export type ApiWorld = {
  readonly store: ControlStore;
  readonly registry: Registry;
  readonly needs: Needs;
  /** Things that a person should know about this installation: sentences for `status`. */
  readonly notes: () => readonly string[];
};

/** Who asks, and what is noted about the asking. One a request. */
export type Call = {
  /** `admin/first`. */
  readonly name: string;
  readonly record: PrincipalRecord & { readonly role: Role };
  /** Goes into the hit: names and versions, never a secret. */
  detail: string;
};

/** What the server hands to a request. */
export type ApiBindings = {
  /** `publicKey`: SHA-256 of the SPKI, base64url. */
  readonly peer: Peer & { readonly publicKey: string };
  /** `ip:port`. */
  readonly remote: string;
  readonly local: string;
};

export type ApiEnv = {
  Bindings: ApiBindings;
  Variables: {
    call?: Call;
    route?: RouteName;
    canRecord: () => boolean;
  };
};

export type ControlApp = OpenAPIHono<ApiEnv>;

type Shape = z.ZodType;
type Read<S> = S extends Shape ? z.output<S> : undefined;

export type Operation<P, Q, H, B> = {
  readonly summary: string;
  readonly description?: string;
  readonly params?: P;
  readonly query?: Q;
  readonly headers?: H;
  readonly body?: B;
  /** What is answered. Nothing leaves that it does not describe. */
  readonly answer: Shape;
  /** Default: JSON. */
  readonly contentType?: string;
};

/** An answer with headers or a status of its own. */
export class Answer {
  readonly value: unknown;
  readonly status: 200 | 201 | 503;
  readonly headers: Readonly<Record<string, string>>;
  constructor(
    value: unknown,
    more: { status?: 200 | 201 | 503; headers?: Record<string, string> } = {},
  ) {
    this.value = value;
    this.status = more.status ?? 200;
    this.headers = more.headers ?? {};
  }
}

/**
 * Adds one route with its description, and asks the table of `access.ts` before anything of the request but its head is
 * looked at. Fails closed.
 */
export function addOperation<
  P extends z.ZodObject | undefined = undefined,
  Q extends z.ZodObject | undefined = undefined,
  H extends z.ZodObject | undefined = undefined,
  B extends Shape | undefined = undefined,
>(
  app: ControlApp,
  name: RouteName,
  operation: Operation<P, Q, H, B>,
  answer: (
    input: { params: Read<P>; query: Read<Q>; headers: Read<H>; body: Read<B> },
    call: Call,
  ) => Promise<unknown>,
): void {
  const [method, path] = name.split(" ") as ["GET", string];
  const { summary, description, params, query, headers, body, contentType } = operation;
  const { roles } = accessOf(name);
  app.use(path.replaceAll(/\{(\w+)\}/g, ":$1"), async (c, next) => {
    if (c.req.method !== method) return next();
    c.set("route", name);
    const call = c.get("call");
    if (!call || !roles.includes(call.record.role))
      throw new ControlRefusal("role_missing", undefined, {
        hint: `this needs the role ${roles.join(" or ")}${call ? `, and ${call.name} is ${call.record.role}` : ""}`,
      });
    const { changes, essential } = accessOf(name);
    if (changes && !essential && !c.get("canRecord")())
      throw new ControlRefusal("audit_unavailable", undefined, {
        hint: "free space where the hit log lies; revoke, rollback and ca rotate work meanwhile",
      });
    return next();
  });
  const route = createRoute({
    method: method.toLowerCase() as "get",
    path,
    operationId: accessOf(name).action,
    summary,
    description: `${description ? `${description} ` : ""}Roles: ${roles.join(", ")}.`,
    request: {
      ...(params && { params }),
      ...(query && { query }),
      ...(headers && { headers }),
      ...(body && {
        body: { required: true, content: { "application/json": { schema: body } } },
      }),
    },
    responses: {
      200: {
        description: summary,
        content: { [contentType ?? "application/json"]: { schema: operation.answer } },
      },
      default: {
        description: "A refusal: a stable code, a sentence, and what to do.",
        content: { "application/json": { schema: errorShape } },
      },
    },
  });
  const respond = async (c: Context<ApiEnv>): Promise<Response> => {
    const call = c.get("call");
    if (!call) throw new ControlRefusal("role_missing");
    const read = c.req as unknown as { valid(part: string): never };
    const input = {
      params: (params ? read.valid("param") : undefined) as Read<P>,
      query: (query ? read.valid("query") : undefined) as Read<Q>,
      headers: (headers ? read.valid("header") : undefined) as Read<H>,
      body: (body ? read.valid("json") : undefined) as Read<B>,
    };
    const result = await answer(input, call);
    const {
      value,
      status,
      headers: extra,
    } = result instanceof Answer ? result : new Answer(result);
    const told = operation.answer.parse(value);
    if (contentType) return c.text(String(told), status, { ...extra, "Content-Type": contentType });
    return c.json(told as object, status, extra);
  };
  app.openapi(route, respond as never);
}
