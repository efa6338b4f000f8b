import type { FieldId } from "./fields.ts";

/**
 * The fields of one head, as they came. Names, values and lines are cut out of the head when somebody asks: most fields only pass
 * through. Syntax was judged before: no octet of it ends a line early.
 */
export class HeadFields {
  readonly #head: string;
  readonly #marks: readonly number[];
  /** What each field is, in order. See `fields.ts`. */
  readonly ids: readonly FieldId[];

  /** `head`: one unit an octet, with its empty line. `marks`: as `FieldLines` has them, kept. */
  constructor(head: string, marks: readonly number[], ids: readonly FieldId[]) {
    this.#head = head;
    this.#marks = marks;
    this.ids = ids;
  }

  get count(): number {
    return this.ids.length;
  }

  /** As sent. */
  name(which: number): string {
    return this.#head.slice(this.#marks[which * 4], this.#marks[which * 4 + 1]);
  }

  /** Without the white space around it. */
  value(which: number): string {
    return valueAt(this.#head, this.#marks, which * 4);
  }

  /** Whether the line is spelled `name: value`, with one space and none behind. */
  isPlain(which: number): boolean {
    const marks = this.#marks;
    const nameTo = marks[which * 4 + 1] as number;
    return (
      marks[which * 4 + 2] === nameTo + 2 &&
      this.#head.charCodeAt(nameTo + 1) === 0x20 &&
      this.#lineTo(which) === (marks[which * 4 + 3] as number) + 2
    );
  }

  /** The lines from `from` up to, not with, `to`, each with its CRLF, exactly as they came. */
  lines(from: number, to: number): string {
    return this.#head.slice(this.#marks[from * 4], this.#lineTo(to - 1));
  }

  /** All of them: name, value, name, value. Order and spelling kept. */
  get flat(): string[] {
    return this.ids.flatMap((_, which) => [this.name(which), this.value(which)]);
  }

  #lineTo(which: number): number {
    return which + 1 < this.count
      ? (this.#marks[(which + 1) * 4] as number)
      : this.#head.length - 2;
  }
}

/** The value of the field whose marks begin at `at`. */
export function valueAt(head: string, marks: readonly number[], at: number): string {
  return head.slice(marks[at + 2], marks[at + 3]);
}
