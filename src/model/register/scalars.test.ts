import assert from "node:assert/strict";
import { test } from "node:test";
import { parseRegister } from "./parse.ts";

/** The hint for a rule with these days. */
function hintFor(days: string): string | undefined {
  const text = `version: 1
trustDomain: t.internal
services:
  web: { owner: a }
  orders:
    owner: a
    upstreams: ["127.0.0.1:9001"]
    allow: [{ id: r, from: web, hours: { days: ${JSON.stringify(days)}, start: "08:00", end: "18:00" } }]
`;
  const { problems } = parseRegister([{ name: "r.yaml", text }]);
  return problems[0]?.hint;
}

const otherwise = "such as mon-fri, or mon,wed,fri";
const rows: [days: string, hint: string][] = [
  ["mon-fry", 'did you mean "mon-fri"?'],
  ["fry", 'did you mean "fri"?'],
  ["Mon-Fri", 'did you mean "mon-fri"?'],
  ["mon - fri", 'did you mean "mon-fri"?'],
  ["monday-friday", 'did you mean "mon-fri"?'],
  ["mon,wensday,thurs", 'did you mean "mon,wed,thu"?'],
  ["mon-fri,sta", 'did you mean "mon-fri,sat"?'],
  ["weekdays", otherwise],
  ["mon-fry,holidays", otherwise],
  ["mon to fry", otherwise],
  ["mon,,fry", otherwise],
  ["every day", otherwise],
];

for (const [days, hint] of rows)
  test(`${days}: ${hint}`, () => {
    assert.equal(hintFor(days), hint);
  });
