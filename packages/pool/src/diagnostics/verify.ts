import type { Machine } from '../machine.ts'
import type { BufferState } from '../residency/buffer-state.ts'
import { chunkProblems } from '../residency/chunk-rules.ts'
import { firstChunk, listCount } from '../table/chunk-records.ts'
import { ahead, dirty, unevictable } from '../table/chunks.ts'

/**
 * Recomputes every gauge from the tables and says what does not match: an empty array is a healthy pool (I2, I3, I10,
 * I11). Goes through everything, so it is for tests and for reports of defects.
 */
export function verify(machine: Machine): string[] {
  const check = new Verification(machine)
  check.all()
  return check.problems
}

class Verification {
  readonly problems: string[] = []
  readonly #machine: Machine
  /** Chunks and frames that some buffer names. */
  readonly #seen = new Set<number>()
  readonly #frames = new Set<number>()
  readonly #sums = { inUse: 0, pinned: 0, dirty: 0, unevictable: 0, ahead: 0 }

  constructor(machine: Machine) {
    this.#machine = machine
  }

  all(): void {
    const { residents } = this.#machine
    for (const buffer of residents.buffers.values()) this.#buffer(buffer)
    const { chunks, limit, operations } = residents
    const sums = this.#sums
    this.#expect('number of chunks', chunks.count, this.#seen.size)
    this.#expect('pages in use', residents.inUsePages, sums.inUse)
    this.#expect('pinned pages', residents.pinnedPages, sums.pinned)
    this.#expect('dirty pages', residents.dirtyPages, sums.dirty)
    this.#expect('pages that may not leave', residents.unevictablePages, sums.unevictable)
    this.#expect('pages read ahead', chunks.aheadPages, sums.ahead)
    if (limit.chargedPages < residents.inUsePages)
      this.problems.push(`${limit.chargedPages} pages charged, ${residents.inUsePages} in use`)
    this.problems.push(...this.#machine.budget.problems())
    if (operations.count === 0 && limit.waiters === 0)
      this.#expect('charged pages', limit.chargedPages, residents.inUsePages)
    this.#stores()
    this.#lists()
  }

  #stores(): void {
    const { residents, backingStores } = this.#machine
    let dirtyOfStores = 0
    for (const store of backingStores.values()) dirtyOfStores += store.dirtyPages
    let dirtyOfBuffers = 0
    for (const buffer of residents.buffers.values())
      if (buffer.store !== undefined) dirtyOfBuffers += buffer.dirtyPages
    this.#expect('dirty pages of all backups', dirtyOfStores, dirtyOfBuffers)
  }

  #expect(what: string, found: number, computed: number): void {
    if (found !== computed) this.problems.push(`${what} is ${found}, recomputed ${computed}`)
  }

  #buffer(buffer: BufferState): void {
    const { table, label } = buffer
    const dirtyBefore = this.#sums.dirty
    let resident = 0
    let stored = 0
    const handles = new Set<number>()
    const addHandle = (handle: number, page: number) => {
      if (handles.has(handle))
        this.problems.push(`buffer ${label} page ${page}: handle ${handle} is also another page's`)
      handles.add(handle)
    }
    for (let page = 0; page < table.pageCount; ) {
      table.look(page, table.pageCount)
      const count = table.foundPages
      if (table.found === 'handle') {
        stored += count
        for (let index = 0; index < count; index++) addHandle(table.foundHandle + index, page + index)
      } else if (table.found === 'chunk') {
        resident += count
        this.#chunk(buffer, table.foundChunk, { page, count }, addHandle)
      }
      page += count
    }
    this.#expect(`dirty pages of buffer ${label}`, buffer.dirtyPages, this.#sums.dirty - dirtyBefore)
    this.#expect(`resident pages of buffer ${label}`, table.residentPages, resident)
    this.#expect(`stored pages of buffer ${label}`, table.storedPages, stored)
  }

  /** A chunk that the table of its buffer names for these pages. */
  #chunk(
    buffer: BufferState,
    chunk: number,
    { page, count }: { readonly page: number; readonly count: number },
    addHandle: (handle: number, page: number) => void,
  ): void {
    const { residents } = this.#machine
    const { chunks } = residents
    const where = `buffer ${buffer.label} page ${page} chunk ${chunk}`
    this.#seen.add(chunk)
    if (chunks.ownerOf(chunk) !== buffer.id)
      this.problems.push(`${where} belongs to buffer ${chunks.ownerOf(chunk)}`)
    if (chunks.firstPageOf(chunk) !== page)
      this.problems.push(`${where} begins at page ${chunks.firstPageOf(chunk)}`)
    this.#expect(`${where}: pages`, count, chunks.pageCount(chunk))
    for (const problem of chunkProblems(residents, chunk)) this.problems.push(`${where}: ${problem}`)
    const sums = this.#sums
    sums.inUse += count
    if (chunks.isPinned(chunk)) sums.pinned += count
    if (chunks.has(chunk, unevictable)) sums.unevictable += count
    if (chunks.has(chunk, dirty)) sums.dirty += count
    if (chunks.has(chunk, ahead)) sums.ahead += count
    for (let index = 0; index < count; index++) {
      const handle = chunks.storedHandle(chunk, index)
      if (handle !== 0) addHandle(handle, page + index)
      const frame = chunks.frameOf(chunk) + index
      if (this.#frames.has(frame)) this.problems.push(`${where}: frame ${frame} is used twice`)
      this.#frames.add(frame)
    }
  }

  #lists(): void {
    const { chunks } = this.#machine.residents
    const pages = new Array<number>(listCount).fill(0)
    let listed = 0
    for (let chunk = firstChunk; chunk < chunks.end; chunk++) {
      if (chunks.ownerOf(chunk) === 0) continue
      if (!this.#seen.has(chunk)) this.problems.push(`chunk ${chunk} is in no buffer`)
      pages[chunks.listOf(chunk)]! += chunks.pageCount(chunk)
      listed++
    }
    for (let list = 0; list < listCount; list++)
      this.#expect(`pages on list ${list}`, chunks.listPages[list]!, pages[list]!)
    this.#expect('chunks on lists', listed, this.#seen.size)
  }
}
