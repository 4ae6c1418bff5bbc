import { delay, SpillwayError } from '@spillway/core'
import type { Reclaim } from '../residency/reclaim.ts'
import type { ResidentSet } from '../residency/resident-set.ts'
import { settledOrAborted } from '../residency/waiting.ts'

/** Changes of the limit at run time: it never says less than what is resident. */
export class LimitChanges {
  readonly #residents: ResidentSet
  readonly #reclaim: Reclaim
  #last: Promise<void> = Promise.resolve()

  constructor(residents: ResidentSet, reclaim: Reclaim) {
    this.#residents = residents
    this.#reclaim = reclaim
  }

  /** Sets the limit; a lower one waits until it can be kept. One change after the other. */
  set(limitPages: number, signal: AbortSignal | undefined): Promise<void> {
    const change = this.#last.then(() => this.#set(limitPages, signal))
    this.#last = change.catch(() => {})
    return change
  }

  async #set(limitPages: number, signal: AbortSignal | undefined): Promise<void> {
    const { limit, pages } = this.#residents
    const sinkBy = limit.limitPages - limitPages
    if (sinkBy > 0) {
      // The pages between the limits are charged to nobody, so they are free when the limit sinks past them.
      if (!limit.tryCharge(sinkBy)) await limit.claim(sinkBy, () => sinkBy, signal)
      limit.chargedPages -= sinkBy
      limit.limitPages = limitPages
      await this.#fitInto(limitPages, signal)
    } else {
      limit.limitPages = limitPages
      pages.limitPages = limitPages
    }
    limit.serveSoon()
  }

  /**
   * Gives memory back until so many pages are resident, and lets no more become so; idle memory of a slab that is in use
   * may take chunks with it.
   */
  async #fitInto(limitPages: number, signal: AbortSignal | undefined): Promise<void> {
    const { limit, pages } = this.#residents
    const before = pages.limitPages
    try {
      for (let hasWaited = false; ; ) {
        const surplus = pages.residentPages - limitPages
        if (surplus <= 0) {
          // At once: whoever runs next may take memory.
          pages.limitPages = limitPages
          return
        }
        if ((await this.#reclaim.shrink(surplus)) > 0) continue
        const failing = this.#reclaim.failingBackup
        if (failing === undefined || hasWaited)
          throw cannotSink(pages.residentPages, before, failing?.failure)
        // Left alone for a while, but it may be well again.
        await settledOrAborted(delay(failing.backoffMs + 1), signal)
        hasWaited = true
      }
    } catch (failure) {
      limit.limitPages = before
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
