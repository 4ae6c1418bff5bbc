/**
 * The clock and the timers of the process, taken once, when this module is imported: tests of applications replace the global
 * ones by timers that stand still, and requests that are under way must go on all the same.
 */
const { performance, setTimeout, setImmediate, queueMicrotask } = globalThis

/** Milliseconds of a clock that never goes back. */
export const nowMs: () => number = performance.now.bind(performance)

/** Calls back once, after at least `delayMs`. */
export function startTimer(callback: () => void, delayMs: number): NodeJS.Timeout {
  return setTimeout(callback, delayMs)
}

/** Calls back after the event loop has polled for input. */
export function afterInput(callback: () => void): void {
  setImmediate(callback)
}

/** Calls back when the code that runs now has returned, before the event loop turns. */
export function afterThisCode(callback: () => void): void {
  queueMicrotask(callback)
}
