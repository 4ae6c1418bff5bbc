import { pace } from '../ground/pace.ts'
import type { PageTable } from '../table/page-table.ts'
import type { BufferState } from './buffer-state.ts'

/**
 * The order of the chunk to make for a page that is not resident: the highest whose aligned range lies in its block and
 * has no resident page (T20). With `advise('random')` no larger than what the access covers.
 */
export function naturalOrder(buffer: BufferState, page: number, first: number, end: number): number {
  const { table } = buffer
  const start = page - (page % table.blockPages)
  const blockEnd = table.blockEnd(page)
  let order = Math.min(buffer.maxOrder, 31 - Math.clz32(blockEnd - start))
  if (buffer.random) order = Math.min(order, 32 - Math.clz32(Math.min(end - first, table.blockPages) - 1))
  for (; order > 0; order--) {
    const from = alignedStart(buffer, page, order)
    const to = from + (1 << order)
    if (to <= blockEnd && !hasResident(buffer, from, to)) break
  }
  return order
}

/**
 * The order of the chunk to make for a page that a range of pages is held for: the natural one, or if `tight` the highest
 * whose chunk has no page but those that are wanted: in the range, and stored if only these are.
 */
export function chunkOrder(
  buffer: BufferState,
  page: number,
  first: number,
  end: number,
  storedOnly: boolean,
  tight: boolean,
): number {
  let order = naturalOrder(buffer, page, first, end)
  for (; tight && order > 0; order--) {
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

function hasResident(buffer: BufferState, from: number, to: number): boolean {
  const { table } = buffer
  for (let page = from; page < to; page += table.foundPages) {
    table.look(page, to)
    if (table.found === 'chunk') return true
  }
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
export function emptyPages(table: PageTable, page: number, end: number): number {
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
      const order = naturalOrder(buffer, page, 0, pageCount)
      pages += 1 << order
      page = alignedStart(buffer, page, order) + (1 << order)
    }
    const turn = pace()
    if (turn !== undefined) await turn
  }
  return pages
}
