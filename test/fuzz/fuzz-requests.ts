import { requestCases } from "../corpus/http1-requests.ts";
import { checkRequest, type RequestLimits } from "./check-request.ts";
import { below, mutate, pick, randomCuts, seeded } from "./random.ts";
import type { RequestParserClass } from "./trace.ts";

const texts: readonly string[] = requestCases
  .map(([, text]) => text)
  .filter((text) => text.length < 2_000);

/** Small limits are met often; the usual ones keep the rest of the message in play. */
const limitChoices: readonly RequestLimits[] = [
  { headBytesMax: 32_768, headersMax: 100, underscoreHeaders: false },
  { headBytesMax: 32_768, headersMax: 100, underscoreHeaders: true },
  { headBytesMax: 64, headersMax: 2, underscoreHeaders: false },
];

/** Bends requests of the corpus while `goesOn`, and checks each. Throws with seed, round and bytes at the first broken promise. */
export function fuzzRequests(
  Parser: RequestParserClass,
  { seed, goesOn }: { seed: number; goesOn: (round: number) => boolean },
): { rounds: number; accepted: number } {
  const random = seeded(seed);
  let rounds = 0;
  let accepted = 0;
  for (; goesOn(rounds); rounds += 1) {
    // Every message of the corpus as it is, then bent ones.
    const text = texts[rounds] ?? mutate(random, pick(random, texts), texts);
    const bytes = Buffer.from(text, "latin1");
    const everyByte = Array.from({ length: Math.max(0, bytes.length - 1) }, (_, at) => at + 1);
    const feedings = [
      { cuts: randomCuts(random, bytes.length) },
      { cuts: randomCuts(random, bytes.length), pausing: true },
      ...(rounds % 8 === 0 ? [{ cuts: everyByte }] : []),
    ];
    const limits = random() < 0.7 ? limitChoices[0] : limitChoices[1 + below(random, 2)];
    try {
      const trace = checkRequest(Parser, bytes, feedings, limits);
      accepted += trace.filter((line) => line.startsWith("head ")).length;
    } catch (cause) {
      throw new Error(
        `seed ${seed}, round ${rounds}, limits ${JSON.stringify(limits)}: ${JSON.stringify(text)}`,
        { cause },
      );
    }
  }
  return { rounds, accepted };
}
