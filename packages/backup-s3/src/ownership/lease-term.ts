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
 * Clocks have to agree: the one of this machine that nobody sets, from the moment at which the writing began; and the service's,
 * from the moment at which it was done to the latest `Date` of the answers since. The first needs no `Date`. The second is the one
 * by which others judge, so no answer that came after the end of the lease is taken for one that came before. Where others may also
 * judge by a silence that they count themselves, because the service tells no time or was set back, the machine's other clock
 * has to agree as well: it goes on in sleep. A clock that is set forward costs a renewal.
 */
export class LeaseTerm {
  readonly #leaseMs: number
  readonly #clock: ServiceClock
  readonly #countsSleep: boolean
  #start: Moment = { steadyMs: Number.NEGATIVE_INFINITY, wallMs: Number.NEGATIVE_INFINITY }
  #writtenMs: number | undefined

  /** `countsSleep`: others may take this owner for dead by a silence that they count by clocks of their own. */
  constructor(leaseMs: number, clock: ServiceClock, { countsSleep }: { readonly countsSleep: boolean }) {
    this.#leaseMs = leaseMs - Math.min(longestMarginMs, leaseMs * marginShare)
    this.#clock = clock
    this.#countsSleep = countsSleep
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
    const { steadyMs, wallMs } = this.#start
    if (nowMs() >= steadyMs + this.#leaseMs) return false
    if (this.#countsSleep && wallClockMs() >= wallMs + this.#leaseMs) return false
    const latestMs = this.#clock.latestSince(steadyMs)
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
