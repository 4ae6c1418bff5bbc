import type { Machine } from '../machine.ts'
import type { BufferState } from '../residency/buffer-state.ts'
import { ahead, busy, dirty, notReady, scattered, unevictable, unevictableList } from '../table/chunks.ts'

/**
 * Recomputes every gauge from the tables and says what does not match: an empty array is a healthy pool (I2, I3, I10,
 * I11). Goes through everything, so it is for tests and for reports of defects.
 */
export function verify(machine: Machine): string[] {
  const problems: string[] = []
  const expect = (what: string, found: number, computed: number) => {
    if (found !== computed) problems.push(`${what} is ${found}, recomputed ${computed}`)
  }
  const seen = new Set<number>()
  const sums = { inUse: 0, pinned: 0, dirty: 0, fixed: 0 }
  const frames = new Set<number>()
  for (const buffer of machine.residents.buffers.values()) {
    verifyBuffer(machine, buffer, seen, frames, sums, problems, expect)
  }
  const { chunks, limit, pinnedPages, dirtyPages, unevictablePages } = machine.residents
  const { pages } = machine
  expect('number of chunks', chunks.count, seen.size)
  expect('pages in use', pages.inUsePages, sums.inUse)
  expect('pinned pages', pinnedPages, sums.pinned)
  expect('dirty pages', dirtyPages, sums.dirty)
  expect('pages that may not leave', unevictablePages, sums.fixed)
  if (limit.chargedPages < pages.inUsePages)
    problems.push(`${limit.chargedPages} pages charged, ${pages.inUsePages} in use`)
  if (pages.residentPages > pages.limitPages)
    problems.push(`${pages.residentPages} pages, limit ${pages.limitPages}`)
  if (machine.holder.running === 0 && limit.waiters === 0)
    expect('charged pages', limit.chargedPages, pages.inUsePages)
  let aheadPages = 0
  for (const chunk of seen) if (chunks.has(chunk, ahead)) aheadPages += chunks.pageCount(chunk)
  expect('pages read ahead', chunks.aheadPages, aheadPages)
  let storeDirty = 0
  for (const store of machine.backingStores.values()) storeDirty += store.dirtyPages
  let ofBuffers = 0
  for (const buffer of machine.residents.buffers.values())
    if (buffer.store !== undefined) ofBuffers += buffer.dirtyPages
  expect('dirty pages of all backups', storeDirty, ofBuffers)
  verifyLists(machine, seen, problems, expect)
  return problems
}

type Expect = (what: string, found: number, computed: number) => void

function verifyBuffer(
  machine: Machine,
  buffer: BufferState,
  seen: Set<number>,
  frames: Set<number>,
  sums: { inUse: number; pinned: number; dirty: number; fixed: number },
  problems: string[],
  expect: Expect,
): void {
  const { chunks } = machine.residents
  const { table, label } = buffer
  let resident = 0
  let stored = 0
  let dirtyPages = 0
  const handles = new Set<number>()
  const addHandle = (handle: number, page: number) => {
    if (handles.has(handle))
      problems.push(`buffer ${label} page ${page}: handle ${handle} is also another page's`)
    handles.add(handle)
  }
  for (let page = 0; page < table.pageCount; ) {
    table.look(page, table.pageCount)
    const count = table.foundPages
    const next = page + count
    if (table.found === 'handle') {
      stored += count
      for (let index = 0; index < count; index++) addHandle(table.foundHandle + index, page + index)
    } else if (table.found === 'chunk') {
      const chunk = table.foundChunk
      const where = `buffer ${label} page ${page} chunk ${chunk}`
      resident += count
      seen.add(chunk)
      if (chunks.ownerOf(chunk) !== buffer.id)
        problems.push(`${where} belongs to buffer ${chunks.ownerOf(chunk)}`)
      if (chunks.firstPageOf(chunk) !== page)
        problems.push(`${where} begins at page ${chunks.firstPageOf(chunk)}`)
      expect(`${where}: pages`, count, chunks.pageCount(chunk))
      const flags = chunks.flagsOf(chunk)
      sums.inUse += count
      if (chunks.isPinned(chunk)) sums.pinned += count
      if ((flags & unevictable) !== 0) sums.fixed += count
      if ((flags & dirty) !== 0) dirtyPages += count
      if ((flags & dirty) !== 0 && chunks.storedAt(chunk) !== 0)
        problems.push(`${where} is dirty and keeps handles`)
      if ((flags & busy) === busy) problems.push(`${where} is on its way in and out`)
      if ((flags & notReady) === notReady) problems.push(`${where} is filling and partial`)
      if (chunks.storedAt(chunk) === scattered && !chunks.scatteredHandles.has(chunk))
        problems.push(`${where} lost its handles`)
      for (let index = 0; index < count; index++) {
        const handle = chunks.storedHandle(chunk, index)
        if (handle !== 0) addHandle(handle, page + index)
        const frame = chunks.frameOf(chunk) + index
        if (frames.has(frame)) problems.push(`${where}: frame ${frame} is used twice`)
        frames.add(frame)
      }
    }
    page = next
  }
  sums.dirty += dirtyPages
  expect(`dirty pages of buffer ${label}`, buffer.dirtyPages, dirtyPages)
  expect(`resident pages of buffer ${label}`, table.residentPages, resident)
  expect(`stored pages of buffer ${label}`, table.storedPages, stored)
}

function verifyLists(machine: Machine, seen: ReadonlySet<number>, problems: string[], expect: Expect): void {
  const { chunks } = machine.residents
  const listed = new Set<number>()
  for (let list = 0; list < 4; list++) {
    let pages = 0
    for (let chunk = chunks.nextOf(list); chunk !== list; chunk = chunks.nextOf(chunk)) {
      if (listed.has(chunk)) problems.push(`chunk ${chunk} is on two lists`)
      listed.add(chunk)
      if (!seen.has(chunk)) problems.push(`chunk ${chunk} is on list ${list} and in no buffer`)
      if (chunks.listOf(chunk) !== list)
        problems.push(`chunk ${chunk} is on list ${list}, says ${chunks.listOf(chunk)}`)
      if (chunks.isPinned(chunk) && list !== unevictableList)
        problems.push(`chunk ${chunk} is pinned and on list ${list}`)
      pages += chunks.pageCount(chunk)
    }
    expect(`pages on list ${list}`, chunks.listPages[list]!, pages)
  }
  expect('chunks on lists', listed.size, seen.size)
}
