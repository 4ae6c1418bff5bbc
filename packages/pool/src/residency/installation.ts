import { SpillwayError } from '@spillway/core'
import type { BufferState } from './buffer-state.ts'
import { CachingConversion } from './caching-conversion.ts'
import { chunkOrder, emptyPages } from './placement.ts'
import type { ResidentSet } from './resident-set.ts'

/** How chunks are made. */
interface InstallOptions {
  /** Rather none than that the provider tries hard (T45). */
  readonly retryMayFail?: boolean | undefined
  /** None for pages that are not stored either. */
  readonly storedOnly?: boolean | undefined
  /** None for pages that are not wanted: what was charged would not suffice for all that are. */
  readonly tight?: boolean | undefined
}

/**
 * Makes chunks for the pages of a range that are missing, from pages that are charged already, and adds them to what is
 * held; gives back what was charged too much. Throws `ENOMEM`, or what the provider throws, and has made none then (T25).
 */
export function installMissing(
  residents: ResidentSet,
  buffer: BufferState,
  first: number,
  end: number,
  held: number[],
  charged: number,
  { retryMayFail = false, storedOnly = false, tight = false }: InstallOptions = {},
): void {
  const { chunks, limit, pages } = residents
  const conversion = buffer.caching === 0 ? undefined : new CachingConversion(residents, buffer)
  let left = charged
  const before = held.length
  pages.retryMayFail = retryMayFail
  try {
    for (let page = first; page < end && left > 0; ) {
      let chunk = buffer.table.chunkAt(page)
      if (chunk === 0) {
        const empty = storedOnly ? emptyPages(buffer.table, page, end) : 0
        if (empty > 0) {
          page += empty
          continue
        }
        const order = chunkOrder(buffer, page, first, end, storedOnly, tight)
        chunk = residents.install(buffer, page, Math.min(31 - Math.clz32(left), order))
        if (chunk === 0) throw noMemory(buffer, page)
        left -= chunks.pageCount(chunk)
        held.push(chunk)
        conversion?.add(chunk, pages.takenConverted)
      }
      page = chunks.endPageOf(chunk)
    }
    conversion?.flush()
  } catch (failure) {
    // Back to how it was before the call (T25); evicting gives each chunk's charge back.
    for (const chunk of held.splice(before))
      residents.uninstall(chunk, conversion?.isConverted(chunk) ?? true)
    throw failure
  } finally {
    pages.retryMayFail = false
    if (left > 0) limit.uncharge(left)
  }
}

function noMemory(buffer: BufferState, page: number): SpillwayError {
  const fields = { buffer: buffer.label, page }
  return new SpillwayError('ENOMEM', `the page provider has no memory for buffer ${buffer.label}`, fields)
}
