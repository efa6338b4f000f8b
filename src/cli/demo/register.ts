/** The demo's register. `intern` is revoked on the way; `ghost` is taken out after it has enrolled. */
export function demoRegister(
  ports: Readonly<Record<"orders" | "billing" | "stock", number>>,
  with_: { readonly ghost: boolean },
): string {
  return `# The demo's register: every internal port, and who may reach it.
version: 1
trustDomain: shop.demo

planes:
  control: { bind: "127.0.0.1:0" }
  join:    { bind: "127.0.0.1:0" }
  ops:     { bind: "127.0.0.1:0" }
  data:    { bind: "127.0.0.1:0" }
  decoys:  ["127.0.0.1:0"]

services:
  web:    { owner: storefront }
  intern: { owner: storefront }${with_.ghost ? "\n  ghost:  { owner: nobody }" : ""}
  orders:
    owner: commerce
    why: order intake
    ports:
      http: { protocol: http, upstreams: ["127.0.0.1:${ports.orders}"] }
    allow:
      - { id: web-reads-orders, from: web, methods: [GET, POST], paths: ["/orders/**"] }
      - { id: intern-reads-orders, from: intern, methods: [GET], paths: ["/orders/**"] }
    deny:
      - { id: no-debug, from: "*", paths: ["/orders/debug/**"] }
  billing:
    owner: finance
    ports:
      http: { protocol: http, upstreams: ["127.0.0.1:${ports.billing}"] }
    allow:
      - { id: orders-bills, from: orders, methods: [GET], paths: ["/invoices/:id"] }
  stock:
    owner: warehouse
    ports:
      http: { protocol: http, upstreams: ["127.0.0.1:${ports.stock}"] }
    allow:
      - { id: web-asks-stock, from: web, methods: [GET], limit: { rate: 6/m, burst: 3 } }
`;
}
