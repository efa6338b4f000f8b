import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { ControlStore } from "../../control/store/store.ts";
import { readCredentials } from "../../identity/credentials/credential-directory.ts";
import { writeFileDurably } from "../../identity/durable-files.ts";
import type { Issuance } from "../../identity/issue/issuance.ts";
import { type Plane, type Principal, principalOf } from "../../model/principal.ts";

/** Those whom this process lets in by itself: its first administrator and the gate beside it. */
export type Invitations = {
  /** Once; whoever was removed stays removed, except what this process itself is answerable for. */
  register(of: { principal: Principal; role?: "admin" }): Promise<void>;
  /** Writes a token of the first administrator to the file, on a store without one. */
  firstAdmin(file: string): Promise<void>;
  /** Registers the gate and hands over a token, unless it holds leaves that live. */
  localGate(name: string): Promise<void>;
  /** The same for one that is enrolled already, at most once a minute: its machine may have slept past the end of its leaves, or their root was retired. */
  lapsedGate(name: string): Promise<void>;
};

const hourMs = 3_600_000;
const againMs = 60_000;

export function createInvitations(options: {
  readonly store: Pick<ControlStore, "principals" | "findPrincipal" | "savePrincipal">;
  readonly issuance: Pick<Issuance, "createToken">;
  readonly trustDomain: string;
  /** Where the state of gates on this machine lies, a directory each. */
  readonly gatesDir: string;
  /** Whether a root that is trusted signed the first certificate of the chain. */
  readonly isOurs: (plane: Plane, chainPem: string) => boolean;
  /** When an authority last took a step, epoch ms: what was invited before that is no reason to wait. */
  readonly rotatedMs: () => number;
  /** Bare names of gates that hold an identity. */
  readonly enrolled: ReadonlySet<string>;
  /** Who invites: `control/control`. */
  readonly by: string;
  readonly clock: Clock;
  readonly log: Log;
  /** Of the hit log: an action and its detail. */
  readonly note: (action: string, detail: string) => void;
  /** Over the channel to the supervisor alone: an argument, a variable or a file would be seen by others. */
  readonly sendGateToken: (token: string) => void;
}): Invitations {
  const { by, clock, enrolled, issuance, log, store, trustDomain } = options;
  let invitedMs = Number.NEGATIVE_INFINITY;

  async function register(of: { principal: Principal; role?: "admin" }): Promise<void> {
    const known = await store.findPrincipal(of.principal);
    if (known && known.removedMs === undefined) return;
    await store.savePrincipal({
      ...of,
      owners: [],
      services: [],
      createdBy: by,
      createdMs: clock(),
    });
  }

  async function invite(name: string): Promise<void> {
    const principal = principalOf({ trustDomain, kind: "gate", name });
    if (enrolled.has(name) && (await holdsLivingLeaves(join(options.gatesDir, name)))) return;
    invitedMs = clock();
    const { token } = await issuance.createToken({ principal, createdBy: by });
    options.sendGateToken(token);
  }

  async function holdsLivingLeaves(gateHome: string): Promise<boolean> {
    try {
      for (const plane of ["control", "data"] as const) {
        const { chainPem, identity } = await readCredentials(join(gateHome, plane));
        if (!(Date.parse(identity?.notAfter ?? "") > clock())) return false;
        if (!options.isOurs(plane, chainPem)) return false;
      }
      return true;
    } catch {
      return false;
    }
  }

  return {
    register,
    async firstAdmin(file) {
      const known = (await store.principals()).some(({ role }) => role === "admin");
      if (known) {
        log.warn({}, "there was an administrator already, so no token was written");
        return;
      }
      const principal = principalOf({ trustDomain, kind: "admin", name: "first" });
      await register({ principal, role: "admin" });
      const { token, record } = await issuance.createToken({
        principal,
        role: "admin",
        createdBy: by,
        ttlMs: hourMs,
      });
      await writeFileDurably(file, `${token}\n`);
      options.note("init_admin", `admin/first, until ${new Date(record.expiresMs).toISOString()}`);
      log.info(
        { file },
        "the first administrator's token was written; it can be used once, within an hour",
      );
    },
    async localGate(name) {
      await register({ principal: principalOf({ trustDomain, kind: "gate", name }) });
      await invite(name);
    },
    async lapsedGate(name) {
      // A gate that is gone for good, because somebody revoked it, is not called back while control runs.
      const isRecent = clock() - invitedMs < againMs && options.rotatedMs() <= invitedMs;
      if (!enrolled.has(name) || isRecent) return;
      await invite(name);
    },
  };
}
