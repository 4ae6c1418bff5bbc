import { delay, SpillwayError } from '@spillway/core'
import { pace, sliceBytes } from '../ground/pace.ts'
import type { BufferState } from '../residency/buffer-state.ts'
import { findPage, looksPerStep, whileFreeing } from '../residency/chunk-walk.ts'
import { emptyPages } from '../residency/placement.ts'
import type { ResidentSet } from '../residency/resident-set.ts'
import type { Destination } from '../residency/resident-set-options.ts'
import { isZeroNow } from '../residency/zero-content.ts'
import { busy, dirty, partial, unevictable } from '../table/chunks.ts'
import { pinnedError } from './call-progress.ts'

/**
 * Giving up what buffers hold, in memory and in backups, in any state they may be in (T36, T49).
 *
 *   stored ──────────────────▶ dropped
 *   chunk inside the range ──▶ discarded, with what is stored of it
 *   chunk across its border ─▶ partial: evicted, and then it is stored pages
 *                              else: the range's part is zeros in memory, and not stored any more
 */
export class Discards {
  readonly #residents: ResidentSet

  constructor(residents: ResidentSet) {
    this.#residents = residents
  }

  /**
   * Gives up the content of some pages of a buffer without storing it (T36). Rejects with `EBUSY` when somebody pins them
   * meanwhile; what was given up by then stays so. Resolves to the pages given up.
   */
  async purge(buffer: BufferState, first: number, end: number): Promise<number> {
    const { counters } = this.#residents
    const purged = { pages: 0 }
    try {
      await this.giveUp(buffer, { destination: 'system', progress: purged, first, end })
    } finally {
      if (purged.pages > 0) buffer.purged = true
      counters.purgedPages += purged.pages
    }
    return purged.pages
  }

  /** Gives up the content of pages, all of them by default; counts them in `progress`. */
  giveUp(buffer: BufferState, options: GiveUpOptions): Promise<void> {
    return whileFreeing(this.#residents, this.#giveUpAll(buffer, options))
  }

  async #giveUpAll(buffer: BufferState, options: GiveUpOptions): Promise<void> {
    const { destination, progress = { pages: 0 }, pinned = 'fail' } = options
    const { first = 0, end = buffer.table.pageCount } = options
    const { chunks, operations } = this.#residents
    const { table } = buffer
    let looks = 0
    for (let page = first; page < end; ) {
      const empty = emptyPages(table, page, end)
      if (empty > 0) {
        page += empty
        // Looking costs little; giving memory back does not.
        if (++looks % looksPerStep !== 0) continue
        const turn = pace()
        if (turn !== undefined) await turn
        continue
      }
      const count = table.foundPages
      if (table.found === 'chunk') {
        const chunk = table.foundChunk
        if (chunks.has(chunk, busy)) {
          await chunks.whenSettled(chunk)
          continue
        }
        if (chunks.isPinned(chunk)) {
          if (operations.release(chunk)) continue
          if (operations.isPinnedByApplication(chunk)) {
            if (pinned === 'fail') throw pinnedError(buffer, page)
            page += count
            continue
          }
          // What holds it is a call, and that ends.
          await delay(0)
          continue
        }
        if (count === chunks.pageCount(chunk)) {
          this.#residents.discard(chunk, destination)
        } else if (chunks.has(chunk, partial)) {
          this.#residents.evict(chunk, destination)
          continue
        } else {
          await this.#giveUpPart(buffer, chunk, { page, count, destination })
        }
        progress.pages += count
      } else if (table.found === 'handle') {
        this.#residents.discardStored(buffer, page, count)
        progress.pages += count
      }
      page += count
      const turn = pace()
      if (turn !== undefined) await turn
    }
  }

  /** Gives up some pages of a chunk that nobody holds; it stays for the others, and goes when there are none. */
  async #giveUpPart(
    buffer: BufferState,
    chunk: number,
    { page, count, destination }: PartToGiveUp,
  ): Promise<void> {
    const residents = this.#residents
    const { chunks } = residents
    const index = page - chunks.firstPageOf(chunk)
    residents.giveUpStoredPart(chunk, index, count)
    // Held meanwhile: until its memory is zeros it must not leave, for its pages are not stored any more.
    const held = [chunk]
    residents.operations.keepsWriting(held)
    residents.pin(chunk)
    try {
      const bytes = residents.bytes(chunk)
      const pageSizeBytes = bytes.byteLength / chunks.pageCount(chunk)
      const endBytes = (index + count) * pageSizeBytes
      for (let from = index * pageSizeBytes; from < endBytes; from += sliceBytes) {
        bytes.fill(0, from, Math.min(endBytes, from + sliceBytes))
        const turn = pace()
        if (turn !== undefined) await turn
      }
      const turn = pace()
      if (turn !== undefined) await turn
    } finally {
      residents.unpin(chunk, buffer)
      residents.operations.keepsNoMore(held)
      residents.unpinned()
    }
    if (chunks.isPinned(chunk) || chunks.has(chunk, busy) || chunks.storedAt(chunk) !== 0) return
    // Which parts of a dirty chunk were given up before is not recorded; all were when nothing is left in it.
    if (!chunks.has(chunk, dirty) || isZeroNow(residents.bytes(chunk))) residents.discard(chunk, destination)
  }
}

interface GiveUpOptions {
  /** Where the memory goes. */
  readonly destination: Destination
  readonly progress?: { pages: number }
  readonly first?: number
  readonly end?: number
  /** What of these pages lies in chunks that the application pins: `EBUSY` by default, or it stays. */
  readonly pinned?: 'fail' | 'leave'
}

/** Some pages of a chunk. */
interface PartToGiveUp {
  readonly page: number
  readonly count: number
  readonly destination: Destination
}

/** Throws `EBUSY` when a page is in memory that it may not leave (T34). */
export function assertMayLeave(residents: ResidentSet, buffer: BufferState): void {
  if (residents.unevictablePages === 0) return
  const page = findPage(residents, buffer, (chunk) => residents.chunks.has(chunk, unevictable))
  if (page === undefined) return
  throw unevictableError(buffer, page)
}

/** `EBUSY` for a page whose provider does not let it leave. */
export function unevictableError(buffer: BufferState, page: number): SpillwayError {
  return new SpillwayError('EBUSY', `the page provider of buffer ${buffer.label} does not let pages leave`, {
    buffer: buffer.label,
    page,
  })
}
