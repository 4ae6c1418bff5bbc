import {
  abortError,
  type BackupResult,
  type HandleRun,
  pace,
  type SlotAllocator,
  type SpanCursor,
  SpillwayError,
  systemError,
} from '@spillway/core'
import { type Capacity, isFull, type ShmemReservation } from './capacity.ts'
import type { LiveHandles } from './live-handles.ts'
import type { Medium } from './media/medium.ts'
import type { SlotMemory } from './slot-memory.ts'

export interface PageWriterParts {
  /** Names the backup in errors. */
  readonly backup: string
  readonly pageSizeBytes: number
  /** Stored in one synchronous step. */
  readonly sliceSlots: number
  readonly medium: Medium
  readonly slots: SlotAllocator
  readonly memory: SlotMemory
  readonly capacity: Capacity
  readonly live: LiveHandles
}

/**
 * Stores pages. A page goes through these steps, and only one that has passed the last can be read:
 *
 *   slot taken ─▶ memory made sure of ─▶ bytes copied ─▶ published ─▶ handle in the result
 *
 * Slots of which a step fails go back, so that a result is always a prefix.
 */
export class PageWriter {
  readonly #parts: PageWriterParts
  #storedPages = 0

  constructor(parts: PageWriterParts) {
    this.#parts = parts
  }

  /** Pages stored since the backup was opened. */
  get storedPages(): number {
    return this.#storedPages
  }

  /** Stores the next `pageCount` pages of `source`: resolves with handles of a prefix and what stopped it. */
  async store(
    source: SpanCursor,
    pageCount: number,
    reservation: ShmemReservation | undefined,
    signal: AbortSignal | undefined,
  ): Promise<BackupResult> {
    const { capacity, slots } = this.#parts
    const handles: HandleRun[] = []
    const search = capacity.search(pageCount)
    let refusal: Error | undefined
    let done = 0
    while (done < pageCount) {
      if (signal?.aborted) return { handles, error: abortError(signal, this.#at(done)) }
      const taken = capacity.take(pageCount - done, reservation, search)
      if (taken === undefined) return { handles, error: this.#full(refusal, done) }
      const { run, isReserved } = taken
      const { stored, error } = await this.#storeRun(run, source, isReserved, { done, signal })
      if (stored > 0) handles.push({ first: run.first, count: stored })
      if (stored < run.count) {
        const rest = { first: run.first + stored, count: run.count - stored }
        capacity.putBack(rest, isReserved ? reservation : undefined)
      }
      done += stored
      if (error === undefined) continue
      if (isReserved || !isFull(error)) return { handles, error }
      refusal = error
      search.refused(slots.slotOf(run.first) + stored)
    }
    return { handles }
  }

  /** Stores pages in the slots of one run: how many, and what stopped it. */
  async #storeRun(
    run: HandleRun,
    source: SpanCursor,
    isReserved: boolean,
    { done, signal }: { readonly done: number; readonly signal: AbortSignal | undefined },
  ): Promise<{ stored: number; error?: Error | undefined }> {
    const { pageSizeBytes } = this.#parts
    let { sliceSlots } = this.#parts
    let stored = 0
    while (stored < run.count) {
      const count = Math.min(run.count - stored, sliceSlots)
      const turn = pace(count * pageSizeBytes)
      if (turn !== undefined) await turn
      if (signal?.aborted) return { stored, error: abortError(signal, this.#at(done + stored)) }
      const slice = { first: run.first + stored, count }
      const error = this.#storeSlice(slice, source, isReserved, done + stored)
      if (error === undefined) stored += count
      else if (count === 1 || !isFull(error)) return { stored, error }
      // Some of it may fit: every page there is room for is stored.
      else sliceSlots = Math.floor(count / 2)
    }
    return { stored }
  }

  /** Stores and publishes pages; returns what stopped it, and then none of them is stored. */
  #storeSlice(
    { first, count }: HandleRun,
    source: SpanCursor,
    isReserved: boolean,
    page: number,
  ): Error | undefined {
    const { slots, memory, medium, live, pageSizeBytes } = this.#parts
    const slot = slots.slotOf(first)
    let isClaimed = false
    try {
      if (!isReserved) memory.claim(slot, count)
      isClaimed = !isReserved
      source.each(count * pageSizeBytes, (span, start, length, moved) => {
        medium.write(slot * pageSizeBytes + moved, span, start, length)
      })
      live.publish(first, count)
    } catch (failure) {
      if (isClaimed) memory.unclaim(slot, count)
      return systemError(failure, `cannot store pages in ${medium.kind}`, this.#at(page))
    }
    this.#storedPages += count
    return undefined
  }

  #full(refusal: Error | undefined, page: number): SpillwayError {
    const { backup } = this.#parts
    const message =
      refusal === undefined
        ? `backup ${backup} is full`
        : `backup ${backup} gets no memory: ${refusal.message}`
    return new SpillwayError('ENOSPC', message, { ...this.#at(page), cause: refusal })
  }

  #at(page: number): { backup: string; page: number } {
    return { backup: this.#parts.backup, page }
  }
}
