/**
 * The service's own clock, as its answers tell it in their `Date`, in whole seconds. Leases are judged by it, since it
 * goes on while this machine sleeps, and nobody sets it here.
 */
export class ServiceClock {
  /** The latest time that any answer told, in milliseconds; undefined as long as none had a `Date`. */
  latestMs: number | undefined

  /** Takes in the `Date` of an answer and returns it in milliseconds; undefined where there is none. */
  observe(date: string | undefined): number | undefined {
    const time = date === undefined ? Number.NaN : Date.parse(date)
    if (Number.isNaN(time)) return undefined
    if (this.latestMs === undefined || time > this.latestMs) this.latestMs = time
    return time
  }
}
