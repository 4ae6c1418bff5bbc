interface Scheduling {
  readonly setImmediate?: (callback: () => void) => unknown
  readonly setTimeout: (callback: () => void, delayMs: number) => unknown
}

/** Bytes that are worth copying before the event loop gets its turn: a fraction of a millisecond of work. */
export const sliceBytes = 2 ** 20

/** Resolves after the event loop had its turn: timers, I/O and other callers run in between. */
export function yieldToEventLoop(): Promise<void> {
  const { setImmediate, setTimeout } = globalThis as unknown as Scheduling
  return new Promise((resolve) => {
    if (setImmediate === undefined) setTimeout(resolve, 0)
    else setImmediate(resolve)
  })
}

/** Resolves after a real timer. */
export function waitReal(delayMs: number): Promise<void> {
  const { setTimeout } = globalThis as unknown as Scheduling
  return new Promise((resolve) => {
    setTimeout(resolve, delayMs)
  })
}
