import { type Backup, memoryBackup, SpillwayError } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { machineOf } from '../src/api/pool.ts'
import { Pool } from '../src/index.ts'
import { page, pattern } from './support/bytes.ts'
import { FakeProvider } from './support/fake-provider.ts'

/** A backup some of whose pages cannot be read any more. */
function damagedBackup() {
  const inner = memoryBackup()
  const bad = new Set<number>()
  const state = {
    bad,
    code: 'EBADMSG' as 'EBADMSG' | 'EIO',
    isDead: false,
    calls: 0,
    /** Awaited before a call answers that a page is damaged. */
    beforeFailure: undefined as (() => Promise<void>) | undefined,
  }
  const backup: Backup = {
    name: inner.name,
    capabilities: inner.capabilities,
    backupPages: (spans, options) => inner.backupPages(spans, options),
    drop: (handles) => inner.drop(handles),
    bytesAvailable: () => inner.bytesAvailable(),
    reserve: (bytes) => inner.reserve(bytes),
    stats: () => inner.stats(),
    close: () => inner.close(),
    [Symbol.asyncDispose]: () => inner.close(),
    async copyPages(handles, spans, options) {
      state.calls++
      let copied = 0
      for (const { first, count } of handles) {
        for (let handle = first; handle < first + count; handle++) {
          if (!state.isDead && !bad.has(handle)) copied++
          else {
            await inner.copyPages(prefixOf(handles, copied), pagesOf(spans, copied), options)
            await state.beforeFailure?.()
            return { copied, error: new SpillwayError(state.isDead ? 'EIO' : state.code, 'damaged') }
          }
        }
      }
      return inner.copyPages(handles, spans, options)
    },
  }
  return { backup, state }
}

function prefixOf(handles: readonly { first: number; count: number }[], pages: number) {
  const prefix = []
  for (let left = pages, index = 0; left > 0; index++) {
    const { first, count } = handles[index]!
    prefix.push({ first, count: Math.min(count, left) })
    left -= Math.min(count, left)
  }
  return prefix
}

function pagesOf(spans: readonly Uint8Array[], pages: number): Uint8Array[] {
  const prefix = []
  for (let left = pages * page, index = 0; left > 0; index++) {
    prefix.push(spans[index]!.subarray(0, left))
    left -= Math.min(spans[index]!.byteLength, left)
  }
  return prefix
}

const pageCount = 64
const damagedPage = 37

/** One chunk of 64 pages, all stored, one of them damaged. */
async function scene(code: 'EBADMSG' | 'EIO' = 'EBADMSG') {
  const { backup, state } = damagedBackup()
  const pool = new Pool({
    limitBytes: 128 * page,
    maxOrder: 6,
    provider: 'resizable',
    backup,
    background: false,
  })
  const buffer = await pool.allocate(pageCount * page, { label: 'subject' })
  const bytes = pattern(pageCount * page)
  await buffer.write(0, bytes)
  const handles: number[] = []
  const store = backup.backupPages.bind(backup)
  backup.backupPages = async (spans, options) => {
    const result = await store(spans, options)
    for (const { first, count } of result.handles)
      for (let handle = first; handle < first + count; handle++) handles.push(handle)
    return result
  }
  await buffer.backup()
  state.code = code
  state.bad.add(handles[damagedPage]!)
  const read = async (index: number) => {
    const found = new Uint8Array(page)
    await buffer.read(index * page, found)
    return Buffer.compare(found, bytes.subarray(index * page, (index + 1) * page)) === 0
  }
  return { pool, buffer, bytes, state, read }
}

for (const code of ['EBADMSG', 'EIO'] as const) {
  describe(`a stored page that fails with ${code}`, () => {
    it('costs itself and no other page of its chunk, and is tried again each time', async () => {
      const { pool, buffer, state, read } = await scene(code)
      for (let index = 0; index < pageCount; index++) {
        if (index !== damagedPage) expect(await read(index)).toBe(true)
        else await expect(read(index)).rejects.toMatchObject({ code, page: damagedPage, buffer: 'subject' })
      }
      const { calls } = state
      await expect(read(damagedPage)).rejects.toMatchObject({ code })
      expect(state.calls).toBeGreaterThan(calls)
      state.bad.clear()
      expect(await read(damagedPage)).toBe(true)
      expect(await buffer.restore()).toMatchObject({ pages: expect.any(Number) })
      expect(pool.verify()).toEqual([])
      await pool.close()
    })

    it('lets calls at once have the others', async () => {
      const { pool, read } = await scene(code)
      const all = await Promise.allSettled(Array.from({ length: pageCount }, (_, index) => read(index)))
      const failed = all.flatMap(({ status }, index) => (status === 'rejected' ? [index] : []))
      expect(failed).toEqual([damagedPage])
      expect(pool.verify()).toEqual([])
      await pool.close()
    })

    it('is healed by writing over it whole, and by giving it up', async () => {
      const { pool, buffer, bytes, read } = await scene(code)
      const part = buffer.write(damagedPage * page + 1, new Uint8Array(1))
      await expect(part).rejects.toMatchObject({ code, page: damagedPage })
      const other = pattern(page, 99)
      await buffer.write(damagedPage * page, other)
      bytes.set(other, damagedPage * page)
      for (let index = 0; index < pageCount; index++) expect(await read(index)).toBe(true)
      expect(pool.verify()).toEqual([])
      // And its chunk is one again.
      await buffer.backup()
      await buffer.restore()
      expect(pool.stats().chunks).toBe(1)
      await pool.close()

      for (const wasTried of [false, true]) {
        const again = await scene(code)
        expect(await again.read(0)).toBe(true)
        if (wasTried) await expect(again.read(damagedPage)).rejects.toMatchObject({ code })
        await again.buffer.purge({ offset: damagedPage * page, length: page })
        again.bytes.fill(0, damagedPage * page, (damagedPage + 1) * page)
        for (let index = 0; index < pageCount; index++) expect(await again.read(index)).toBe(true)
        await again.buffer.backup()
        await again.buffer.restore()
        expect(again.pool.stats().chunks).toBe(1)
        for (let index = 0; index < pageCount; index++) expect(await again.read(index)).toBe(true)
        await again.pool.close()
      }
    })
  })
}

describe('restore() of a buffer with a damaged page', () => {
  it('brings all others, names it, and tries it again the next time', async () => {
    const { pool, buffer, state } = await scene()
    const first = await buffer.restore()
    expect(first.error).toMatchObject({ code: 'EBADMSG', page: damagedPage })
    expect(first.pages).toBe(pageCount - 1)
    const second = await buffer.restore()
    expect(second).toMatchObject({ pages: 0, error: { code: 'EBADMSG', page: damagedPage } })
    state.bad.clear()
    expect(await buffer.restore()).toEqual({ pages: 1 })
    expect(pool.verify()).toEqual([])
    await pool.close()
  })
})

describe('a backup that gives nothing at all', () => {
  it('has no bad pages: no chunk is split for it', async () => {
    const { pool, buffer, state, read } = await scene('EIO')
    state.bad.clear()
    state.isDead = true
    for (const index of [0, 5, 63]) await expect(read(index)).rejects.toMatchObject({ code: 'EIO' })
    expect(pool.stats().chunks).toBe(1)
    state.isDead = false
    expect(await read(5)).toBe(true)
    expect(buffer.residentBytes).toBe(pageCount * page)
    await pool.close()
  })
})

describe('a damaged page that is set aside', () => {
  it('does not bring a call back that was aborted in the step before', async () => {
    const { pool, buffer, state, read } = await scene('EIO')
    const controller = new AbortController()
    const held = Promise.withResolvers<void>()
    let failures = 0
    state.beforeFailure = async () => {
      if (++failures !== 2) return
      await held.promise
      // The chunk leaves in the microtasks that follow; the first call, which waits for that a turn at a time, then looks again.
      controller.abort()
    }
    const aborted = buffer.pin({ offset: 0, length: page, signal: controller.signal })
    const other = read(1)
    const rejection = expect(aborted).rejects.toMatchObject({ code: 'EINTR' })
    for (let turn = 0; turn < 10 || failures < 2; turn++) await new Promise(setImmediate)
    held.resolve()
    await rejection
    expect(await other).toBe(true)
    for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate)
    const { operations, applicationPins, pinnedPages } = machineOf(pool).residents
    expect([operations.count, applicationPins, pinnedPages]).toEqual([0, 0, 0])
    expect(pool.verify()).toEqual([])
    await buffer.free()
    await pool.close()
  })

  it('leaves the count of pages that may not leave right, where what arrived is in such memory', async () => {
    const { pool, buffer, read } = await scene()
    await pool.setProvider(new FakeProvider({ capabilities: { swappable: false } }))
    expect(await read(0)).toBe(true)
    expect(buffer.residentBytes / page).toBe(damagedPage)
    expect(machineOf(pool).residents.unevictablePages).toBe(damagedPage)
    expect(pool.verify()).toEqual([])
    await pool.close()
  })
})
