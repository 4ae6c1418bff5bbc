import { pace } from '../ground/pace.ts'
import type { PageTableReader } from '../table/page-table.ts'
import type { BufferState } from './buffer-state.ts'

/** Pages of a buffer, `end` not included. */
export interface PageRange {
  readonly first: number
  readonly end: number
}

/** Pages that somebody wants in memory. */
export interface WantedPages extends PageRange {
  /** Only those that are stored or resident: what is neither is zeros, and takes no memory for being pinned. */
  readonly storedOnly?: boolean | undefined
  /** Chunks cover no pages but these, however small they are then. */
  readonly tight?: boolean | undefined
}

/**
 * The order of the chunk to make for a page that is not resident: the highest whose aligned range lies in its block and
 * has no resident page (T20), and none that its backup cannot give. With `advise('random')` no larger than what the access covers.
 */
export function naturalOrder(buffer: BufferState, page: number, { first, end }: PageRange): number {
  const { table } = buffer
  const start = page - (page % table.blockPages)
  const blockEnd = table.blockEnd(page)
  let order = Math.min(buffer.maxOrder, 31 - Math.clz32(blockEnd - start))
  if (buffer.random) order = Math.min(order, 32 - Math.clz32(Math.min(end - first, table.blockPages) - 1))
  for (; order > 0; order--) {
    const from = alignedStart(buffer, page, order)
    const to = from + (1 << order)
    if (to <= blockEnd && !hasResident(buffer, from, to) && !hasDamaged(buffer, from, to)) break
  }
  return order
}

/**
 * The order of the chunk to make for a page: the natural one, or if `tight` the highest whose chunk has no page but those
 * that are wanted.
 */
export function chunkOrder(buffer: BufferState, page: number, wanted: WantedPages): number {
  let order = naturalOrder(buffer, page, wanted)
  if (wanted.tight !== true) return order
  const { first, end, storedOnly = false } = wanted
  for (; order > 0; order--) {
    const from = alignedStart(buffer, page, order)
    const to = from + (1 << order)
    if (from >= first && to <= end && !(storedOnly && hasEmpty(buffer, from, to))) break
  }
  return order
}

export function alignedStart(buffer: BufferState, page: number, order: number): number {
  const start = page - (page % buffer.table.blockPages)
  return start + ((page - start) & ~((1 << order) - 1))
}

/**
 * The end of a window that begins at `page`: whole blocks, a quarter of the limit or what the backup handles best, and not
 * of more chunks than can be dealt with in one go.
 */
export function windowEnd(buffer: BufferState, page: number, limitPages: number): number {
  const { table, store } = buffer
  const { blockPages } = table
  const best = store === undefined ? blockPages : store.batchPages * store.callsInFlight
  const pages = Math.min(Math.floor(limitPages / 4), best, chunksPerWindow * blockPages)
  const blocks = Math.max(1, Math.floor(pages / blockPages))
  return Math.min(table.pageCount, (Math.floor(page / blockPages) + blocks) * blockPages)
}

/** Chunks to pin, install and bring in at once, a millisecond's work. */
const chunksPerWindow = 1024

/** The end of the pages from `page` on that are resident or stored. */
export function nonEmptyEnd({ table }: BufferState, page: number, end: number): number {
  let next = page
  while (next < end) {
    table.look(next, end)
    if (table.found === 'empty') break
    next += table.foundPages
  }
  return next
}

function hasResident(buffer: BufferState, from: number, to: number): boolean {
  const { table } = buffer
  for (let page = from; page < to; page += table.foundPages) {
    table.look(page, to)
    if (table.found === 'chunk') return true
  }
  return false
}

function hasDamaged({ damagedPages }: BufferState, from: number, to: number): boolean {
  if (damagedPages === undefined) return false
  for (const page of damagedPages) if (page >= from && page < to) return true
  return false
}

function hasEmpty({ table }: BufferState, from: number, to: number): boolean {
  for (let page = from; page < to; page += table.foundPages) {
    table.look(page, to)
    if (table.found === 'empty') return true
  }
  return false
}

/** How many pages from `page` on and before `end` are neither resident nor stored; those after some of these may be too. */
export function emptyPages(table: PageTableReader, page: number, end: number): number {
  table.look(page, end)
  return table.found === 'empty' ? table.skipEmptyBlocks(page + table.foundPages, end) - page : 0
}

/**
 * The pages of all chunks that a buffer has, and of those that would be made for what is stored of it, or more than `most`
 * as soon as that is known. Goes through the table without blocking the event loop.
 */
export async function naturalPages(buffer: BufferState, most: number): Promise<number> {
  const { table } = buffer
  const { pageCount } = table
  let pages = 0
  for (let page = 0; page < pageCount && pages <= most; ) {
    const empty = emptyPages(table, page, pageCount)
    if (empty > 0) {
      page += empty
    } else if (table.found === 'chunk') {
      pages += table.foundPages
      page += table.foundPages
    } else {
      const order = naturalOrder(buffer, page, { first: 0, end: pageCount })
      pages += 1 << order
      page = alignedStart(buffer, page, order) + (1 << order)
    }
    const turn = pace()
    if (turn !== undefined) await turn
  }
  return pages
}
