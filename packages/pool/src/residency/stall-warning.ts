import { type HostTimer, nowMs, startTimer, stopTimer } from '@spillway/core'
import { warn } from '../ground/trace.ts'

/**
 * Tells, once, of claims that wait for pins to be released and have waited long: when the pins are the caller's own, they
 * wait for ever, and nothing else would show why.
 *
 *   a claim waits for pins ─▶ none is served for some seconds, and the first still waits for pins ─▶ warn
 *                                └─ one is served ─▶ the seconds begin anew
 *
 * Other calls may come and go meanwhile; whoever gives up or is aborted does not begin them anew.
 */
export class StallWarning {
  delayMs = 5000
  readonly #limit: WaitingClaims
  readonly #title: string
  readonly #isStalled: () => boolean
  readonly #describePins: () => string
  #timer: HostTimer | undefined
  #sinceMs = 0
  /** `limit.departures` when this was last told. */
  #toldAt = -1

  constructor(limit: WaitingClaims, title: string, isStalled: () => boolean, describePins: () => string) {
    this.#limit = limit
    this.#title = title
    this.#isStalled = isStalled
    this.#describePins = describePins
  }

  /** A claim waits while pins are held; asked as often as that is found. */
  note(): void {
    if (this.#timer !== undefined || this.#toldAt === this.#limit.departures) return
    this.#sinceMs = nowMs()
    this.#lookIn(this.delayMs)
  }

  stop(): void {
    stopTimer(this.#timer)
  }

  /** Says who waits and who holds what. */
  tell(): void {
    this.#toldAt = this.#limit.departures
    const label = this.#limit.firstClaimant?.label
    warn(
      'SPILLWAY_WAITING_FOR_PINS',
      `${this.#title}: ${label === undefined ? 'a lower limit' : `buffer ${label}`} waits for memory, and all that could be evicted is pinned: ${this.#describePins()}`,
      "Who holds these pins and waits itself waits for ever: release them first, or use whenFull: 'fail'.",
    )
  }

  #lookIn(delayMs: number): void {
    this.#timer = startTimer(() => this.#look(), delayMs)
    // Where timers keep a process alive, this one must not.
    this.#timer.unref?.()
  }

  #look(): void {
    this.#timer = undefined
    if (this.#limit.waiters === 0) return
    const leftMs = Math.max(this.#sinceMs, this.#limit.servedAtMs) + this.delayMs - nowMs()
    if (leftMs > 0) this.#lookIn(leftMs)
    else if (this.#isStalled()) this.tell()
    // A call that is under way may hold what the claim will have in a moment.
    else this.#lookIn(this.delayMs / 10)
  }
}

/** Who waits: the claims of a pool, or of all pools of a budget. */
export interface WaitingClaims {
  readonly waiters: number
  readonly departures: number
  readonly servedAtMs: number
  readonly firstClaimant: { readonly label: string } | undefined
}
