import { abortError, delay, SpillwayError } from '@spillway/core'
import type { Reclaim } from '../residency/reclaim.ts'
import type { ResidentSet } from '../residency/resident-set.ts'
import { settledOrAborted } from '../residency/waiting.ts'

/** A change that is not in force yet. */
interface Change {
  readonly limitPages: number
  /** Aborted by the caller, or because a later change overtook this one. */
  readonly stop: AbortController
  overtaken: SpillwayError | undefined
  /** Never rejects. */
  readonly ended: Promise<void>
}

/**
 * Changes of the limit at run time. Two limits are kept: `limit.limitPages` is what may be charged, and sinks as soon as so
 * much is free; `pages.limitPages` is what may be resident, what the application is told, and sinks when it is kept.
 *
 *   lower than those that wait ─▶ waits behind them, since it needs what they need
 *   else                       ─▶ those that wait for less memory end with EINTR; the last call counts
 */
export class LimitChanges {
  readonly #residents: ResidentSet
  readonly #reclaim: Reclaim
  /** In the order of the calls, each lower than the one before. */
  readonly #waiting: Change[] = []

  constructor(residents: ResidentSet, reclaim: Reclaim) {
    this.#residents = residents
    this.#reclaim = reclaim
  }

  /**
   * Sets the limit; a lower one resolves when it is kept. Rejects with `EINTR` when aborted or overtaken, with `ENOMEM` when it
   * cannot be kept; then the limit is as before.
   */
  async set(limitPages: number, signal: AbortSignal | undefined): Promise<void> {
    if (signal?.aborted === true) throw abortError(signal)
    const overtaken = new SpillwayError('EINTR', `a later call set the limit to ${limitPages} pages`)
    for (const earlier of this.#waiting) {
      if (earlier.limitPages > limitPages) continue
      earlier.overtaken ??= overtaken
      earlier.stop.abort(overtaken)
    }
    const before = this.#waiting.filter(({ stop }) => !stop.signal.aborted).at(-1)
    const stop = new AbortController()
    const { promise: ended, resolve: end } = Promise.withResolvers<void>()
    const change: Change = { limitPages, stop, ended, overtaken: undefined }
    this.#waiting.push(change)
    const onAbort = () => stop.abort(signal!.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
    try {
      await this.#apply(limitPages, before, stop.signal)
    } catch (failure) {
      throw change.overtaken ?? failure
    } finally {
      signal?.removeEventListener('abort', onAbort)
      this.#waiting.splice(this.#waiting.indexOf(change), 1)
      end()
    }
  }

  async #apply(limitPages: number, before: Change | undefined, signal: AbortSignal): Promise<void> {
    if (before !== undefined) await settledOrAborted(before.ended, signal)
    const { limit, pages } = this.#residents
    const sinkBy = () => Math.max(0, limit.limitPages - limitPages)
    if (sinkBy() > 0) {
      // The pages between the limits are charged to nobody, so they are free when the limit sinks past them.
      const charged = limit.tryCharge(sinkBy()) ? sinkBy() : await limit.charge(sinkBy, signal)
      limit.uncharge(charged)
      if (signal.aborted) throw abortError(signal)
    }
    limit.limitPages = limitPages
    if (limitPages < pages.limitPages) await this.#fitInto(limitPages, signal)
    else pages.limitPages = limitPages
    limit.serveSoon()
  }

  /**
   * Gives memory back until so many pages are resident, and lets no more become so; idle memory of a slab that is in use
   * may take chunks with it.
   */
  async #fitInto(limitPages: number, signal: AbortSignal): Promise<void> {
    const { limit, pages } = this.#residents
    try {
      for (let hasWaited = false; ; ) {
        if (signal.aborted) throw abortError(signal)
        const surplus = pages.residentPages - limitPages
        if (surplus <= 0) {
          // At once: whoever runs next may take memory.
          pages.limitPages = limitPages
          return
        }
        if ((await this.#reclaim.shrink(surplus)) > 0) continue
        const failing = this.#reclaim.failingBackup
        if (failing === undefined || hasWaited)
          throw cannotSink(pages.residentPages, pages.limitPages, failing?.failure)
        // Left alone for a while, but it may be well again.
        await settledOrAborted(delay(failing.backoffMs + 1), signal)
        hasWaited = true
      }
    } catch (failure) {
      // Unless a later call has changed it: then that one counts.
      if (limit.limitPages === limitPages) limit.limitPages = pages.limitPages
      // Who came meanwhile waits for room that is there after all.
      limit.serveSoon()
      throw failure
    }
  }
}

function cannotSink(residentPages: number, limitPages: number, cause: Error | undefined): SpillwayError {
  return new SpillwayError(
    'ENOMEM',
    `${residentPages} pages are resident and cannot all leave; the limit stays at ${limitPages} pages`,
    { cause },
  )
}
