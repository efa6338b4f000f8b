import type { Rule } from "../../model/register.ts";

/**
 * Whether every request that `inner` is about is one that `outer` is about: callers, ports, methods, paths. Hours, expiry and limits
 * are not looked at. May say no where several patterns together would cover one; never says yes wrongly.
 */
export function covers(outer: Rule, inner: Rule): boolean {
  return (
    (outer.from.includes("*") || inner.from.every((caller) => outer.from.includes(caller))) &&
    inner.ports.every((port) => outer.ports.includes(port)) &&
    methodsCover(outer.methods, inner.methods) &&
    pathsCover(outer.paths, inner.paths)
  );
}

function methodsCover(outer: Rule["methods"], inner: Rule["methods"]): boolean {
  if (!outer) return true;
  if (!inner) return false;
  return inner.every(
    (method) => outer.includes(method) || (method === "HEAD" && outer.includes("GET")),
  );
}

function pathsCover(outer: Rule["paths"], inner: Rule["paths"]): boolean {
  if (!outer || outer.includes("/**")) return true;
  if (!inner) return false;
  const patterns = segmentsOf(outer);
  return segmentsOf(inner).every((path) =>
    patterns.some((pattern) => segmentsCover(pattern, path)),
  );
}

const split = new WeakMap<readonly string[], readonly (readonly string[])[]>();

/** Split once for each rule: every rule of a service is compared with every other. */
function segmentsOf(paths: readonly string[]): readonly (readonly string[])[] {
  const known = split.get(paths);
  if (known) return known;
  const segments = paths.map((path) => path.slice(1).split("/"));
  split.set(paths, segments);
  return segments;
}

/** Whether everything that `inner` matches is matched by `outer`: `/orders/**` covers `/orders`, `/orders/:id`, `/orders/7/**`. */
export function patternCovers(outer: string, inner: string): boolean {
  return segmentsCover(outer.slice(1).split("/"), inner.slice(1).split("/"));
}

function segmentsCover(a: readonly string[], b: readonly string[]): boolean {
  for (let i = 0; i < a.length; i++) {
    const segment = a[i] ?? "";
    if (segment === "**") return true;
    const other = b[i];
    if (other === undefined || other === "**") return false;
    if (segment.startsWith(":")) {
      // A variable stands for one segment that is not empty.
      if (other === "") return false;
    } else if (other !== segment) return false;
  }
  return a.length === b.length;
}
