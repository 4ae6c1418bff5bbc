import { nowMs } from '@spillway/core'
import type { ServiceClock } from '../service/service-clock.ts'

/** `Last-Modified` and `Date` have whole seconds. */
export const clockResolutionMs = 1000
/** The part of a lease that its owner does not rely on, and the most of it, in milliseconds. */
const marginShare = 0.1
const longestMarginMs = 5000

/**
 * How long an owner may rely on a lease that it wrote.
 *
 *   written ──────────── the owner relies on it ──────────▶ margin ─▶ leaseMs ─▶ a second ─▶ others take it for dead
 *
 * Two clocks have to agree: this process's own, from the moment at which the writing began, and the service's, from the
 * moment at which it was done to the latest `Date` of any answer. The first needs no `Date`; the second goes on while
 * this machine sleeps, and no answer that came after the end of the lease is taken for one that came before.
 */
export class LeaseTerm {
  readonly #leaseMs: number
  readonly #clock: ServiceClock
  #startedAt = Number.NEGATIVE_INFINITY
  #writtenMs: number | undefined

  constructor(leaseMs: number, clock: ServiceClock) {
    this.#leaseMs = leaseMs - Math.min(longestMarginMs, leaseMs * marginShare)
    this.#clock = clock
  }

  /**
   * The lease was written.
   * @param startedAt when the request began, of `performance.now()`
   * @param writtenMs when the service did it, by its own clock, or earlier; undefined where it does not say
   */
  begin(startedAt: number, writtenMs: number | undefined): void {
    this.#startedAt = startedAt
    this.#writtenMs = writtenMs
  }

  /** Whether nobody can have taken this owner for dead before the last answer came. */
  get isValid(): boolean {
    if (nowMs() >= this.#startedAt + this.#leaseMs) return false
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
