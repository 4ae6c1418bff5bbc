/**
 * What the host gives for waiting and for telling time, taken once, when this module is imported. A test of an application
 * may put faked timers into `globalThis` (node:test, vitest, jest): the library goes on with the real ones, and never
 * waits for a clock that stands still. Every package takes time from here and from nowhere else.
 */

/** A timer that was started; `unref`, where the host has it, lets the process end while it runs. */
export interface HostTimer {
  unref?(): unknown
  /** Begins the delay anew. */
  refresh?(): unknown
}

/** The functions of a host. */
export interface Host {
  readonly nowMs: () => number
  readonly wallClockMs: () => number
  readonly setTimeout: (callback: () => void, delayMs: number) => HostTimer
  readonly clearTimeout: (timer: HostTimer | undefined) => void
  readonly setInterval: (callback: () => void, periodMs: number) => HostTimer
  readonly clearInterval: (timer: HostTimer | undefined) => void
  readonly setImmediate: (callback: () => void) => unknown
  readonly queueMicrotask: (callback: () => void) => void
}

const { performance, setTimeout, clearTimeout, setInterval, clearInterval, setImmediate, queueMicrotask } =
  globalThis as unknown as Omit<Host, 'setImmediate'> &
    Partial<Pick<Host, 'setImmediate'>> & { readonly performance: { now(): number } }

const real: Host = {
  nowMs: performance.now.bind(performance),
  wallClockMs: Date.now.bind(Date),
  setTimeout: (callback, delayMs) => setTimeout(callback, delayMs),
  clearTimeout: (timer) => clearTimeout(timer),
  setInterval: (callback, periodMs) => setInterval(callback, periodMs),
  clearInterval: (timer) => clearInterval(timer),
  setImmediate: (callback) => (setImmediate === undefined ? setTimeout(callback, 0) : setImmediate(callback)),
  queueMicrotask: (callback) => queueMicrotask(callback),
}
let host = real

/** Puts some functions in the place of the real ones, for tests of this library; without any, the real ones again. */
export function replaceHost(parts: Partial<Host> = {}): void {
  host = { ...real, ...parts }
}

/** Milliseconds of a clock that never goes back. It may stand while the machine sleeps. */
export function nowMs(): number {
  return host.nowMs()
}

/** Milliseconds since 1970 by the machine's clock, which goes on while the machine sleeps, and which anybody may set. */
export function wallClockMs(): number {
  return host.wallClockMs()
}

/** Calls back once, after at least `delayMs`; stop it with `stopTimer`. */
export function startTimer(callback: () => void, delayMs: number): HostTimer {
  return host.setTimeout(callback, delayMs)
}

export function stopTimer(timer: HostTimer | undefined): void {
  host.clearTimeout(timer)
}

/** Calls back again and again, every `periodMs`; stop it with `stopInterval`. */
export function startInterval(callback: () => void, periodMs: number): HostTimer {
  return host.setInterval(callback, periodMs)
}

export function stopInterval(timer: HostTimer | undefined): void {
  host.clearInterval(timer)
}

/** Calls back after the event loop has polled for input. */
export function afterInput(callback: () => void): void {
  host.setImmediate(callback)
}

/** Calls back when the code that runs now has returned, before the event loop turns. */
export function afterThisCode(callback: () => void): void {
  host.queueMicrotask(callback)
}

/** Resolves after at least `delayMs`; `unref`: the process may end meanwhile. */
export function delay(delayMs: number, options: { readonly unref?: boolean } = {}): Promise<void> {
  return new Promise((resolve) => {
    const timer = startTimer(resolve, delayMs)
    if (options.unref === true) timer.unref?.()
  })
}
