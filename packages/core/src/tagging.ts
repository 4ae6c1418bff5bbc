/**
 * One number says which of three things a page-table entry is (T12):
 *
 *   0                 empty
 *   2 × page          a page in memory, page ≥ 1                 (even)
 *   2 × handle + 1    a page in a backup, handle ≥ 1             (odd)
 *   1                 cleared: a handle that was already consumed (the tagged 0)
 *
 * Entries are exact because they stay below 2^53.
 */

/** The largest handle: its entry is `Number.MAX_SAFE_INTEGER`. */
export const maxHandle = 2 ** 52 - 1

/** The largest page number an entry can carry. */
export const maxPage = 2 ** 52 - 1

/** An entry that holds nothing. */
export const emptyEntry = 0

/** An entry whose handle was consumed; a finished restore leaves none behind (T13, B13). */
export const clearedEntry = 1

/** Whether `handle` can name a page: an integer from 1 to `maxHandle`. */
export function isHandle(handle: number): boolean {
  return Number.isInteger(handle) && handle >= 1 && handle <= maxHandle
}

/** Tags a page. Throws `RangeError` for anything but an integer from 1 to `maxPage`. */
export function pageEntry(page: number): number {
  if (!Number.isInteger(page) || page < 1 || page > maxPage) {
    throw new RangeError(`page ${page} is not an integer from 1 to ${maxPage}`)
  }
  return page * 2
}

/** Tags a handle; 0 gives the cleared entry. Throws `RangeError` for anything but an integer from 0 to `maxHandle`. */
export function handleEntry(handle: number): number {
  if (!Number.isInteger(handle) || handle < 0 || handle > maxHandle) {
    throw new RangeError(`handle ${handle} is not an integer from 0 to ${maxHandle}`)
  }
  return handle * 2 + 1
}

// Halving instead of `%`: a remainder of doubles is a library call, a floor is an instruction.
function isOdd(entry: number): boolean {
  return Math.floor(entry / 2) * 2 !== entry
}

/** Whether the entry is a page in memory. */
export function isPageEntry(entry: number): boolean {
  return entry !== emptyEntry && !isOdd(entry)
}

/** Whether the entry is a handle, the cleared one included. */
export function isHandleEntry(entry: number): boolean {
  return isOdd(entry)
}

/** The page of a page entry; throws `TypeError` for any other. */
export function entryPage(entry: number): number {
  if (!isPageEntry(entry)) throw new TypeError(`entry ${entry} is not a page`)
  return entry / 2
}

/** The handle of a handle entry, 0 for the cleared one; throws `TypeError` for any other (T12). */
export function entryHandle(entry: number): number {
  if (!isHandleEntry(entry)) throw new TypeError(`entry ${entry} is not a handle`)
  return (entry - 1) / 2
}
