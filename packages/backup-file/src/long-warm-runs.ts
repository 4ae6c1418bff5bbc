import type { BitSet, HandleRun, SlotAllocator } from '@spillway/core'

/** Warm slots that lie together in this much, as much as the largest request, are used before others. */
const longRunBytes = 2 * 1024 * 1024
/** Runs of them that one search looks at: a longer one may come later, but not within a bounded time. */
const looksAtRuns = 8

/**
 * Adjacent warm slots for a call that wants many: what the file has is written in less time than new space, and nothing is punched
 * for it later. Short runs, and the ends of long ones, are left to others, since what is stored together should lie together.
 */
export class LongWarmRuns {
  readonly #slots: SlotAllocator
  readonly #warm: BitSet
  /** Slots that a run has at least. */
  readonly #least: number
  /** Where the last search ended. */
  #cursor = 0

  /** `warm` are the free slots that have space. Without `pageSizeBytes` there are no runs, as where what is overwritten takes new space. */
  constructor(slots: SlotAllocator, warm: BitSet, pageSizeBytes: number | undefined) {
    this.#slots = slots
    this.#warm = warm
    this.#least =
      pageSizeBytes === undefined ? Number.POSITIVE_INFINITY : Math.max(1, longRunBytes / pageSizeBytes)
  }

  /** Takes up to `wanted` adjacent slots, which are still in `warm`; `undefined` where no run is found in a bounded time. */
  take(wanted: number): HandleRun | undefined {
    const least = this.#least
    if (wanted < least || this.#warm.count < least) return undefined
    for (let look = 0; look < looksAtRuns; look++) {
      const found = this.#warm.runFrom(this.#cursor, wanted)
      if (found === undefined) {
        this.#cursor = 0
        continue
      }
      const count = found.count === wanted ? wanted : found.count - (found.count % least)
      const run = count > 0 ? this.#slots.allocateAt(found.first, count) : undefined
      this.#cursor = found.first + (run ?? found).count
      if (run !== undefined) return run
    }
    return undefined
  }
}
