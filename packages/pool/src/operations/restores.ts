import { SpillwayError } from '@spillway/core'
import { pace } from '../ground/pace.ts'
import { asError } from '../residency/backing-store.ts'
import type { BufferState } from '../residency/buffer-state.ts'
import { closedBuffer } from '../residency/closed.ts'
import type { Pins } from '../residency/pins.ts'
import { emptyPages, naturalPages, windowEnd } from '../residency/placement.ts'
import { inPages } from '../residency/refusal.ts'
import type { ResidentSet } from '../residency/resident-set.ts'
import { partial } from '../table/chunks.ts'
import { CallProgress, type RestoreOptions, type TransferResult } from './call-progress.ts'

/**
 * Restores of whole buffers (T40–T47).
 *
 *   window by window, each held only while it is filled ─▶ nothing is missing: done
 *                                                       └─▶ others evicted some of it meanwhile:
 *                                                           one claim for all that is missing, all of it held ─▶ done
 *
 * The first pass holds no more than a window, so others get memory between its claims, and two restores never wait for
 * each other. The claim that may follow waits in the queue like a pin of the whole buffer, and holds nothing before it is
 * the first there: it can neither be overtaken for ever nor wait for a claim behind it.
 */
export class Restores {
  readonly #residents: ResidentSet
  readonly #pins: Pins

  constructor(residents: ResidentSet, pins: Pins) {
    this.#residents = residents
    this.#pins = pins
  }

  /** Brings all stored pages of a buffer into memory. */
  async restore(buffer: BufferState, options: RestoreOptions): Promise<TransferResult> {
    const { table } = buffer
    const { limitPages, pageSizeBytes } = this.#residents.limit
    if (table.residentPages + table.storedPages > limitPages) {
      const has = inPages(table.residentPages + table.storedPages, pageSizeBytes)
      const limited = inPages(limitPages, pageSizeBytes)
      throw new SpillwayError(
        'ENOMEM',
        `buffer ${buffer.label} has ${has}; the limit is ${limited}; read it, which takes it in parts, or raise the limit`,
        { buffer: buffer.label, retryable: false },
      )
    }
    const run = new CallProgress(buffer, options.onProgress)
    const wasPurged = buffer.purged
    buffer.purged = false
    let error: Error | undefined
    try {
      error = await this.#restoreAll(buffer, run, options)
      if (error === undefined && wasPurged) error = purgedError(buffer)
    } finally {
      // Whoever hears of another failure instead has not been told yet.
      if (wasPurged && (error as { code?: unknown } | undefined)?.code !== 'ENOENT') buffer.purged = true
    }
    return error === undefined ? { pages: run.pages } : { pages: run.pages, error }
  }

  /** Resolves to what stopped it. */
  async #restoreAll(
    buffer: BufferState,
    run: CallProgress,
    options: RestoreOptions,
  ): Promise<Error | undefined> {
    const { table } = buffer
    let failed: Error | undefined
    /** Pages that the backup cannot give, by what it said first: the others come all the same. */
    const damaged = new Set<number>()
    let damage: Error | undefined
    const tight = await this.#mustBeTight(buffer)
    for (let page = 0; page < table.pageCount && failed === undefined && run.error === undefined; ) {
      if (buffer.closing) throw closedBuffer(buffer)
      const first = await this.#firstMissing(buffer, page, damaged)
      if (first >= table.pageCount) break
      const most = windowEnd(buffer, first, this.#residents.limit.limitPages)
      const end = this.#missingEnd(buffer, first, most, damaged)
      // A chunk may reach past the window, over pages that were never written to others that are stored.
      const reach = table.blockEnd(end - 1)
      const before = this.#missingPages(buffer, first, reach)
      let pinned: number[] | undefined
      try {
        pinned = await this.#pins.pin(buffer, { first, end, tight }, { ...options, write: false })
      } catch (failure) {
        failed = asError(failure)
      }
      const damagedPage = damagedPageOf(failed)
      if (damagedPage !== undefined && damagedPage >= first && damagedPage < end) {
        damage ??= failed
        damaged.add(damagedPage)
        failed = await this.#setAside(buffer, damagedPage, options)
        run.add(before - this.#missingPages(buffer, first, reach))
        continue
      }
      const came = before - this.#missingPages(buffer, first, reach)
      if (pinned !== undefined) this.#pins.letGo(buffer, pinned)
      run.add(came)
      page = end
    }
    failed ??= damage
    if (run.error === undefined) failed ??= await this.#bringBack(buffer, run, options, tight)
    return failed ?? run.error
  }

  /** What is missing after all windows were filled had been there: now all of the buffer is held at one moment. */
  async #bringBack(
    buffer: BufferState,
    run: CallProgress,
    options: RestoreOptions,
    tightBefore: boolean,
  ): Promise<Error | undefined> {
    const { pageCount } = buffer.table
    const first = await this.#firstMissing(buffer, 0)
    if (first >= pageCount) return undefined
    const tight = tightBefore || (await this.#mustBeTight(buffer))
    if (buffer.closing) throw closedBuffer(buffer)
    const missing = this.#missingPages(buffer, first, pageCount)
    let failed: Error | undefined
    try {
      const wanted = { first: 0, end: pageCount, storedOnly: true, tight }
      this.#pins.letGo(buffer, await this.#pins.pin(buffer, wanted, { ...options, write: false }))
    } catch (failure) {
      failed = asError(failure)
    }
    run.add(missing - (failed === undefined ? 0 : this.#missingPages(buffer, first, pageCount)))
    return failed
  }

  /** Has the others of its chunk come without it; resolves to why they cannot: the call is aborted. */
  async #setAside(buffer: BufferState, page: number, { signal }: RestoreOptions): Promise<Error | undefined> {
    try {
      await this.#pins.damage.setAside(buffer, page, signal)
      return undefined
    } catch (failure) {
      return asError(failure)
    }
  }

  /** Whether the chunks that would be made cover so many empty pages that they do not fit, though what is stored does. */
  async #mustBeTight(buffer: BufferState): Promise<boolean> {
    const { limitPages } = this.#residents.limit
    return buffer.table.pageCount > limitPages && (await naturalPages(buffer, limitPages)) > limitPages
  }

  /** The first page from `page` on that is stored, or whose chunk was only filled in part, and is none of those `damaged`. */
  async #firstMissing(
    buffer: BufferState,
    page: number,
    damaged: ReadonlySet<number> = new Set(),
  ): Promise<number> {
    const { table } = buffer
    let next = page
    while (next < table.pageCount) {
      table.look(next, table.pageCount)
      const isMissing = this.#isMissing(buffer)
      if (isMissing && !damaged.has(next)) return next
      if (isMissing) {
        next++
        continue
      }
      next += emptyPages(table, next, table.pageCount) || table.foundPages
      const turn = pace()
      if (turn !== undefined) await turn
    }
    return next
  }

  #missingEnd(buffer: BufferState, first: number, end: number, damaged: ReadonlySet<number>): number {
    const { table } = buffer
    let next = first
    while (next < end) {
      table.look(next, end)
      if (!this.#isMissing(buffer)) break
      next += table.foundPages
    }
    next = Math.min(next, end)
    for (const page of damaged) if (page > first && page < next) next = page
    return next
  }

  #missingPages(buffer: BufferState, first: number, end: number): number {
    const { table } = buffer
    let missing = 0
    for (let page = first; page < end; ) {
      const empty = emptyPages(table, page, end)
      page += empty || table.foundPages
      if (empty > 0 || !this.#isMissing(buffer)) continue
      missing += table.foundPages
      if (table.found === 'chunk') missing -= this.#residents.chunks.restoredOf(table.foundChunk)
    }
    return missing
  }

  #isMissing(buffer: BufferState): boolean {
    const { table } = buffer
    if (table.found === 'handle') return true
    return table.found === 'chunk' && this.#residents.chunks.has(table.foundChunk, partial)
  }
}

function purgedError({ label }: BufferState): SpillwayError {
  return new SpillwayError('ENOENT', `content of buffer ${label} was purged; what is gone reads as zeros`, {
    buffer: label,
  })
}

/** The page that stopped a page-in because what is stored of it is damaged. */
function damagedPageOf(failure: Error | undefined): number | undefined {
  const { code, page } = (failure ?? {}) as { code?: unknown; page?: number }
  return code === 'EBADMSG' ? page : undefined
}
