import { SpillwayError } from '@spillway/core'
import type { Reclaim } from './reclaim.ts'
import type { Residents } from './residents.ts'

/** Changes of the limit at run time: it never says less than what is resident. */
export class LimitChanges {
  readonly #residents: Residents
  readonly #reclaim: Reclaim
  #last: Promise<void> = Promise.resolve()

  constructor(residents: Residents, reclaim: Reclaim) {
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
      if (!limit.tryClaim(sinkBy)) await limit.claim(sinkBy, () => sinkBy, signal)
      limit.chargedPages -= sinkBy
      limit.limitPages = limitPages
      await this.#fitInto(limitPages)
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
  async #fitInto(limitPages: number): Promise<void> {
    const { limit, pages } = this.#residents
    const before = pages.limitPages
    for (;;) {
      const surplus = pages.residentPages - limitPages
      if (surplus <= 0) {
        // At once: whoever runs next may take memory.
        pages.limitPages = limitPages
        return
      }
      if ((await this.#reclaim.shrink(surplus)) > 0) continue
      limit.limitPages = before
      // Who came meanwhile waits for room that is there after all.
      limit.serveSoon()
      throw new SpillwayError(
        'ENOMEM',
        `${pages.residentPages} pages are resident and cannot all leave; the limit stays at ${before} pages`,
      )
    }
  }
}
