import { responseCases } from "../corpus/http1-responses.ts";
import { checkResponse } from "./check-response.ts";
import { mutate, pick, randomCuts, seeded } from "./random.ts";
import type { ResponseParserClass } from "./trace.ts";

const cases = responseCases.filter(([, , text]) => text.length < 2_000);
const texts: readonly string[] = cases.map(([, , text]) => text);

/** Bends responses of the corpus while `goesOn`, and checks each. Throws with seed, round and bytes at the first broken promise. */
export function fuzzResponses(
  Parser: ResponseParserClass,
  { seed, goesOn }: { seed: number; goesOn: (round: number) => boolean },
): { rounds: number; accepted: number } {
  const random = seeded(seed);
  let rounds = 0;
  let accepted = 0;
  for (; goesOn(rounds); rounds += 1) {
    const [, method, original] = pick(random, cases);
    const text = mutate(random, original, texts);
    const bytes = Buffer.from(text, "latin1");
    const feedings = [
      { cuts: randomCuts(random, bytes.length) },
      { cuts: randomCuts(random, bytes.length), pausing: true },
    ];
    try {
      const methods = method === "" ? [] : [method];
      const trace = checkResponse(Parser, bytes, { feedings, methods });
      accepted += trace.filter((line) => line.startsWith("head ")).length;
    } catch (cause) {
      throw new Error(`seed ${seed}, round ${rounds}, ${method}: ${JSON.stringify(text)}`, {
        cause,
      });
    }
  }
  return { rounds, accepted };
}
