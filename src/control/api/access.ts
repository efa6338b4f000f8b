import type { Role } from "../../model/issued.ts";

type Access = {
  /** Who may. Nobody else, and nothing that is not in this table. */
  readonly roles: readonly Role[];
  /** What the hit says was done. */
  readonly action: string;
  /** Changes something: refused while hits cannot be written. */
  readonly changes?: true;
  /** Never waits for the hit log: what cuts off an attacker must work on a full disk. */
  readonly essential?: true;
  /** Answered even when the hit log takes no line: this is how an operator learns that, and which version to roll back to. */
  readonly tells?: true;
};

/**
 * Every route of the API and who may use it. Fails closed: a route without a row does not compile, and a request that matches
 * no row reaches no code. Roles do not contain each other; each row names all of them.
 */
export const access = {
  "GET /v1/register": { roles: ["admin", "deployer", "auditor"], action: "register.read" },
  "PUT /v1/register": { roles: ["admin", "deployer"], action: "apply", changes: true },
  "POST /v1/register/diff": { roles: ["admin", "deployer", "auditor"], action: "register.diff" },
  "GET /v1/snapshots": {
    roles: ["admin", "deployer", "auditor"],
    action: "snapshots.list",
    tells: true,
  },
  "GET /v1/snapshots/{version}": {
    roles: ["admin", "deployer", "auditor"],
    action: "snapshots.read",
  },
  "POST /v1/snapshots/{version}/rollback": {
    roles: ["admin"],
    action: "rollback",
    changes: true,
    essential: true,
  },
  "GET /v1/revocations": { roles: ["admin", "auditor"], action: "revocations.list" },
  "POST /v1/revocations": { roles: ["admin"], action: "revoke", changes: true, essential: true },
  "GET /v1/tokens": { roles: ["admin", "enroller", "auditor"], action: "token.list" },
  "POST /v1/tokens": { roles: ["admin", "enroller"], action: "token.create", changes: true },
  "DELETE /v1/tokens/{id}": {
    roles: ["admin", "enroller"],
    action: "token.delete",
    changes: true,
    essential: true,
  },
  "GET /v1/gates": { roles: ["admin", "deployer", "auditor"], action: "gates.list" },
  "GET /v1/authorities": { roles: ["admin", "auditor"], action: "ca.status" },
  "POST /v1/authorities/rotate": {
    roles: ["admin"],
    action: "ca.rotate",
    changes: true,
    essential: true,
  },
  "GET /v1/hits": { roles: ["admin", "auditor"], action: "hits.query" },
  "GET /v1/hits/verify": { roles: ["admin", "auditor"], action: "hits.verify" },
  "GET /v1/status": {
    roles: ["admin", "deployer", "enroller", "auditor"],
    action: "status",
    tells: true,
  },
  "GET /live": { roles: ["admin", "auditor"], action: "live", tells: true },
  "GET /ready": { roles: ["admin", "auditor"], action: "ready", tells: true },
  "GET /metrics": { roles: ["admin", "auditor"], action: "metrics", tells: true },
  "GET /openapi.json": {
    roles: ["admin", "deployer", "enroller", "auditor"],
    action: "openapi",
  },
} as const satisfies Record<string, Access>;

export type RouteName = keyof typeof access;

/** The row of a route; the widest reading of the constant above. */
export function accessOf(route: RouteName): Access {
  return access[route];
}
