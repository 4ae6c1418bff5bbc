import { faultyBackup, memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { Pool } from '../../src/index.ts'
import { Pages } from '../../src/memory/pages.ts'
import { ResidentLimit } from '../../src/memory/resident-limit.ts'
import { BufferState } from '../../src/residency/buffer-state.ts'
import { installMissing } from '../../src/residency/installation.ts'
import { PoolLimit } from '../../src/residency/pool-limit.ts'
import { ResidentSet } from '../../src/residency/resident-set.ts'
import { SharedLimit } from '../../src/residency/shared-limit.ts'
import { RecordingProvider } from '../exhaustive/support/recording-provider.ts'
import { page, pattern } from '../support/bytes.ts'

/** What the model found, each as short as it gets. */
describe('histories that failed once', () => {
  const cached = 0
  const writeCombined = 1

  function pagesOfWholeBlocks(limitPages: number): Pages {
    const pages = new Pages(page, 2, new ResidentLimit(limitPages * page), limitPages)
    pages.slabs.provider = new RecordingProvider({ pageExactRelease: false })
    return pages
  }

  it('I6, T16: a piece of an old slab is not taken for zeros because room was made for a new slab', () => {
    const pages = pagesOfWholeBlocks(8)
    // One slab of which two pages are used and two are idle with old bytes in them, and one that is idle as a whole.
    pages.allocate(1)
    const old = pages.allocate(1)
    const whole = pages.allocate(2)
    pages.slabs.bytes(old, 2).fill(0xaa)
    pages.free(old, 1, false, cached)
    pages.free(whole, 2, false, cached)
    const taken = pages.allocate(1, writeCombined)
    const isZero = pages.slabs.bytes(taken, 2).every((byte) => byte === 0)
    expect(pages.takenZero).toBe(isZero)
  })

  it('T21, T25: idle memory that stays resident inside its slab is found when it is given back at the limit', () => {
    const pages = pagesOfWholeBlocks(4)
    pages.allocate(1)
    const idle = pages.allocate(1)
    pages.free(idle, 1, false, cached)
    expect(pages.allocate(0)).toBeGreaterThanOrEqual(0)
    expect(pages.takenZero).toBe(false)
  })

  it('T21, T81: memory that is resident anyway is taken before pieces that need room, whoever gave it', () => {
    const pages = new Pages(page, 2, new ResidentLimit(8 * page), 0)
    const whole = new RecordingProvider({ pageExactRelease: false })
    const exact = new RecordingProvider({ pageExactRelease: true })
    pages.slabs.provider = exact
    pages.allocate(1)
    const given = pages.allocate(1)
    pages.slabs.provider = whole
    pages.allocate(1)
    pages.release(given, 1)
    pages.limit.limitBytes = 6 * page
    // Two pages of each block are used, two of the second are resident though nobody uses them, and that is all there may be.
    expect([exact.gets, whole.gets, pages.inUsePages, pages.residentPages]).toEqual([1, 1, 4, 6])
    expect(pages.allocate(1)).toBeGreaterThanOrEqual(0)
    expect([exact.gets, whole.gets, pages.inUsePages, pages.residentPages]).toEqual([1, 1, 6, 6])
  })

  it('T25, I2: a piece for which there is no room goes back without its provider, which might refuse it', () => {
    const pages = new Pages(page, 2, new ResidentLimit(2 * page), 0)
    const provider = new RecordingProvider()
    pages.slabs.provider = provider
    const used = pages.allocate(1)
    provider.refuseRelease = () => true
    expect(pages.allocate(1)).toBe(-1)
    pages.limit.limitBytes = 4 * page
    const other = pages.allocate(1)
    expect(other).toBeGreaterThanOrEqual(0)
    expect([provider.gets, provider.releases]).toEqual([1, 0])
    provider.heal()
    pages.release(used, 1)
    pages.release(other, 1)
    pages.end()
    expect([provider.pagesOut, provider.violations]).toEqual([0, []])
  })

  it('I11, T57: no larger chunk is made than was charged, although a neighbour left meanwhile', () => {
    const pages = new Pages(page, 1, new ResidentLimit(4 * page), 0)
    pages.slabs.provider = new RecordingProvider()
    const limit = new PoolLimit(new SharedLimit(4 * page), { pageSizeBytes: page })
    const residents = new ResidentSet('pool', pages, limit)
    const buffer = new BufferState({
      id: 1,
      label: 'buffer',
      sizeBytes: 2 * page,
      pageCount: 2,
      maxOrder: 1,
      store: undefined,
      caching: 'cached',
      deviceMapped: false,
    })
    residents.buffers.add(buffer)
    // One page was charged while the other page of its pair was resident; now both could be had as one chunk.
    limit.tryCharge(1)
    installMissing(residents, buffer, { first: 0, end: 1 }, { pinned: [], chargedPages: 1 })
    expect([limit.chargedPages, pages.inUsePages]).toEqual([1, 1])
  })

  it('T63: all or nothing holds also when the backup has only room after copies of the same buffer are given up', async () => {
    await using backup = memoryBackup({ capacityBytes: 12 * page })
    await using pool = new Pool({ limitBytes: 16 * page, maxOrder: 2, provider: 'resizable', backup })
    const buffer = await pool.allocate(16 * page)
    await buffer.write(0, pattern(8 * page))
    await buffer.backup()
    await buffer.read(0, new Uint8Array(8 * page))
    await buffer.write(8 * page, pattern(8 * page))
    // 8 pages are stored and clean, 8 are dirty: 16 do not go into 12.
    const { pages, error } = await buffer.backup({ atomic: true })
    expect([pages, buffer.residentBytes]).toEqual([0, 16 * page])
    expect(error).toMatchObject({ code: 'ENOSPC' })
    expect(pool.verify()).toEqual([])
    await buffer.free()
  })

  it('I9, B12: the background reclaimer ends when the backup is full', async () => {
    await using backup = memoryBackup({ capacityBytes: 2 * page })
    await using pool = new Pool({ limitBytes: 18 * page, maxOrder: 0, provider: 'resizable', backup })
    const stored = await pool.allocate(page)
    await stored.write(0, pattern(page))
    await stored.backup()
    await stored.read(0, new Uint8Array(page))
    const dirty = await pool.allocate(17 * page)
    await dirty.write(0, pattern(17 * page))
    await pool.settled()
    await new Promise((resolve) => setTimeout(resolve, 5))
    // To store one page at the price of another's copy brings nothing.
    expect(pool.stats().backupCalls).toBeLessThan(10)
    expect(pool.verify()).toEqual([])
  })

  it('T36, I9: a purge ends with EBUSY when somebody pins the buffer meanwhile', async () => {
    await using pool = new Pool({ limitBytes: 16 * page, maxOrder: 0, provider: 'resizable' })
    const buffer = await pool.allocate(4 * page)
    const pinning = buffer.pin({ offset: 3 * page, length: page })
    const purging = buffer.purge()
    purging.catch(() => {})
    using pin = await pinning
    await expect(purging).rejects.toMatchObject({ code: 'EBUSY' })
    expect(pin.bytes.byteLength).toBe(page)
    expect(pool.verify()).toEqual([])
  })

  it('I3: pages that a backup refused to drop are dropped when it is asked again', async () => {
    await using backup = faultyBackup(memoryBackup(), {
      faults: [{ method: 'drop', times: 1, code: 'ETIMEDOUT' }],
    })
    await using pool = new Pool({ limitBytes: 16 * page, maxOrder: 2, provider: 'resizable', backup })
    const buffer = await pool.allocate(4 * page)
    await buffer.write(0, pattern(4 * page))
    await buffer.backup()
    await buffer.free()
    await pool.settled()
    expect(backup.stats().livePages).toBe(0)
    expect(pool.stats().dropFailures).toBe(0)
  })
})
