import { nowMs } from '@spillway/core'

/** As many times are kept apart; a service whose clock goes back more often counts as later than it says. */
const mostTimes = 64

/**
 * The service's own clock, as its answers tell it in their `Date`, in whole seconds. Leases are judged by it, since it
 * goes on while this machine sleeps, and nobody sets it here.
 */
export class ServiceClock {
  /** The latest time that any answer told, in milliseconds; undefined as long as none had a `Date`. */
  latestMs: number | undefined
  /** Times, and when they came, of `nowMs()`: each is later than all that came after it. */
  readonly #times: { timeMs: number; readonly cameMs: number }[] = []

  /** Takes in the `Date` of an answer and returns it in milliseconds; undefined where there is none. */
  observe(date: string | undefined): number | undefined {
    const timeMs = date === undefined ? Number.NaN : Date.parse(date)
    if (Number.isNaN(timeMs)) return undefined
    if (this.latestMs === undefined || timeMs > this.latestMs) this.latestMs = timeMs
    const times = this.#times
    while (times.length > 0 && times[times.length - 1].timeMs <= timeMs) times.pop()
    times.push({ timeMs, cameMs: nowMs() })
    if (times.length > mostTimes) times[1].timeMs = times.shift()!.timeMs
    return timeMs
  }

  /** The latest time that answers told which came at `sinceMs` of `nowMs()` or later; undefined where none did. */
  latestSince(sinceMs: number): number | undefined {
    return this.#times.find(({ cameMs }) => cameMs >= sinceMs)?.timeMs
  }
}
