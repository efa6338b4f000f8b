/** Something that was started. `close` waits until all of it is released, and is safe to call twice. */
export type Running = { close(): Promise<void> };
