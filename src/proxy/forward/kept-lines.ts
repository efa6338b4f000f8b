import type { HeadFields } from "../../wire/http1/head-fields.ts";
import { type Fate, fate } from "./hygiene.ts";

/**
 * The field lines of a head that go on: those that `fateOf` keeps, less those that `Connection` nominated. Lines that are spelled as we would
 * spell them are copied as they came, neighbours together. `special` is told of fields that are neither kept nor dropped.
 */
export function keptLines(
  fields: HeadFields,
  connectionNames: readonly string[],
  fateOf: (fields: HeadFields, which: number) => Fate,
  special?: (verdict: Fate, which: number) => void,
): string {
  const { count } = fields;
  let text = "";
  /** Where the lines begin that are copied together; -1: none wait. */
  let from = -1;
  for (let which = 0; which < count; which++) {
    const verdict = fateOf(fields, which);
    const stays = verdict === fate.keep && !isNominated(fields, which, connectionNames);
    if (stays && fields.isPlain(which)) {
      if (from < 0) from = which;
      continue;
    }
    if (from >= 0) text += fields.lines(from, which);
    from = -1;
    if (stays) text += `${fields.name(which)}: ${fields.value(which)}\r\n`;
    else if (verdict !== fate.keep && verdict !== fate.drop) special?.(verdict, which);
  }
  return from < 0 ? text : text + fields.lines(from, count);
}

/** Whether `Connection` names the field: it is for this hop alone (RFC 9110 section 7.6.1). */
export function isNominated(fields: HeadFields, which: number, names: readonly string[]): boolean {
  return names.length > 0 && names.includes(fields.name(which).toLowerCase());
}
