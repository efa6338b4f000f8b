import { OpenAPIHono, z } from "@hono/zod-openapi";
import type { Role } from "../../model/issued.ts";
import { shortName } from "../../model/principal.ts";
import { ControlRefusal, controlRefusals } from "../refusals.ts";
import type { ControlStore, PrincipalRecord } from "../store/store.ts";
import { accessOf } from "./access.ts";
import { addAuthorities } from "./authorities.ts";
import { addGates } from "./gates.ts";
import { addHealth } from "./health.ts";
import { addHits } from "./hits.ts";
import {
  type ApiBindings,
  type ApiEnv,
  type ApiWorld,
  addOperation,
  type ControlApp,
} from "./operation.ts";
import { addRegister } from "./register.ts";
import { addRevocations } from "./revocations.ts";
import { addSnapshots } from "./snapshots.ts";
import { addStatus } from "./status.ts";
import { addTokens } from "./tokens.ts";

export const bodyBytesMax = 1024 * 1024;

/**
 * The whole API as a function of requests, without sockets. Every request becomes a hit before its answer leaves, whatever
 * became of it; the answer carries the id in `Sallyport-Hit`. Fails closed: an identity without a role, a revoked one, one
 * that is not on record, a route that is not in the table, a hit that could not be written: refused.
 */
export function createApp(world: ApiWorld): ControlApp {
  const { needs, store } = world;
  const app: ControlApp = new OpenAPIHono<ApiEnv>({
    defaultHook: (result) => {
      if (!result.success) throw badRequest(result.error.issues);
    },
  });

  app.use(async (c, next) => {
    const startedMs = needs.clock();
    c.set("canRecord", needs.canRecord);
    await next();
    const refusal = c.error && refusalOf(c.error);
    if (refusal?.code === "fault") needs.log.error({ err: c.error }, "the API failed");
    const status = refusal ? controlRefusals[refusal.code].http : c.res.status;
    const route = c.get("route");
    const call = c.get("call");
    const { peer, remote, local } = c.env;
    // What was refused may wait: the reserve is for what was done.
    const isEssential = !refusal && route !== undefined && accessOf(route).essential === true;
    const hit = needs.record(
      {
        at: startedMs,
        plane: "control",
        kind: "action",
        decision: !refusal ? "allowed" : refusal.code === "fault" ? "fault" : "refused",
        ...(refusal && { code: refusal.code }),
        caller: shortName(peer.principal),
        serial: peer.serial,
        peer: remote,
        local,
        method: c.req.method,
        path: c.req.path.slice(0, 1_024),
        status,
        action: route ? accessOf(route).action : "unknown",
        tookMs: needs.clock() - startedMs,
        ...(call?.detail && { detail: call.detail.slice(0, 512) }),
      },
      { essential: isEssential },
    );
    const tells = !refusal && route !== undefined && accessOf(route).tells === true;
    if (hit === undefined && !isEssential && !tells) {
      // What was read is kept back. A change cannot be taken back; that it happened is said, so that nobody repeats it.
      const done = !refusal && route !== undefined && accessOf(route).changes;
      const says = done ? "it was done, but the record of it could not be written" : undefined;
      c.res = errorResponse(new ControlRefusal("audit_unavailable", says), undefined);
      return;
    }
    if (refusal) c.res = errorResponse(refusal, hit);
    else if (hit) c.res.headers.set("Sallyport-Hit", hit);
    c.res.headers.set("Cache-Control", "no-store");
  });

  // Thrown once more for the hit's sake: the outermost step reads it from `c.error` and writes the answer.
  app.onError((_, c) => c.body(null, 500));
  app.notFound(() => {
    throw new ControlRefusal("not_found", "there is no such route", {
      hint: "GET /openapi.json describes all of them",
    });
  });

  app.use(async (c, next) => {
    const record = await admit(c.env.peer, store, needs.clock());
    c.set("call", { name: shortName(c.env.peer.principal), record, detail: "" });
    refuseBrowsers(c.req.header("sec-fetch-site"), c.req.header("origin"));
    if (c.req.method === "POST" || c.req.method === "PUT") refuseOtherBodies(c.req);
    await next();
  });
  addRegister(app, world);
  addSnapshots(app, world);
  addRevocations(app, world);
  addTokens(app, world);
  addGates(app, world);
  addAuthorities(app, world);
  addHits(app, world);
  addStatus(app, world);
  addHealth(app, world);
  addOperation(
    app,
    "GET /openapi.json",
    { summary: "This description", answer: z.looseObject({ openapi: z.string() }) },
    async () => describe(app),
  );
  return app;
}

/** The API as OpenAPI 3.1. */
export function describe(app: ControlApp): ReturnType<ControlApp["getOpenAPI31Document"]> {
  return app.getOpenAPI31Document({
    openapi: "3.1.0",
    info: {
      title: "Sallyport control plane",
      version: "1",
      description:
        "Mutual TLS on the control port. Every answer names its line in the hit log in the header Sallyport-Hit.",
      license: { name: "Apache-2.0" },
    },
  });
}

/** Asked for every request, because a connection may outlive the right to use it. Fails closed. */
async function admit(
  peer: ApiBindings["peer"],
  store: ControlStore,
  nowMs: number,
): Promise<PrincipalRecord & { readonly role: Role }> {
  if (nowMs > peer.notAfterMs) throw new ControlRefusal("expired");
  const leaf = await store.findIssued("control", peer.serial);
  // Not on record: issued after the backup that this store was restored from, or by a stolen key, which can copy a serial but not a key.
  if (leaf?.principal !== peer.uri || leaf.publicKey !== peer.publicKey)
    throw new ControlRefusal("not_an_operator", "this certificate is not on record here", {
      hint: "enrol again with a new token",
    });
  if (await store.isRevoked(leaf)) throw new ControlRefusal("revoked");
  const record = await store.findPrincipal(peer.uri);
  const { role } = record ?? {};
  if (!record || record.removedMs !== undefined || role === undefined)
    throw new ControlRefusal("not_an_operator");
  return { ...record, role };
}

/** A page in an operator's browser could make it use its certificate. Nothing of ours runs in one from another origin. */
function refuseBrowsers(site: string | undefined, origin: string | undefined): void {
  const isOurs = site === undefined || site === "none" || site === "same-origin";
  if (isOurs && (origin === undefined || site === "same-origin")) return;
  throw new ControlRefusal("bad_request", "requests from web pages are not served");
}

/** One JSON text of a length that is said beforehand, or none. Node holds the sender to what it said. */
function refuseOtherBodies(request: { header(name: string): string | undefined }): void {
  if (request.header("transfer-encoding") !== undefined)
    throw new ControlRefusal("length_required");
  const length = Number(request.header("content-length") ?? 0);
  if (length === 0) return;
  if (!(length <= bodyBytesMax))
    throw new ControlRefusal("too_large", undefined, {
      hint: "split the register: a control plane of its own for each trust domain",
    });
  const type = request.header("content-type") ?? "";
  if (!/^application\/json\s*(;|$)/i.test(type)) throw new ControlRefusal("not_json");
}

type Issue = {
  readonly code: string;
  readonly path: readonly PropertyKey[];
  readonly message: string;
  /** Of a union: what each of its shapes says. */
  readonly errors?: readonly (readonly Issue[])[];
};

/** Of shapes that all do not fit, the one that nearly does was meant; where none stands out, the union speaks for all. */
function meantIssues(issue: Issue): readonly Issue[] {
  const [least, next] = (issue.errors ?? []).toSorted((a, b) => a.length - b.length);
  if (!least || least.length === 0 || least.length === next?.length) return [issue];
  return least.map((one) => ({ ...one, path: [...issue.path, ...one.path] }));
}

function badRequest(issues: readonly Issue[]): ControlRefusal {
  return new ControlRefusal("bad_request", undefined, {
    problems: issues
      .flatMap(meantIssues)
      .slice(0, 50)
      .map((issue) => ({
        code: issue.code.replaceAll("_", "-"),
        severity: "error",
        message: issue.message,
        path: issue.path.map(String).join("."),
      })),
    hint: "GET /openapi.json describes what is expected",
  });
}

/** Anything that is not an expected no is a fault, whose message is for our log alone. */
function refusalOf(cause: unknown): ControlRefusal {
  if (cause instanceof ControlRefusal) return cause;
  // Hono's own, for a body that is not the JSON it says it is.
  const status = (cause as { status?: unknown }).status;
  if (status === 400) return new ControlRefusal("bad_request", "the body is not JSON");
  return new ControlRefusal("fault", undefined, {
    hint: "the log of the control process says more; the hit's id finds the place",
  });
}

function errorResponse(refusal: ControlRefusal, hit: string | undefined): Response {
  const { code, message, hint, problems } = refusal;
  const error = {
    code,
    says: message,
    ...(hint !== undefined && { hint }),
    ...(hit !== undefined && { hit }),
    ...(problems.length > 0 && { problems }),
  };
  return Response.json(
    { error },
    {
      status: controlRefusals[code].http,
      headers: {
        ...(hit !== undefined && { "Sallyport-Hit": hit }),
        // After these the identity has nothing more to say on this connection.
        ...((code === "expired" || code === "revoked") && { Connection: "close" }),
      },
    },
  );
}
