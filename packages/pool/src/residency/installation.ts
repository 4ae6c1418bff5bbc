import { SpillwayError } from '@spillway/core'
import type { BufferState } from './buffer-state.ts'
import { CachingConversion } from './caching-conversion.ts'
import { chunkOrder, emptyPages, type WantedPages } from './placement.ts'
import type { ResidentSet } from './resident-set.ts'

/** How chunks are made. */
interface InstallOptions {
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
  { pinned, chargedPages, retryMayFail = false }: InstallOptions,
): boolean {
  const { limit, pages } = residents
  const conversion = buffer.caching === 0 ? undefined : new CachingConversion(residents, buffer)
  const before = pinned.length
  pages.retryMayFail = retryMayFail
  try {
    const { page, leftPages } = makeChunks(residents, buffer, wanted, { pinned, chargedPages, conversion })
    conversion?.flush()
    if (leftPages > 0) limit.uncharge(leftPages)
    return page >= wanted.end
  } catch (failure) {
    // Back to how it was before the call (T25); evicting gives each chunk's charge back.
    let leftPages = chargedPages
    for (const chunk of pinned.splice(before)) {
      leftPages -= residents.chunks.pageCount(chunk)
      residents.uninstall(chunk, conversion?.isConverted(chunk) ?? true)
    }
    if (leftPages > 0) limit.uncharge(leftPages)
    throw failure
  } finally {
    pages.retryMayFail = false
  }
}

interface ChunksToMake {
  readonly pinned: number[]
  readonly chargedPages: number
  readonly conversion: CachingConversion | undefined
}

/** Returns the page where it ended, and the pages that were charged and not used. */
function makeChunks(
  residents: ResidentSet,
  buffer: BufferState,
  wanted: WantedPages,
  { pinned, chargedPages, conversion }: ChunksToMake,
): { page: number; leftPages: number } {
  const { chunks, pages } = residents
  const { end, storedOnly = false } = wanted
  let leftPages = chargedPages
  let page = wanted.first
  while (page < end && leftPages > 0) {
    let chunk = buffer.table.chunkAt(page)
    if (chunk === 0) {
      const empty = storedOnly ? emptyPages(buffer.table, page, end) : 0
      if (empty > 0) {
        page += empty
        continue
      }
      const order = chunkOrder(buffer, page, wanted)
      chunk = residents.install(buffer, page, Math.min(31 - Math.clz32(leftPages), order))
      if (chunk === 0) throw noMemory(buffer, page)
      leftPages -= chunks.pageCount(chunk)
      pinned.push(chunk)
      conversion?.add(chunk, pages.takenConverted)
    }
    page = chunks.endPageOf(chunk)
  }
  return { page, leftPages }
}

function noMemory(buffer: BufferState, page: number): SpillwayError {
  const fields = { buffer: buffer.label, page }
  return new SpillwayError('ENOMEM', `the page provider has no memory for buffer ${buffer.label}`, fields)
}
