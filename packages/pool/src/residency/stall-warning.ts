import { type HostTimer, startTimer, stopTimer } from '@spillway/core'
import { poolTitle, warn } from '../ground/trace.ts'
import type { Limit } from './limit.ts'

/**
 * Tells, once, of a claim that waits for pins to be released and has waited long: when the pins are the caller's own, it
 * waits for ever, and nothing else would show why.
 *
 *   stalled ─▶ some seconds ─▶ the same claim, and still stalled: warn, and no more until a claim was served or gave up
 */
export class StallWarning {
  delayMs = 5000
  readonly #limit: Limit
  readonly #poolName: string
  readonly #isStalled: () => boolean
  readonly #describePins: () => string
  #timer: HostTimer | undefined
  /** `limit.departures` when this was last told. */
  #toldAt = -1

  constructor(limit: Limit, poolName: string, isStalled: () => boolean, describePins: () => string) {
    this.#limit = limit
    this.#poolName = poolName
    this.#isStalled = isStalled
    this.#describePins = describePins
  }

  /** A claim cannot be served before somebody releases a pin; asked as often as that is found. */
  note(): void {
    const { departures } = this.#limit
    if (this.#timer !== undefined || this.#toldAt === departures) return
    this.#timer = startTimer(() => this.#look(departures), this.delayMs)
    // Where timers keep a process alive, this one must not.
    this.#timer.unref?.()
  }

  stop(): void {
    stopTimer(this.#timer)
  }

  #look(since: number): void {
    this.#timer = undefined
    if (!this.#isStalled()) return
    const { departures, firstClaimant } = this.#limit
    if (departures !== since) {
      this.note()
      return
    }
    this.#toldAt = departures
    const label = firstClaimant?.label
    warn(
      'SPILLWAY_WAITING_FOR_PINS',
      `${poolTitle(this.#poolName)}: ${label === undefined ? 'a lower limit' : `buffer ${label}`} waits for memory, and all that could be evicted is pinned: ${this.#describePins()}`,
      "Who holds these pins and waits itself waits for ever: release them first, or use whenFull: 'fail'.",
    )
  }
}
