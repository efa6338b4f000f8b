import { z } from "@hono/zod-openapi";
import { Answer, type ApiWorld, addOperation, type ControlApp } from "./operation.ts";

/** Liveness, readiness and metrics, on the control port because there they need an identity. */
export function addHealth(app: ControlApp, { needs, registry, store }: ApiWorld): void {
  addOperation(
    app,
    "GET /live",
    { summary: "The process answers", answer: z.object({ live: z.boolean() }) },
    async () => ({ live: true }),
  );
  addOperation(
    app,
    "GET /ready",
    {
      summary: "A register stands and actions can be recorded; 503 when not",
      answer: z.object({ ready: z.boolean(), register: z.boolean(), hitLog: z.boolean() }),
    },
    async () => {
      const register = registry.current() !== undefined;
      const hitLog = needs.canRecord();
      const ready = register && hitLog;
      return new Answer({ ready, register, hitLog }, { status: ready ? 200 : 503 });
    },
  );
  addOperation(
    app,
    "GET /metrics",
    {
      summary: "Gauges in the Prometheus text format",
      answer: z.string(),
      contentType: "text/plain; version=0.0.4; charset=utf-8",
    },
    async () => {
      const snapshot = registry.current()?.snapshot;
      const gates = needs.feed.gates();
      const now = needs.clock();
      const atNewest = gates.filter(
        ({ running }) =>
          running?.epoch === snapshot?.epoch && running?.version === snapshot?.version,
      );
      const [soonest] = await store.newestLeaves(now);
      const severities = (["critical", "warning", "info"] as const).map(
        (severity) =>
          [
            `{severity="${severity}"}`,
            needs.warnings().filter((warning) => warning.severity === severity).length,
          ] as const,
      );
      return [
        gauge(
          "sallyport_control_snapshot_epoch",
          "Epoch of the newest snapshot.",
          snapshot?.epoch ?? 0,
        ),
        gauge(
          "sallyport_control_snapshot_version",
          "Version of the newest snapshot.",
          snapshot?.version ?? 0,
        ),
        gauge(
          "sallyport_control_snapshot_timestamp_seconds",
          "When it was published.",
          (snapshot?.at ?? 0) / 1000,
        ),
        gauge(
          "sallyport_control_revocations",
          "Revocations it carries.",
          snapshot?.revocations.length ?? 0,
        ),
        gauge(
          "sallyport_control_hit_log_writable",
          "1: actions can be recorded.",
          needs.canRecord() ? 1 : 0,
        ),
        gauge("sallyport_control_gates_enrolled", "Gates that hold an identity.", gates.length),
        gauge(
          "sallyport_control_gates_connected",
          "Gates on the feed now.",
          gates.filter((gate) => gate.connected).length,
        ),
        gauge(
          "sallyport_control_gates_current",
          "Gates that serve by the newest snapshot.",
          atNewest.length,
        ),
        gauge(
          "sallyport_control_first_identity_ends_timestamp_seconds",
          "When the first identity goes dark.",
          (soonest?.notAfterMs ?? 0) / 1000,
        ),
        gauge("sallyport_control_warnings", "Warnings that stand.", severities),
      ].join("");
    },
  );
}

function gauge(
  name: string,
  help: string,
  value: number | readonly (readonly [labels: string, value: number])[],
): string {
  const samples = typeof value === "number" ? ([["", value]] as const) : value;
  const lines = samples.map(([labels, sample]) => `${name}${labels} ${sample}\n`).join("");
  return `# HELP ${name} ${help}\n# TYPE ${name} gauge\n${lines}`;
}
