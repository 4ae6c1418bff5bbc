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

/** The highest order up to `order` whose chunk has no page but those that are wanted: in the range, and stored if only these. */
export function tightOrder(
  buffer: BufferState,
  page: number,
  first: number,
  end: number,
  storedOnly: boolean,
  order: number,
): number {
  for (let tight = order; tight > 0; tight--) {
    const from = alignedStart(buffer, page, tight)
    const to = from + (1 << tight)
    if (from >= first && to <= end && !(storedOnly && hasEmpty(buffer, from, to))) return tight
  }
  return 0
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

/** How many pages from `page` on, in its block and before `end`, are neither resident nor stored. */
export function emptyPages(table: PageTable, page: number, end: number): number {
  table.look(page, end)
  return table.found === 'empty' ? table.foundPages : 0
}
