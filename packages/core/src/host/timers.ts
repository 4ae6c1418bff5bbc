/**
 * What the host gives for waiting and for telling time, taken once, when this module is imported. A test of an application
 * may put faked timers into `globalThis` (node:test, vitest, jest): the library goes on with the real ones, and never
 * waits for a clock that stands still.
 */

/** A timer that was started; `unref`, where the host has it, lets the process end while it runs. */
export interface HostTimer {
  unref?(): unknown
}

interface Host {
  readonly performance: { now(): number }
  readonly setTimeout: (callback: () => void, delayMs: number) => HostTimer
  readonly clearTimeout: (timer: HostTimer | undefined) => void
  readonly setInterval: (callback: () => void, periodMs: number) => HostTimer
  readonly clearInterval: (timer: HostTimer | undefined) => void
  readonly setImmediate?: (callback: () => void) => unknown
  readonly queueMicrotask: (callback: () => void) => void
}

const host = globalThis as unknown as Host
const { performance, setTimeout, clearTimeout, setInterval, clearInterval, setImmediate, queueMicrotask } =
  host

/** Milliseconds of a clock that never goes back. */
export const nowMs: () => number = performance.now.bind(performance)

/** Calls back once, after at least `delayMs`; stop it with `stopTimer`. */
export function startTimer(callback: () => void, delayMs: number): HostTimer {
  return setTimeout(callback, delayMs)
}

export function stopTimer(timer: HostTimer | undefined): void {
  clearTimeout(timer)
}

/** Calls back again and again, every `periodMs`; stop it with `stopInterval`. */
export function startInterval(callback: () => void, periodMs: number): HostTimer {
  return setInterval(callback, periodMs)
}

export function stopInterval(timer: HostTimer | undefined): void {
  clearInterval(timer)
}

/** Calls back after the event loop has polled for input. */
export const afterInput: (callback: () => void) => void =
  setImmediate === undefined
    ? (callback) => void setTimeout(callback, 0)
    : (callback) => void setImmediate(callback)

/** Calls back when the code that runs now has returned, before the event loop turns. */
export function afterThisCode(callback: () => void): void {
  queueMicrotask(callback)
}

/** Resolves after at least `delayMs`; `unref`: the process may end meanwhile. */
export function delay(delayMs: number, options: { readonly unref?: boolean } = {}): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, delayMs)
    if (options.unref === true) timer.unref?.()
  })
}
