import { memoryBackup } from '@spillway/core'
import { describe, expect, it, vi } from 'vitest'
import { firstDifference, page, pattern } from '../support/bytes.ts'
import { returned } from '../support/setup.ts'
import { code, expectFilled, expectZeros, subjectPool } from './support/pools.ts'

/** Under this limit a buffer of 21 pages, in chunks of 8, 8, 4 and 1, is restored in one call to the backup. */
const limitBytes = 128 * page
const pages = 21

describe('a backup that stops', () => {
  it('B19i, T37: a partial backup is tried again, and again, until all is stored', async () => {
    await using subject = subjectPool({ limitBytes })
    const { backup } = subject
    const buffer = await subject.filled(pages)
    backup.inject({ method: 'backupPages', stop: 2, code: 'ENOSPC' })
    let stored = 0
    for (let rounds = 0; stored < pages; rounds++) {
      const result = await buffer.backup()
      expect(result.pages).toBeGreaterThan(0)
      stored += result.pages
      expect(backup.stats().livePages).toBe(stored)
      expect(subject.pool.verify()).toEqual([])
      expect(rounds).toBeLessThan(pages)
    }
    expect([stored, buffer.residentBytes]).toEqual([pages, 0])
    backup.heal()
    await expectFilled(buffer)
  })
})

describe('content that is given up', () => {
  it('T48, B19d: pages that are overwritten whole give up their stored copies', async () => {
    await using subject = subjectPool({ limitBytes })
    const buffer = await subject.filled(pages)
    await buffer.backup()
    await buffer.write(0, pattern(pages * page, 2))
    await subject.pool.settled()
    expect(subject.backup.stats().livePages).toBe(0)
    await expectFilled(buffer, 2)
  })

  it('T48, T77, B19d: advised purgeable while it is backed up, it is still all there until it is purged, and then no handle is left', async () => {
    await using subject = subjectPool({ limitBytes: 32 * page })
    const buffer = await subject.filled(pages)
    await buffer.backup()
    buffer.advise('purgeable')
    await expectFilled(buffer)
    expect(await subject.pool.shrink(32 * page)).toBeGreaterThan(0)
    expect(buffer.purged).toBe(true)
    await subject.pool.settled()
    expect(subject.backup.stats().livePages).toBe(0)
    await expectZeros(buffer)
    expect(code((await buffer.restore()).error)).toBe('ENOENT')
  })

  it('is kept when it may not be purged any more, also before all of its chunks were told [T77]', async () => {
    // More chunks than are looked at in one go.
    const many = 3000
    await using subject = subjectPool({ limitBytes: 2 * many * page, maxOrder: 0, capacityPages: many })
    const buffer = await subject.filled(many)
    buffer.advise('purgeable')
    while (subject.pool.dump().lists.purgeable < many) await new Promise((resolve) => setImmediate(resolve))
    buffer.advise('normal')
    await subject.pool.shrink(many * page)
    expect(buffer.purged).toBe(false)
    await expectFilled(buffer)
  })
})

describe('a chunk that is overwritten in part', () => {
  const parts = [
    [0, 7],
    [1, 7],
    [2, 4],
  ] as const
  it.each(parts)(
    'keeps its pages beside the range from page %i, %i pages long [T48]',
    async (first, count) => {
      await using subject = subjectPool({ limitBytes })
      const buffer = await subject.filled(8)
      await buffer.backup()
      const expected = pattern(8 * page)
      const written = pattern(count * page, 2)
      expected.set(written, first * page)
      await buffer.write(first * page, written)
      const found = new Uint8Array(8 * page)
      await buffer.read(0, found)
      expect(firstDifference(found, expected)).toBe(-1)
    },
  )
})

describe('buffers and their backups', () => {
  it('B19a, T55: options that are refused leave nothing behind', async () => {
    await using subject = subjectPool()
    const wrong = memoryBackup({ pageSizeBytes: 8192 })
    const { pool } = subject
    await expect(pool.allocate(page, { backup: wrong })).rejects.toThrow(RangeError)
    await expect(pool.allocate(page, { maxOrder: 99 })).rejects.toThrow(RangeError)
    await expect(pool.allocate(page, { caching: 'odd' as 'cached' })).rejects.toThrow(TypeError)
    expect(pool.stats().buffers).toBe(0)
    expect(pool.dump().backups).toEqual([])
    expect(wrong.stats()).toMatchObject({ livePages: 0, backedUpPages: 0 })
    await wrong.close()
  })

  it('T55, T85: a backup that was closed too early is EBADF, never zeros, and the buffer can still be freed', async () => {
    const own = memoryBackup({ name: 'own' })
    await using subject = subjectPool()
    const buffer = await subject.filled(pages, 1, { backup: own })
    await buffer.backup()
    await own.close()
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    expect(own.stats().leakedPages).toBe(pages)
    expect(code((await buffer.restore()).error)).toBe('EBADF')
    await expect(buffer.read(0, new Uint8Array(1))).rejects.toMatchObject({ code: 'EBADF' })
    await buffer.free()
    expect(warned.mock.calls).toMatchObject([[expect.any(String), { code: 'SPILLWAY_DROP_FAILED' }]])
    warned.mockRestore()
  })

  it('T53: each stage of bringing a page in may fail, and leaves the gauges as they were', async () => {
    await using subject = subjectPool({ limitBytes, idleBytes: 0 })
    const { pool, provider, backup } = subject
    const buffer = await subject.filled(pages, 1, { caching: 'uncached', deviceMapped: true })
    await buffer.backup()
    await returned(pool)
    const before = pool.stats()
    const gauges = ({
      residentBytes,
      inUseBytes,
      dirtyBytes,
      pinnedBytes,
      pins,
      waiters,
    }: typeof before) => ({
      residentBytes,
      inUseBytes,
      dirtyBytes,
      pinnedBytes,
      pins,
      waiters,
    })
    provider.refuse = () => true
    await expect(buffer.pin()).rejects.toMatchObject({ code: 'ENOMEM' })
    provider.refuse = () => false
    expect(gauges(pool.stats())).toEqual(gauges(before))
    provider.failCaching = true
    await expect(buffer.pin()).rejects.toThrow('caching refused')
    provider.failCaching = false
    expect(gauges(pool.stats())).toEqual(gauges(before))
    backup.inject({ method: 'copyPages', times: 1, stop: 0, code: 'EIO' })
    await expect(buffer.pin()).rejects.toMatchObject({ code: 'EIO' })
    provider.mapsUntilFailure = 1
    await expect(buffer.pin()).rejects.toMatchObject({ code: 'EFAULT' })
    provider.mapsUntilFailure = Number.POSITIVE_INFINITY
    expect(pool.stats()).toMatchObject({ pins: 0, pinnedBytes: 0, waiters: 0 })
    expect(pool.verify()).toEqual([])
    await expectFilled(buffer)
  })
})
