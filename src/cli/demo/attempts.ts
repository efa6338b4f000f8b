import type { Credentials } from "../../base/credentials.ts";
import type { Attempt } from "../prove/attempt.ts";
import { type Ground, shown, standardAttempts } from "../prove/attempts.ts";
import { request } from "../prove/request.ts";
import { speak, talkTo } from "../prove/speak.ts";

/** Who takes part in the demo. */
export type Cast = Readonly<
  Record<"web" | "orders" | "billing" | "intern" | "ghost" | "expired", Credentials>
>;

/** The proof table of the demo: what the register allows works, and everything else is refused and recorded. */
export function demoAttempts(
  ground: Ground,
  cast: Cast,
  act: { revokeIntern(): Promise<void> },
): Attempt[] {
  const { canary, data } = ground;
  const send =
    (as: Credentials, method: string, path: string, host: string, ...fields: string[]) =>
    () =>
      speak(data, request(method, path, host, { canary, fields }), shown(as));
  const { web, orders, billing, intern, ghost, expired } = cast;
  const ours = '"caller":"spiffe://shop.demo/service/web"';
  return [
    {
      name: "web reads an order",
      expected: { status: 200 },
      run: send(web, "GET", "/orders/7", "orders"),
    },
    {
      name: "orders reads an invoice from billing",
      expected: { status: 200 },
      run: send(orders, "GET", "/invoices/7", "billing"),
    },
    {
      name: "a spoofed identity header",
      expected: {
        status: 200,
        and: {
          says: "the service sees only ours",
          holds: (said) => said.body.includes(ours) && !said.body.includes("admin"),
        },
      },
      run: send(
        web,
        "GET",
        "/orders/7",
        "orders",
        "Sallyport-Caller: admin",
        "SALLYPORT-CALLER: admin",
      ),
    },
    {
      name: "a method that no rule allows",
      expected: { status: 403, code: "not_authorized" },
      run: send(web, "DELETE", "/orders/7", "orders"),
    },
    {
      name: "a path that no rule allows",
      expected: { status: 403, code: "not_authorized" },
      run: send(web, "GET", "/admin", "orders"),
    },
    {
      name: "a path that a deny rule keeps shut",
      expected: { status: 403, code: "denied" },
      run: send(web, "GET", "/orders/debug/vars", "orders"),
    },
    {
      name: "a doubled slash: //admin",
      expected: { status: 403, code: "not_authorized" },
      run: send(web, "GET", "//admin", "orders"),
    },
    {
      name: "dot segments: /orders/../admin",
      expected: { status: 403, code: "not_authorized" },
      run: send(web, "GET", "/orders/../admin", "orders"),
    },
    {
      name: "a caller with no rule: billing asks orders",
      expected: { status: 403, code: "not_authorized" },
      run: send(billing, "GET", "/orders/7", "orders"),
    },
    {
      name: "a connection opened for billing, used for orders",
      expected: { status: 421, code: "misdirected" },
      run: () =>
        speak(data, request("GET", "/orders/7", "orders", { canary }), shown(web, "billing")),
    },
    {
      name: "an expired certificate",
      expected: { status: 401, code: "expired" },
      run: send(expired, "GET", "/orders/7", "orders"),
    },
    {
      name: "a valid certificate whose principal is not registered",
      expected: { status: 403, code: "not_registered" },
      run: send(ghost, "GET", "/orders/7", "orders"),
    },
    {
      name: "a caller over its rate limit",
      expected: { status: 429, code: "rate_limited" },
      async run() {
        const talk = await talkTo(data, shown(web));
        try {
          const bytes = request("GET", "/stock/7", "stock", { canary });
          for (let i = 0; i < 3; i++) await talk.ask(bytes);
          return await talk.ask(bytes);
        } finally {
          talk.close();
        }
      },
    },
    {
      name: "a revoked caller on its open keep-alive connection",
      expected: { ended: true, code: "revoked" },
      async run() {
        const talk = await talkTo(data, shown(intern));
        try {
          const before = await talk.ask(request("GET", "/orders/7", "orders", { canary }));
          if (before.status !== 200) return before;
          await act.revokeIntern();
          const ended = await talk.ended(1_000);
          return {
            ...before,
            status: undefined,
            headers: new Map(),
            ended: ended ? "cut" : undefined,
          };
        } finally {
          talk.close();
        }
      },
    },
    {
      name: "the revoked caller comes back",
      expected: { status: 403, code: "revoked" },
      run: send(intern, "GET", "/orders/7", "orders"),
    },
    ...standardAttempts(ground),
  ];
}
