import { setTimeout as pause } from "node:timers/promises";
import { fieldValue, type Message, readMessage, statusOf } from "../harness/http-text.ts";
import type { RawClient } from "../harness/tls-client.ts";
import { poison, scripts } from "./gate-upstream.ts";
import { below, mutate, pick } from "./random.ts";

/** One request that a client sends, and what it may be answered. */
export type Asked = {
  readonly token: string;
  readonly text: string;
  readonly method: string;
  /** `served`: the whole answer must come. `refused`: no byte of it may reach the service. `either`: depends on the service. */
  readonly fate: "served" | "refused" | "either";
  readonly ends: boolean;
};

export type Answered = { readonly hit: string | undefined; readonly status: number };

export type Conversation = {
  readonly caller: "web" | "app";
  readonly requests: number;
  readonly answers: readonly Answered[];
  readonly refusals: Readonly<Record<string, number>>;
  /** What was wrong with what the client read. */
  readonly complaints: readonly string[];
};

let sequence = 0;

/** Has a client say a few things, some of them bent, and judges everything it is answered. */
export async function converse(
  client: RawClient,
  caller: "web" | "app",
  random: () => number,
): Promise<Conversation> {
  const isBent = random() < 0.45;
  const plan = Array.from({ length: 1 + below(random, 6) }, () => compose(caller, random, isBent));
  const whole = plan.map(({ text }) => text);
  const bytes = isBent
    ? mutate(random, whole.join(""), [`GET /s/${poison} HTTP/1.1\r\nHost: orders\r\n\r\n`])
    : whole.join("");
  const ending = pick(random, ["wait", "wait", "wait", "half-close", "abort"] as const);
  const complaints: string[] = [];
  const complain = (what: string): void => {
    complaints.push(`${what}; ${caller}, ${ending}, ${isBent ? "bent" : "straight"}`);
  };
  await send(client, bytes, random);
  if (ending === "abort") {
    if (random() < 0.7) await pause(below(random, 8));
    client.socket.destroy();
    return { caller, requests: plan.length, answers: [], refusals: {}, complaints };
  }
  if (ending === "half-close") client.end();
  const answers: Answered[] = [];
  const refusals: Record<string, number> = {};
  let next = 0;
  let isOver = false;
  const waitUntil = performance.now() + 10_000;
  while (!isOver && next < plan.length) {
    const asked = plan[next] as Asked;
    const message = await read(client, asked.method === "HEAD", isBent ? 250 : 10_000);
    if (message === "nothing") {
      // A bent request may be one whose end the gate still waits for.
      if (!isBent) complain(`no answer to ${JSON.stringify(asked.text.slice(0, 200))}`);
      break;
    }
    if (message === "unreadable") {
      if (!isBent || !plan.some(({ method }) => method === "HEAD"))
        complain("an unreadable answer");
      break;
    }
    if (message === "ended") {
      if (!isBent && asked.fate === "served" && performance.now() < waitUntil)
        complain(`ended before the answer to ${JSON.stringify(asked.text.slice(0, 200))}`);
      break;
    }
    const status = statusOf(message);
    if (status < 200) continue;
    const echo = fieldValue(message, "x-echo");
    const refusal = fieldValue(message, "sallyport-refusal");
    const hit = fieldValue(message, "sallyport-hit");
    answers.push({ hit, status });
    if (message.raw.includes(poison)) complain("an answer that nobody asked for");
    if (hit === undefined) complain(`no hit for ${message.start}`);
    if (refusal !== undefined) refusals[refusal] = (refusals[refusal] ?? 0) + 1;
    else if (echo === undefined) complain(`an answer of nobody: ${message.start}`);
    if (isBent) {
      // Which request it answers is not known, but the order is, and whose it is.
      if (echo !== undefined && echo !== "none") {
        const at = plan.findIndex(({ token }) => token === echo);
        if (at < 0 && !bytes.includes(echo)) complain(`an answer to another: ${echo}`);
        if (at >= 0 && at < next)
          next = Math.max(0, at); // doubled by the mutation
        else if (at >= 0) next = at;
      }
    } else {
      if (echo !== undefined && echo !== asked.token)
        complain(`the answer to ${echo} instead of ${asked.token}`);
      if (asked.fate === "refused" && refusal === undefined) complain(`served: ${asked.text}`);
      if (asked.fate === "served" && refusal !== undefined)
        complain(`refused as ${refusal}: ${JSON.stringify(asked.text.slice(0, 300))}`);
    }
    const words = message.body.toString("latin1").split(" ");
    if (echo !== undefined && words.slice(0, -1).some((word) => word !== echo))
      complain(`the body of another in the answer to ${echo}`);
    next++;
    isOver = /close/i.test(fieldValue(message, "connection") ?? "");
    if (!isBent && isOver && refusal === undefined && !asked.ends && ending === "wait")
      if (asked.fate === "served") complain(`closed after ${asked.text.slice(0, 100)}`);
  }
  client.close();
  return { caller, requests: plan.length, answers, refusals, complaints };
}

async function send(client: RawClient, bytes: string, random: () => number): Promise<void> {
  if (random() < 0.5) return client.send(bytes);
  for (let at = 0; at < bytes.length; ) {
    const size = 1 + below(random, random() < 0.3 ? 8 : 400);
    client.send(bytes.slice(at, at + size));
    at += size;
    if (random() < 0.3) await new Promise(setImmediate);
    if (random() < 0.02) await pause(3);
  }
}

async function read(
  client: RawClient,
  bodiless: boolean,
  withinMs: number,
): Promise<Message | "nothing" | "ended" | "unreadable"> {
  const end = performance.now() + withinMs;
  let looked = -1;
  for (;;) {
    try {
      // Whether it has ended is asked first: what came before the end is then all here.
      const untilClose = client.isEnded;
      const isNew = looked !== client.rest.length || untilClose;
      looked = client.rest.length;
      const found = isNew ? readMessage(client.rest, { bodiless, untilClose }) : undefined;
      if (found !== undefined) {
        client.skip(found.length);
        return found.message;
      }
      if (untilClose) return "ended";
    } catch {
      return "unreadable";
    }
    if (performance.now() > end) return "nothing";
    await pause(3);
  }
}

/** `isBent`: without HEAD, whose answer could not be read once it is not known which request it belongs to. */
function compose(caller: "web" | "app", random: () => number, isBent: boolean): Asked {
  const token = `${caller[0]}${below(random, 1_000)}x${sequence++}z`;
  const kind = random();
  const isBad = kind < 0.2;
  const isRefused = kind > 0.8;
  const script = pick(random, isBad ? scripts.bad : scripts.good);
  const other = caller === "web" ? "app" : "web";
  const path = isRefused
    ? pick(random, [
        `/${other}/${token}/${script}`,
        `/s/secret/${token}/${script}`,
        `/s/../${other}/${token}/${script}`,
        `/s/%2e%2e/${other}/${token}/${script}`,
        `/s/..;/${token}/${script}`,
        `/s/%2fsecret/${token}/${script}`,
        `/s//secret/${token}/${script}`,
      ])
    : pick(random, [
        `/s/${token}/${script}`,
        `/${caller}/${token}/${script}`,
        `/s/./x/../${token}/${script}?q=${token}&r=%2e`,
      ]);
  const methods = ["GET", "GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"];
  const method = pick(random, isBent ? methods.slice(0, -1) : methods);
  const minor = random() < 0.05 ? 0 : 1;
  const ends = minor === 0 || random() < 0.05;
  let fields = "";
  if (random() < 0.3) fields += `X-Token: ${token}\r\n`;
  if (random() < 0.1) fields += "Sallyport-Caller: spiffe://test.internal/service/admin\r\n";
  if (random() < 0.1) fields += "X-Forwarded-For: 127.0.0.1\r\n";
  if (random() < 0.1) fields += "Keep-Alive: timeout=100\r\n";
  if (random() < 0.05) fields += "Connection: x-token\r\n";
  if (ends && minor === 1) fields += "Connection: close\r\n";
  const host = pick(random, ["orders", "orders", "ORDERS:80", "orders.:1"]);
  let body = "";
  const bodyKind = random();
  const evil = `GET /s/${poison} HTTP/1.1\r\nHost: orders\r\nX-Token: ${poison}\r\n\r\n`;
  if (method !== "GET" && method !== "HEAD" && bodyKind < 0.7) {
    const data = evil.repeat(1 + below(random, random() < 0.1 ? 800 : 4));
    if (bodyKind < 0.35 || minor === 0) {
      fields += `Content-Length: ${data.length}\r\n`;
      body = data;
    } else {
      fields += "Transfer-Encoding: chunked\r\n";
      for (let at = 0; at < data.length; ) {
        const part = data.slice(at, at + 1 + below(random, 300));
        const extension = random() < 0.1 ? ";a=b" : "";
        body += `${part.length.toString(16)}${extension}\r\n${part}\r\n`;
        at += part.length;
      }
      body += random() < 0.1 ? "0\r\nX-Last: 1\r\n\r\n" : "0\r\n\r\n";
    }
    if (random() < 0.1 && minor === 1) fields += "Expect: 100-continue\r\n";
  }
  return {
    token,
    text: `${method} ${path} HTTP/1.${minor}\r\nHost: ${host}\r\n${fields}\r\n${body}`,
    method,
    fate: isRefused ? "refused" : isBad ? "either" : "served",
    ends,
  };
}
