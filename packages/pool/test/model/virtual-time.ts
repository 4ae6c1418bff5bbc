import { replaceHost } from '@spillway/core'

/**
 * Time that passes only when somebody waits for it: timers fire in order as soon as nothing else is to be done, and
 * the clock moves a little with each question. So a model run waits for nothing, and its seed repeats it.
 */
export class VirtualTime implements Disposable {
  readonly #timers: Timer[] = []
  #nowMs = 0
  #turning = false
  #installed = false

  /** Replaces the timers of all packages until `uninstall`. */
  install(): void {
    if (this.#installed) return
    this.#installed = true
    replaceHost({
      setTimeout: (callback, delayMs) => this.#add(callback, delayMs),
      clearTimeout: (timer) => this.#remove(timer as Timer | undefined),
      nowMs: () => {
        this.#nowMs += questionMs
        return this.#nowMs
      },
    })
  }

  uninstall(): void {
    if (!this.#installed) return
    this.#installed = false
    replaceHost()
  }

  [Symbol.dispose](): void {
    this.uninstall()
  }

  /** Lets time pass, without firing what is due by then. */
  pass(ms: number): void {
    this.#nowMs += ms
  }

  #add(callback: () => void, delayMs: number): Timer {
    const timer = { callback, atMs: this.#nowMs + delayMs, unref: () => timer, ref: () => timer }
    this.#timers.push(timer)
    this.#turnSoon()
    return timer
  }

  #remove(timer: Timer | undefined): void {
    const index = timer === undefined ? -1 : this.#timers.indexOf(timer)
    if (index >= 0) this.#timers.splice(index, 1)
  }

  /** One timer each turn of the event loop, so that what it set going comes before the next. */
  #turnSoon(): void {
    if (this.#turning) return
    this.#turning = true
    setImmediate(() => {
      this.#turning = false
      let first: Timer | undefined
      for (const timer of this.#timers) if (first === undefined || timer.atMs < first.atMs) first = timer
      if (first === undefined) return
      this.#remove(first)
      this.#nowMs = Math.max(this.#nowMs, first.atMs)
      if (this.#timers.length > 0) this.#turnSoon()
      first.callback()
    })
  }
}

interface Timer {
  readonly callback: () => void
  readonly atMs: number
  readonly unref: () => Timer
  readonly ref: () => Timer
}

const questionMs = 0.02
