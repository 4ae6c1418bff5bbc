import { describe, expect, it } from 'vitest'
import { page, pattern } from '../support/bytes.ts'
import { returned } from '../support/setup.ts'
import { code, subjectPool } from './support/pools.ts'

/** Under this limit a buffer of 21 pages, in chunks of 8, 8, 4 and 1, is restored in one call to the backup. */
const limitBytes = 128 * page
const pages = 21

describe('memory that is given up', () => {
  it('T18, B8, B14: every way of giving up memory takes it out of the gauges', async () => {
    await using subject = subjectPool({ limitBytes, idleBytes: 0 })
    const { pool, backup, provider } = subject
    const nothing = { residentBytes: 0, inUseBytes: 0, dirtyBytes: 0, pinnedBytes: 0, chunks: 0 }
    const buffer = await subject.filled(pages)
    await buffer.backup()
    await returned(pool)
    expect(pool.stats()).toMatchObject(nothing)
    // What a failed restore left behind is in the gauges, and leaves them when it is freed.
    backup.inject({ method: 'copyPages', times: 1, stop: 11, code: 'EIO' })
    await buffer.restore()
    expect(pool.stats().inUseBytes).toBe(buffer.residentBytes)
    await buffer.backup()
    await returned(pool)
    expect(pool.stats()).toMatchObject(nothing)
    await buffer.restore()
    await buffer.purge()
    expect(pool.stats()).toMatchObject(nothing)
    await buffer.write(0, pattern(pages * page))
    await pool.shrink(limitBytes)
    expect(pool.stats()).toMatchObject(nothing)
    await buffer.fill(1)
    buffer.advise('purgeable')
    await pool.shrink(limitBytes)
    expect(pool.stats()).toMatchObject(nothing)
    backup.inject({ method: 'backupPages', times: 1, stop: 3, code: 'EIO' })
    buffer.advise('normal')
    await buffer.fill(2)
    expect((await buffer.backup()).pages).toBe(3)
    expect(pool.stats().inUseBytes).toBe(18 * page)
    await buffer.free()
    expect(pool.stats()).toMatchObject(nothing)
    expect(provider.pagesOut).toBe(0)
  })

  it('B19b: a partial backup takes out of the gauges what left, and no more', async () => {
    await using subject = subjectPool({ limitBytes })
    const { pool, backup } = subject
    const buffer = await subject.filled(pages)
    for (let stop = 1; stop < 4; stop++) {
      const before = pool.stats().dirtyBytes
      backup.inject({ method: 'backupPages', times: 1, stop, code: 'EIO' })
      expect((await buffer.backup()).pages).toBe(stop)
      expect(pool.stats().dirtyBytes).toBe(before - stop * page)
      expect(pool.dump().lists.dirty).toBe(before / page - stop)
    }
  })

  it('B19c, T25: after a failed allocation and after a free, no page is left in the table', async () => {
    await using subject = subjectPool({ limitBytes })
    const buffer = await subject.pool.allocate(pages * page)
    let asked = 0
    subject.provider.refuse = () => ++asked > 1
    expect(code(await buffer.write(0, pattern(pages * page)).catch((failure) => failure))).toBe('ENOMEM')
    expect([asked > 1, buffer.residentBytes, buffer.backedUpBytes]).toEqual([true, 0, 0])
    subject.provider.refuse = () => false
    expect(subject.pool.verify()).toEqual([])
    await buffer.free()
    expect([buffer.residentBytes, buffer.backedUpBytes]).toEqual([0, 0])
  })

  it('B19h, T28: the cap on idle memory holds after backup, restore, purge, eviction and free alike', async () => {
    const idleBytes = 8 * page
    await using subject = subjectPool({ limitBytes: 32 * page, idleBytes })
    const { pool } = subject
    const buffer = await subject.filled(pages)
    const idle = () => expect(pool.stats().idleBytes).toBeLessThanOrEqual(idleBytes)
    await buffer.backup()
    idle()
    await buffer.restore()
    idle()
    const other = await subject.filled(pages, 2)
    idle()
    await other.purge()
    idle()
    await other.free()
    idle()
    await buffer.free()
    idle()
    expect(pool.stats().residentBytes).toBeLessThanOrEqual(idleBytes)
  })

  it('I7, T33: backing up asks for no memory, whole, split, in part or all or nothing', async () => {
    for (const split of ['native', 'always'] as const) {
      await using subject = subjectPool({ limitBytes, split })
      const { provider, backup } = subject
      const buffer = await subject.filled(pages)
      const requests = provider.requests.length
      const most = subject.pool.stats().residentBytes
      const { backupPages } = backup
      backup.backupPages = (spans, options) => {
        expect(subject.pool.stats().residentBytes).toBeLessThanOrEqual(most)
        return backupPages.call(backup, spans, options)
      }
      backup.inject({ method: 'backupPages', times: 1, stop: 3, code: 'EIO' })
      await buffer.backup({ atomic: true })
      backup.inject({ method: 'backupPages', times: 1, stop: 11, code: 'EIO' })
      await buffer.backup()
      expect((await buffer.backup()).error).toBeUndefined()
      expect(provider.requests.length).toBe(requests)
    }
  })

  it('T31: a buffer of empty, stored, split and single pages is given up piece by piece, each once', async () => {
    await using subject = subjectPool({ limitBytes })
    const { pool, provider, backup } = subject
    const buffer = await pool.allocate(40 * page)
    await buffer.write(0, pattern(16 * page))
    backup.inject({ method: 'backupPages', times: 1, stop: 11, code: 'EIO' })
    expect((await buffer.backup()).pages).toBe(11)
    buffer.advise('random')
    for (const index of [18, 21, 30, 31]) await buffer.write(index * page, pattern(page, index))
    await buffer.read(0, new Uint8Array(page))
    expect(pool.verify()).toEqual([])
    // The provider throws when a block comes back twice.
    await buffer.free()
    await pool.shrink(limitBytes)
    expect(provider.pagesOut).toBe(0)
  })

  it('I5, B15: sparse buffers of any caching: only what has memory is converted, and all of it back', async () => {
    for (const caching of ['write-combined', 'uncached'] as const) {
      await using subject = subjectPool({ limitBytes, idleBytes: 0 })
      const { pool, provider } = subject
      const buffer = await pool.allocate(48 * page, { caching })
      for (const index of [9, 26, 41]) await buffer.write(index * page, pattern(page, index))
      const calls = provider.cachingCalls.length
      expect(calls).toBe(3)
      expect((await buffer.backup()).pages).toBe(24)
      await returned(pool)
      await buffer.read(26 * page, new Uint8Array(page))
      const converted = (kind: string) =>
        provider.cachingCalls
          .filter((call) => call.caching === kind)
          .reduce((sum, call) => sum + call.pages, 0)
      expect([converted(caching), converted('cached')]).toEqual([32, 24])
      // The provider throws when memory comes back with its caching changed.
      await buffer.free()
      expect(converted('cached')).toBe(32)
    }
  })
})
