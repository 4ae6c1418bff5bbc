import { type HostTimer, startTimer, stopTimer } from '@spillway/core'
import { pace } from '../ground/pace.ts'
import type { Pages } from './pages.ts'

/**
 * Gives memory that nobody takes for a moment to the system: what backups freed, which may be restored at once, and what was
 * freed for claims that did not want it after all.
 *
 *   retained, or idle beyond what may be ─▶ one period ─▶ what stayed all the time goes ─▶ more of it? another period
 *
 * So all of it goes after one to two periods. While claims wait nothing goes: they are about to take it.
 */
export class IdleTrimmer {
  readonly #pages: Pages
  readonly #isWaitedFor: () => boolean
  #timer: HostTimer | undefined
  #stopped = false

  constructor(pages: Pages, isWaitedFor: () => boolean) {
    this.#pages = pages
    this.#isWaitedFor = isWaitedFor
  }

  /** Begins a period unless one has begun. */
  start(): void {
    if (this.#timer !== undefined || this.#stopped) return
    this.#pages.watchIdle()
    const timer = startTimer(() => {
      this.#timer = undefined
      if (this.#isWaitedFor()) this.start()
      else void this.#trim(this.#pages.unwantedPages)
    }, periodMs)
    this.#timer = timer
    // Where timers keep a process alive, this one must not.
    timer.unref?.()
  }

  stop(): void {
    this.#stopped = true
    stopTimer(this.#timer)
  }

  async #trim(unwantedPages: number): Promise<void> {
    const pages = this.#pages
    // Whoever asked for memory to go is told how much went: it must not go behind his back.
    for (let left = unwantedPages; left > 0 && !pages.isTrimmed; ) {
      const step = pages.shrinkStep()
      // What no provider takes is not offered again and again.
      if (step === 0) return
      left -= step
      const turn = pace()
      if (turn !== undefined) await turn
    }
    if (pages.hasUnwanted) this.start()
  }
}

/** Memory is retained for at most twice as long. */
const periodMs = 50
