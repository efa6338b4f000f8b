import { z } from "@hono/zod-openapi";
import { classifyAddress } from "../../base/address.ts";
import { parsePrincipal, shortName } from "../../model/principal.ts";
import type { Register } from "../../model/register.ts";
import { snapshotName } from "../../model/snapshot.ts";
import { listGates } from "./gates.ts";
import { type ApiWorld, addOperation, type ControlApp } from "./operation.ts";
import { authorityShape, gateShape, warningShape } from "./shapes.ts";

const dayMs = 86_400_000;

const identityShape = z
  .object({
    principal: z.string(),
    plane: z.enum(["control", "data"]),
    serial: z.string(),
    notAfterMs: z.number(),
    state: z
      .enum(["fresh", "due", "dark"])
      .describe(
        "`due`: past two thirds of its life and not renewed; `dark`: expired within the last day, or its root was retired",
      ),
    retiredRoot: z.literal(true).optional().describe("It cannot be renewed: enrol with a token"),
  })
  .openapi("Identity");

/** Everything that a person asks first, in one answer. */
export function addStatus(app: ControlApp, world: ApiWorld): void {
  const { needs, registry, store } = world;
  addOperation(
    app,
    "GET /v1/status",
    {
      summary: "How control, gates, identities and authorities are",
      answer: z.object({
        you: z.object({ principal: z.string(), role: z.string() }),
        trustDomain: z.string().optional(),
        snapshot: z
          .object({
            name: z.string(),
            author: z.string(),
            at: z.number(),
            digest: z.string(),
            services: z.number(),
            revocations: z.number(),
          })
          .optional(),
        hitLog: z.object({ writable: z.boolean() }),
        gates: z.array(gateShape),
        identities: z
          .array(identityShape)
          .describe("The first to end first; `fresh` ones are left out but the first"),
        authorities: z.array(authorityShape),
        warnings: z.array(warningShape),
        notes: z
          .array(z.string())
          .describe("Ways around the gate that this installation leaves open"),
      }),
    },
    async (_, call) => {
      const now = needs.clock();
      const current = registry.current()?.snapshot;
      return {
        you: { principal: call.name, role: call.record.role },
        ...(current && {
          trustDomain: current.register.trustDomain,
          snapshot: {
            name: snapshotName(current),
            author: current.author,
            at: current.at,
            digest: current.digest,
            services: Object.keys(current.register.services).length,
            revocations: current.revocations.length,
          },
        }),
        hitLog: { writable: needs.canRecord() },
        gates: await listGates(world),
        identities: await soonDark(now),
        authorities: needs.authorities.status(),
        warnings: needs.warnings(),
        notes: [...roadsAround(current?.register), ...world.notes()],
      };
    },
  );

  async function soonDark(now: number): Promise<z.input<typeof identityShape>[]> {
    const list: z.input<typeof identityShape>[] = [];
    let hasFresh = false;
    for (const leaf of await store.newestLeaves(now - dayMs)) {
      const parts = parsePrincipal(leaf.principal);
      // Whoever was taken out or revoked is meant to go dark.
      if (!parts || !(await store.isRegistered(leaf.principal)) || (await store.isRevoked(leaf)))
        continue;
      const { notBeforeMs, notAfterMs, plane, serial } = leaf;
      const isDue = now > notBeforeMs + ((notAfterMs - notBeforeMs) * 3) / 4;
      const isRetired = notAfterMs > now && needs.authorities.isOfRetiredRoot(leaf);
      const state = notAfterMs <= now || isRetired ? "dark" : isDue ? "due" : "fresh";
      if (state === "fresh" && hasFresh) continue;
      hasFresh ||= state === "fresh";
      list.push({
        principal: shortName(parts),
        plane,
        serial,
        notAfterMs,
        state,
        ...(isRetired && { retiredRoot: true as const }),
      });
      if (list.length === 100) break;
    }
    return list;
  }
}

/** A port on loopback is open to every process of its machine, whatever the gate decides. */
function roadsAround(register: Register | undefined): string[] {
  const open: string[] = [];
  const plain: string[] = [];
  for (const service of Object.values(register?.services ?? {}))
    for (const port of Object.values(service.ports))
      for (const upstream of port.upstreams) {
        if (port.via !== "gate" || upstream.kind !== "tcp") continue;
        const { host } = upstream;
        const isLoopback = host === "localhost" || classifyAddress(host) === "loopback";
        (isLoopback ? open : plain).push(service.name);
      }
  const notes: string[] = [];
  if (open.length > 0)
    notes.push(
      `any process of this machine can go around the gate to ${listed(open)}: an upstream on TCP loopback is open to all of them; a unix: upstream is not`,
    );
  if (plain.length > 0)
    notes.push(
      `whoever is on the network between the gate and ${listed(plain)} can go around the gate and read along: the upstream is plaintext off loopback`,
    );
  return notes;
}

function listed(names: readonly string[]): string {
  const unique = [...new Set(names)];
  const shown = unique.slice(0, 5).join(", ");
  return unique.length > 5 ? `${shown} and ${unique.length - 5} more` : shown;
}
