import type { ChunkReader } from '../table/chunks.ts'
import {
  busy,
  cleanList,
  dirty,
  dirtyList,
  notReady,
  scattered,
  unevictable,
  unevictableList,
} from '../table/chunks.ts'
import type { BufferList } from './buffer-list.ts'

/**
 * The rules that hold for each chunk whenever no verb of the resident set is under way, and which of them a chunk breaks.
 * Looks at the chunk, at its first and last entry in the page table and at gauges, however large the pool is.
 */
export function chunkProblems(residents: ChunkOwner, chunk: number): string[] {
  const { chunks } = residents
  const problems: string[] = []
  const expect = (holds: boolean, problem: string) => {
    if (!holds) problems.push(problem)
  }
  const buffer = residents.buffers.get(chunks.ownerOf(chunk))
  if (buffer === undefined) return ['it belongs to no buffer']
  const flags = chunks.flagsOf(chunk)
  const list = chunks.listOf(chunk)
  expect((flags & busy) !== busy, 'it is on its way in and out')
  expect((flags & notReady) !== notReady, 'it is on its way in and partial')
  expect((flags & dirty) === 0 || chunks.storedAt(chunk) === 0, 'it is dirty and stored')
  expect(
    chunks.storedAt(chunk) !== scattered || chunks.scatteredHandles.has(chunk),
    'its handles are scattered and lost',
  )
  expect(!chunks.isPinned(chunk) || list === unevictableList, 'it is pinned and on a list of what may leave')
  expect(list !== cleanList || (flags & dirty) === 0, 'it is dirty and on the list of clean chunks')
  expect(list !== dirtyList || (flags & (dirty | unevictable)) === dirty, 'it is on the list of dirty chunks')
  const first = chunks.firstPageOf(chunk)
  const last = chunks.endPageOf(chunk) - 1
  const { table } = buffer
  expect(table.chunkAt(first) === chunk && table.chunkAt(last) === chunk, 'its page table does not name it')
  expect(
    residents.pinnedPages >= 0 && residents.dirtyPages >= 0 && residents.unevictablePages >= 0,
    'a gauge is negative',
  )
  expect(residents.limit.chargedPages >= residents.inUsePages, 'pages are in use that nobody was charged for')
  expect(residents.limit.shared.availableBytes >= 0, 'more is charged than the limit')
  expect(residents.pages.limit.hasRoom(0), 'more is resident than the limit')
  return problems
}

/** What the rules are about. */
interface ChunkOwner {
  readonly buffers: Pick<BufferList, 'get'>
  readonly chunks: ChunkReader
  readonly pinnedPages: number
  readonly dirtyPages: number
  readonly unevictablePages: number
  readonly inUsePages: number
  readonly limit: { readonly chargedPages: number; readonly shared: { readonly availableBytes: number } }
  readonly pages: { readonly limit: { hasRoom(bytes: number): boolean } }
}

let areForced = false

/** Whether all sets check their rules, whatever their pool says. */
export function areChecksForced(): boolean {
  return areForced
}

/** Makes all sets that are made from now on check their rules: for tests. */
export function checkAlways(checks = true): void {
  areForced = checks
}
