import { SpillwayError } from '@spillway/core'
import type { BufferState } from './buffer-state.ts'
import { CachingConversion } from './caching-conversion.ts'
import { chunkOrder, emptyPages, type WantedPages } from './placement.ts'
import type { ResidentSet } from './resident-set.ts'

/** The chunks that are to be made of a range. */
export interface ChunksToInstall {
  /** What is pinned of the range: new chunks are added. */
  readonly pinned: number[]
  /** Pages that were charged for all that is missing. */
  readonly chargedPages: number
  /** Rather none than that the provider tries hard (T45). */
  readonly retryMayFail?: boolean | undefined
}

/**
 * Makes chunks for the pages of a range that are missing, from pages that are charged already, and pins them; gives back
 * what was charged too much. Returns whether all of the range has chunks now. Throws `ENOMEM`, or what the provider throws,
 * and has made none then (T25).
 */
export function installMissing(
  residents: ResidentSet,
  buffer: BufferState,
  wanted: WantedPages,
  toInstall: ChunksToInstall,
): boolean {
  const { limit, pages, chunks } = residents
  const { pinned } = toInstall
  const conversion = buffer.caching === 0 ? undefined : new CachingConversion(residents, buffer)
  const before = pinned.length
  let leftPages = toInstall.chargedPages
  pages.retryMayFail = toInstall.retryMayFail === true
  try {
    let page = wanted.first
    while (page < wanted.end && leftPages > 0) {
      let chunk = buffer.table.chunkAt(page)
      if (chunk === 0) {
        const empty = wanted.storedOnly === true ? emptyPages(buffer.table, page, wanted.end) : 0
        if (empty > 0) {
          page += empty
          continue
        }
        const order = Math.min(31 - Math.clz32(leftPages), chunkOrder(buffer, page, wanted))
        chunk = residents.install(buffer, page, order)
        if (chunk === 0) throw noMemory(buffer, page)
        leftPages -= chunks.pageCount(chunk)
        pinned.push(chunk)
        conversion?.add(chunk, pages.takenConverted)
      }
      page = chunks.endPageOf(chunk)
    }
    conversion?.flush()
    if (leftPages > 0) limit.uncharge(leftPages)
    return page >= wanted.end
  } catch (failure) {
    // Back to how it was before the call (T25); evicting gives each chunk's charge back.
    for (const chunk of pinned.splice(before))
      residents.uninstall(chunk, conversion?.isConverted(chunk) ?? true)
    if (leftPages > 0) limit.uncharge(leftPages)
    throw failure
  } finally {
    pages.retryMayFail = false
  }
}

function noMemory(buffer: BufferState, page: number): SpillwayError {
  const fields = { buffer: buffer.label, page }
  return new SpillwayError('ENOMEM', `the page provider has no memory for buffer ${buffer.label}`, fields)
}
