import { setImmediate as nextTurn } from 'node:timers/promises'
import { faultyBackup, nullBackup, replaceHost } from '@spillway/core'
import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { machineOf } from '../src/api/pool.ts'
import { type PagedBuffer, Pool } from '../src/index.ts'
import { checkAlways } from '../src/residency/chunk-rules.ts'
import { looksPerStep } from '../src/residency/chunk-walk.ts'
import { type Chunks, cleanList, dirtyList, purgeableList } from '../src/table/chunks.ts'
import { page, pattern } from './support/bytes.ts'

/*
 * Nothing synchronous goes on for long, however large buffers are and however many chunks there are: counted, since time
 * depends on the machine. The clock is made to say that each slice is used up when it is asked about.
 */

const chunkCount = 4 * looksPerStep
/** A visit may look up whose chunk it is once more. */
const mostPerTurn = 2 * looksPerStep + 8

/** Later at every look, by more than a slice, and never again as early as it was. */
let clockMs = 1e9
function startClock(): void {
  replaceHost({
    nowMs: () => {
      clockMs += 10
      return clockMs
    },
  })
}

interface Many {
  readonly pool: Pool
  readonly buffer: PagedBuffer
  /** The most entries of tables that one turn of the event loop looked at while `work` ran, and until all was quiet. */
  mostLooks(work: () => unknown): Promise<number>
}

/** A buffer of many chunks of one page each, all in memory. */
async function manyChunks(): Promise<Many> {
  const pool = new Pool({
    limitBytes: (chunkCount + 64) * page,
    maxOrder: 0,
    backup: nullBackup(),
    background: false,
  })
  const buffer = await pool.allocate(chunkCount * page, { label: 'many' })
  await buffer.fill(7)
  const { residents } = machineOf(pool)
  const { table } = residents.buffers.values().next().value!
  let looks = 0
  for (const [target, name] of [
    [table, 'look'],
    [residents.chunks, 'ownerOf'],
  ] as const) {
    const original = (target as unknown as Record<string, (...given: unknown[]) => unknown>)[name]!
    Object.assign(target, {
      [name]: (...given: unknown[]) => {
        looks++
        return original.apply(target, given)
      },
    })
  }
  return {
    pool,
    buffer,
    async mostLooks(work) {
      startClock()
      await nextTurn()
      looks = 0
      let working = true
      const done = Promise.resolve(work()).finally(() => {
        working = false
      })
      // What ran at once; what was put off until the next turn begins with the next.
      let most = looks
      looks = 0
      for (let quiet = 0; quiet < 3; ) {
        most = Math.max(most, looks)
        quiet = looks === 0 && !working ? quiet + 1 : 0
        looks = 0
        await nextTurn()
      }
      await done
      return most
    },
  }
}

afterEach(() => {
  vi.restoreAllMocks()
  replaceHost()
})

describe('one turn of the event loop', () => {
  // What is counted here is looks, and each check looks.
  beforeAll(() => checkAlways(false))

  it.each([
    ['dontneed', 'table'],
    ['purgeable', 'table'],
    ['dontneed', 'records'],
    ['purgeable', 'records'],
  ] as const)('looks at a part of a buffer when it is advised: %s, through the %s', async (advice, way) => {
    const { pool, buffer, mostLooks } = await manyChunks()
    const { residents } = machineOf(pool)
    // More blocks than there are chunks in all: then the chunks are gone through.
    const other = way === 'records' ? await pool.allocate(8 * chunkCount * page) : undefined
    await other?.fill(1, { offset: 4 * chunkCount * page, length: 32 * page })
    const target = other ?? buffer
    const looks = await mostLooks(() => target.advise(advice))
    expect(looks).toBeLessThanOrEqual(mostPerTurn)
    const pages = way === 'records' ? 32 : chunkCount
    const { listPages } = residents.chunks
    if (advice === 'purgeable') expect(listPages[purgeableList]).toBe(pages)
    else expect(listPages[dirtyList]! + listPages[cleanList]!).toBeGreaterThanOrEqual(pages)
    await pool.close()
  })

  it('looks at a part of a buffer when it is freed, and frees it all the same', async () => {
    const { pool, buffer, mostLooks } = await manyChunks()
    expect(await mostLooks(() => buffer.free())).toBeLessThanOrEqual(mostPerTurn)
    expect(pool.stats()).toMatchObject({ inUseBytes: 0, chunks: 0 })
    await pool.close()
  })

  it('begins to free one buffer when a pool of many is closed', async () => {
    const { pool, mostLooks } = await manyChunks()
    for (let index = 0; index < 100; index++) await (await pool.allocate(page)).fill(1)
    expect(await mostLooks(() => pool.close())).toBeLessThanOrEqual(mostPerTurn + 200)
    expect(pool.stats().residentBytes).toBe(0)
  })

  it('restores a window of a buffer when it is advised to be needed, and goes on from there', async () => {
    const backup = nullBackup()
    const { preferredBatchPages, preferredCallsInFlight } = backup.capabilities
    const windowPages = Math.min((chunkCount + 64) / 4, preferredBatchPages * preferredCallsInFlight)
    const pool = new Pool({ limitBytes: (chunkCount + 64) * page, maxOrder: 0, backup, background: false })
    const buffer = await pool.allocate(chunkCount * page)
    await buffer.fill(7)
    await buffer.backup()
    const { residents } = machineOf(pool)
    const install = vi.spyOn(residents, 'install')
    startClock()
    buffer.advise('willneed')
    expect(install.mock.calls.length).toBeGreaterThan(0)
    let most = install.mock.calls.length
    for (let turn = 0; turn < 200; turn++) {
      install.mockClear()
      await nextTurn()
      most = Math.max(most, install.mock.calls.length)
    }
    expect(most).toBeLessThanOrEqual(windowPages)
    expect(buffer.residentBytes).toBe(Math.floor((chunkCount + 64) / 2) * page)
    await pool.close()
  })

  it.each(['pin', 'read'] as const)('brings in a window of a long range at a time: %s', async (way) => {
    const pool = new Pool({ limitBytes: (chunkCount + 64) * page, maxOrder: 0, backup: nullBackup() })
    const buffer = await pool.allocate(chunkCount * page)
    await buffer.fill(7)
    await buffer.backup()
    const { residents } = machineOf(pool)
    const install = vi.spyOn(residents, 'install')
    startClock()
    let done = false
    const work = way === 'pin' ? buffer.pin() : buffer.read(0, new Uint8Array(chunkCount * page))
    const ended = work.then((pin) => {
      done = true
      pin?.release()
    })
    let most = install.mock.calls.length
    while (!done) {
      install.mockClear()
      await nextTurn()
      most = Math.max(most, install.mock.calls.length)
    }
    await ended
    // A window, and one that is read ahead.
    expect(most).toBeLessThanOrEqual(2 * 1024)
    expect(buffer.residentBytes).toBe(chunkCount * page)
    await pool.close()
  })

  it.each(['commits', 'undoes'] as const)(
    'T63: %s a batch of an atomic backup at a time, and all of them',
    async (way) => {
      const backup = faultyBackup(nullBackup())
      const batchPages = backup.capabilities.preferredBatchPages
      const pool = new Pool({ limitBytes: (chunkCount + 64) * page, maxOrder: 0, backup, background: false })
      const buffer = await pool.allocate(chunkCount * page)
      await buffer.fill(7)
      if (way === 'undoes') {
        const calls = Math.ceil(chunkCount / batchPages)
        backup.inject({ method: 'backupPages', calls: [calls], code: 'EIO' })
      }
      const { residents, pageOut } = machineOf(pool)
      const settled = vi.spyOn(residents.chunks as Chunks, 'wake')
      const ends = vi.spyOn(pageOut, way === 'commits' ? 'commit' : 'undo')
      startClock()
      let working = true
      const work = buffer.backup({ atomic: true }).finally(() => {
        working = false
      })
      let most = 0
      while (working) {
        settled.mockClear()
        await nextTurn()
        most = Math.max(most, settled.mock.calls.length)
      }
      const { pages, error } = await work
      expect([pages, error === undefined]).toEqual(way === 'commits' ? [chunkCount, true] : [0, false])
      expect(ends.mock.calls.length).toBeGreaterThan(2)
      expect(most).toBeGreaterThan(0)
      // Each chunk is woken when it is settled and when it is gone.
      expect(most).toBeLessThanOrEqual(2 * batchPages)
      expect(buffer.residentBytes).toBe(way === 'commits' ? 0 : chunkCount * page)
      expect(pool.verify()).toEqual([])
      await pool.close()
    },
  )

  it('looks at what a large buffer has and not at all of it when it is held whole', async () => {
    const pool = new Pool({ limitBytes: 2 ** 26, backup: nullBackup(), background: false })
    const buffer = await pool.allocate(2 ** 40)
    for (let index = 0; index < 8; index++) await buffer.write(index * 2 ** 37, Uint8Array.of(1))
    await buffer.backup()
    const { pins, residents } = machineOf(pool)
    const state = residents.buffers.values().next().value!
    const look = vi.spyOn(state.table, 'look')
    const chunkAt = vi.spyOn(state.table, 'chunkAt')
    const held = await pins.pin(
      state,
      { first: 0, end: state.table.pageCount, storedOnly: true },
      { write: false },
    )
    expect(held).toHaveLength(8)
    // Several times, and before and after each page: of half a million blocks.
    expect(look.mock.calls.length + chunkAt.mock.calls.length).toBeLessThan(1000)
    pins.letGo(state, held)
    await pool.close()
  })

  it('T80: dumps the first thousand of many buffers, and says how many more there are', async () => {
    const pool = new Pool({ limitBytes: 2 ** 21, backup: nullBackup() })
    for (let index = 0; index < 1005; index++) await pool.allocate(page, { label: `buffer ${index}` })
    const dump = pool.dump()
    expect(dump.buffers).toHaveLength(1000)
    expect(dump.buffers[0]!.label).toBe('buffer 0')
    expect(dump.moreBuffers).toBe(5)
    expect(dump.stats.buffers).toBe(1005)
    expect(String(dump)).toContain('… and 5 more')
    await pool.close()
  })

  it('T77: content is not dropped after the advice was taken back, though chunks change lists by and by', async () => {
    const pool = new Pool({
      limitBytes: chunkCount * page,
      maxOrder: 0,
      backup: nullBackup(),
      background: false,
    })
    const buffer = await pool.allocate(chunkCount * page)
    const bytes = pattern(chunkCount * page)
    await buffer.write(0, bytes)
    startClock()
    buffer.advise('purgeable')
    for (let turn = 0; turn < 10; turn++) await nextTurn()
    const { residents, reclaim } = machineOf(pool)
    expect(residents.chunks.listPages[purgeableList]).toBe(chunkCount)
    buffer.advise('normal')
    expect(residents.chunks.listPages[purgeableList]).toBeGreaterThan(0)
    expect(reclaim.freeWithoutStoring(chunkCount, 'reuse')).toBe(0)
    const found = new Uint8Array(bytes.byteLength)
    await buffer.read(0, found)
    expect(Buffer.compare(found, bytes)).toBe(0)
    expect(buffer.purged).toBe(false)
    for (let turn = 0; turn < 10; turn++) await nextTurn()
    expect(residents.chunks.listPages[purgeableList]).toBe(0)
    await pool.close()
  })
})
