import { spawn } from "node:child_process";

/** A command that is run after each renewal, to make a server read its new files. */
export type Hook = {
  /** Run by `/bin/sh -c`, so that it may be any command line: `systemctl reload nginx`. */
  readonly command: string;
  /** The whole environment of the command; `SALLYPORT_PRINCIPAL` and `SALLYPORT_DIR` are added. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Default 30 s; then it is killed with all that it started. */
  readonly timeoutMs?: number;
};

export type HookOutcome = {
  readonly ok: boolean;
  /** `exit code 3`, `killed after 30 s`. */
  readonly says: string;
  /** The first 4 KiB of both outputs together. */
  readonly output: string;
};

const outputBytesMax = 4_096;

/** Never rejects. Aborting kills it. Nothing about the leaf is put on the command line: the two variables say whose and where. */
export function runHook(
  hook: Hook,
  about: { readonly principal: string; readonly dir: string },
  signal?: AbortSignal,
): Promise<HookOutcome> {
  const timeoutMs = hook.timeoutMs ?? 30_000;
  return new Promise((resolve) => {
    const child = spawn("/bin/sh", ["-c", hook.command], {
      env: { ...hook.env, SALLYPORT_PRINCIPAL: about.principal, SALLYPORT_DIR: about.dir },
      stdio: ["ignore", "pipe", "pipe"],
      detached: true, // a process group of its own, so that it can be ended with its children
    });
    let output = "";
    let killed = "";
    const end = (why: string) => {
      killed = why;
      try {
        if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
      } catch {
        // It has just ended by itself.
      }
    };
    const timer = setTimeout(() => end(`killed after ${timeoutMs / 1_000} s`), timeoutMs);
    const stop = () => end("killed, because renewal was stopped");
    signal?.addEventListener("abort", stop, { once: true });
    if (signal?.aborted) stop();
    const take = (piece: Buffer) => {
      if (output.length < outputBytesMax)
        output = (output + piece.toString("utf8")).slice(0, outputBytesMax);
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    const settle = (ok: boolean, says: string) => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      // What it left running in the background may keep the pipes open for ever; we do not wait for that.
      setImmediate(() => {
        child.stdout.destroy();
        child.stderr.destroy();
        resolve({ ok, says, output: output.trim() });
      });
    };
    child.once("error", (cause) => settle(false, cause.message));
    child.once("exit", (code, byWhat) =>
      settle(code === 0 && !killed, killed || (code === null ? `${byWhat}` : `exit code ${code}`)),
    );
  });
}
