import { nowMs, wallClockMs } from '@spillway/core'
import type { ServiceClock } from '../service/service-clock.ts'

/** `Last-Modified` and `Date` have whole seconds. */
export const clockResolutionMs = 1000
/** The part of a lease that its owner does not rely on, and the most of it, in milliseconds. */
const marginShare = 0.1
const longestMarginMs = 5000

/** A moment by both clocks of this machine. */
export interface Moment {
  /** Of the clock that nobody sets. It stands while the machine sleeps. */
  readonly steadyMs: number
  /** Of the clock that goes on while the machine sleeps. It may be set. */
  readonly wallMs: number
}

export function momentNow(): Moment {
  return { steadyMs: nowMs(), wallMs: wallClockMs() }
}

/**
 * How long an owner may rely on a lease that it wrote.
 *
 *   written ──────────── the owner relies on it ──────────▶ margin ─▶ leaseMs ─▶ a second ─▶ others take it for dead
 *
 * Three clocks have to agree: both of this machine, from the moment at which the writing began, and the service's, from the
 * moment at which it was done to the latest `Date` of any answer. The machine's need no `Date`. The service's is the one by
 * which others judge, so no answer that came after the end of the lease is taken for one that came before. Whichever clock
 * is set forward costs a renewal; a lease is relied on for too long only where each of them was set back or stood still.
 */
export class LeaseTerm {
  readonly #leaseMs: number
  readonly #clock: ServiceClock
  #start: Moment = { steadyMs: Number.NEGATIVE_INFINITY, wallMs: Number.NEGATIVE_INFINITY }
  #writtenMs: number | undefined

  constructor(leaseMs: number, clock: ServiceClock) {
    this.#leaseMs = leaseMs - Math.min(longestMarginMs, leaseMs * marginShare)
    this.#clock = clock
  }

  /**
   * The lease was written.
   * @param start when the request began
   * @param writtenMs when the service did it, by its own clock, or earlier; undefined where it does not say
   */
  begin(start: Moment, writtenMs: number | undefined): void {
    this.#start = start
    this.#writtenMs = writtenMs
  }

  /** Whether nobody can have taken this owner for dead before the last answer came. */
  get isValid(): boolean {
    if (nowMs() >= this.#start.steadyMs + this.#leaseMs) return false
    if (wallClockMs() >= this.#start.wallMs + this.#leaseMs) return false
    const { latestMs } = this.#clock
    if (latestMs === undefined || this.#writtenMs === undefined) return true
    return latestMs < this.#writtenMs + this.#leaseMs
  }
}

/** Whether the owner of a lease can be taken for dead: not as long as a time is unknown. Both by the service's clock. */
export function hasRunOut(
  writtenMs: number | undefined,
  leaseMs: number,
  serviceNowMs: number | undefined,
): boolean {
  if (writtenMs === undefined || serviceNowMs === undefined) return false
  return serviceNowMs >= writtenMs + leaseMs + clockResolutionMs
}
