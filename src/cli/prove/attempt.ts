import type { Hit } from "../../model/hit.ts";
import type { Said } from "./speak.ts";

/** What is expected of an attempt: a status, a code, or both; `ended` where no response may come. */
export type Expected = {
  readonly status?: number;
  /** Code of the refusal, as the response and the hit log have it. */
  readonly code?: string;
  readonly ended?: true;
  /** Something more that must be true of the answer, and how it is put. */
  readonly and?: { readonly says: string; holds(said: Said): boolean };
};

/** One thing that is tried. */
export type Attempt = {
  readonly name: string;
  readonly expected: Expected;
  run(): Promise<Said>;
  /** Where its hit is, when the answer does not say. */
  readonly plane?: Hit["plane"];
};

/** What became of it. */
export type Outcome = {
  readonly name: string;
  readonly expected: string;
  readonly observed: string;
  readonly held: boolean;
  /** Id of its line in the hit log; null: none was found, which never counts as held. */
  readonly hit: string | null;
};

/** Finds a hit by its id, or the refused one of a connection by our end of it. Waits a little for it to be written. */
export type FindHit = (
  which: { id: string } | { peer: string; code?: string },
) => Promise<Hit | undefined>;

/** Makes the attempt and compares. Fails closed: what was not observed, or is not in the hit log, did not hold. */
export async function judge(attempt: Attempt, findHit: FindHit): Promise<Outcome> {
  const { expected, name } = attempt;
  let said: Said;
  try {
    said = await attempt.run();
  } catch (cause) {
    const observed = cause instanceof Error ? cause.message : String(cause);
    return { name, expected: describe(expected), observed, held: false, hit: null };
  }
  const id = said.headers.get("sallyport-hit");
  const hit = await findHit(
    id === undefined
      ? { peer: said.local, ...(expected.code !== undefined && { code: expected.code }) }
      : { id },
  );
  const code = said.headers.get("sallyport-refusal") ?? hit?.code;
  const extra = expected.and === undefined || expected.and.holds(said);
  const held =
    hit !== undefined &&
    (expected.ended === true ? said.ended !== undefined : said.ended === undefined) &&
    (expected.status === undefined || said.status === expected.status) &&
    code === expected.code &&
    hit.code === expected.code &&
    extra;
  const observed = describe({
    ...(said.status !== undefined && { status: said.status }),
    ...(said.ended !== undefined && { ended: true as const }),
    ...(code !== undefined && { code }),
  });
  const suffix =
    expected.and === undefined
      ? ""
      : extra
        ? `, ${expected.and.says}`
        : `, NOT ${expected.and.says}`;
  return {
    name,
    expected: describe(expected) + (expected.and ? `, ${expected.and.says}` : ""),
    observed: observed + suffix,
    held,
    hit: hit?.id ?? null,
  };
}

function describe(of: Omit<Expected, "and">): string {
  const parts = [of.ended ? "closed" : undefined, of.status?.toString(), of.code];
  return parts.filter((part) => part !== undefined).join(" ") || "let through";
}
