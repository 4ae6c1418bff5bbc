import { pace } from '../ground/pace.ts'
import { firstChunk } from '../table/chunk-records.ts'
import type { BufferState } from './buffer-state.ts'
import type { PageRange } from './placement.ts'
import type { ResidentSet } from './resident-set.ts'

/** Entries of tables to look at in one go: a small part of a millisecond. */
export const looksPerStep = 1024

/**
 * Visits the resident chunks of a range of a buffer without blocking the event loop: some at once, the others in turns of
 * their own. Goes through the range's page table, or through the records of all chunks where these are fewer: a buffer of
 * 1 TiB has half a million blocks, and a pool of 256 MiB has 128 chunks.
 *
 * Between two turns chunks come, go and change. So a visit must be right for its chunk by itself, and what comes during
 * the walk may be left out.
 *
 * @returns undefined when all is done already, else what resolves when it is
 */
export function walkChunks(
  residents: ResidentSet,
  buffer: BufferState,
  range: PageRange,
  visit: (chunk: number) => void,
): Promise<void> | undefined {
  const { first, end } = range
  const blocks = Math.ceil((end - first) / buffer.table.blockPages)
  const step =
    blocks > residents.chunks.end
      ? throughRecords(residents, buffer, range, visit)
      : throughTable(buffer, range, visit)
  return step() ? undefined : goOn(step)
}

/** Counts a walk until it ends: no claim is refused meanwhile for what the walk has not come to yet. */
export async function whileFreeing<Result>(residents: ResidentSet, walk: Promise<Result>): Promise<Result> {
  residents.walksThatFree++
  try {
    return await walk
  } finally {
    residents.walksThatFree--
    residents.unpinned()
  }
}

async function goOn(step: () => boolean): Promise<void> {
  do {
    const turn = pace()
    if (turn !== undefined) await turn
  } while (!step())
}

/**
 * The first page of some chunk of a buffer that passes the test; goes through the buffer's table or through the records of
 * all chunks, in one go: for what is found soon, or what counters know to be there.
 */
export function findPage(
  { chunks }: ResidentSet,
  buffer: BufferState,
  test: (chunk: number) => boolean,
): number | undefined {
  const { table } = buffer
  if (table.residentPages === 0) return undefined
  if (table.pageCount / table.blockPages > chunks.count) {
    const chunk = chunks.find(buffer.id, test)
    return chunk === 0 ? undefined : chunks.firstPageOf(chunk)
  }
  for (let page = 0; page < table.pageCount; page += table.foundPages) {
    table.look(page, table.pageCount)
    if (table.found === 'chunk' && test(table.foundChunk)) return page
  }
  return undefined
}

function throughTable(
  { table }: BufferState,
  { first, end }: PageRange,
  visit: (chunk: number) => void,
): () => boolean {
  let page = first
  return () => {
    for (let looks = 0; looks < looksPerStep; looks++) {
      if (page >= end || table.residentPages === 0) return true
      table.look(page, end)
      page += table.foundPages
      if (table.found === 'chunk') visit(table.foundChunk)
    }
    return page >= end
  }
}

function throughRecords(
  { chunks }: ResidentSet,
  buffer: BufferState,
  { first, end }: PageRange,
  visit: (chunk: number) => void,
): () => boolean {
  let chunk = firstChunk
  return () => {
    for (const stop = Math.min(chunk + looksPerStep, chunks.end); chunk < stop; chunk++) {
      if (chunks.ownerOf(chunk) !== buffer.id) continue
      if (chunks.firstPageOf(chunk) < end && chunks.endPageOf(chunk) > first) visit(chunk)
    }
    return chunk >= chunks.end
  }
}
