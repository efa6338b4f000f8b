import type { Register, Rule } from "../../model/register.ts";
import type { Remark } from "./lint-register.ts";

/** What nobody uses yet. Only warnings: registers grow one service at a time. */
export function lintCallers(
  register: Register,
  _nowMs: number,
  isDamaged: (path: string) => boolean,
): Remark[] {
  // What is missing may be what could not be read.
  if (isDamaged("services")) return [];
  const remarks: Remark[] = [];
  const callers = new Set(
    Object.values(register.services).flatMap((service) =>
      service.allow.flatMap((rule) => rule.from),
    ),
  );
  for (const [name, service] of Object.entries(register.services)) {
    const ports = Object.values(service.ports);
    for (const port of ports.filter((each) => each.via === "gate"))
      if (!service.allow.some((rule: Rule) => rule.ports.includes(port.name)))
        remarks.push({
          code: "nobody-may-call",
          severity: "warning",
          message: `nobody may call the port ${port.name} of ${name}: no allow rule is about it`,
          hint: `allow: [{ id: ..., from: ...${service.allow.length > 0 ? `, ports: [${port.name}]` : ""} }]`,
          path: `services.${name}.ports.${port.name}`,
        });
    if (ports.length === 0 && !callers.has(name) && !callers.has("*"))
      remarks.push({
        code: "caller-never-used",
        severity: "warning",
        message: `${name} offers nothing and no rule lets it call anybody`,
        hint: `add it to a rule's from, or remove it`,
        path: `services.${name}`,
      });
  }
  return remarks;
}
