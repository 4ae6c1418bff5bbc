import { describe, expect, it } from 'vitest'
import { code, expectFilled, subjectPool } from '../ledger/support/pools.ts'
import { page, pattern } from '../support/bytes.ts'

/** The kernel's cases for its vector of pages, with a paged buffer in its place. */
describe('a paged buffer', () => {
  it('ttm_tt_init_basic, T52: has the size asked for, and neither memory nor stored pages nor mappings', async () => {
    await using subject = subjectPool()
    const buffer = await subject.pool.allocate(6 * page, { deviceMapped: true, label: 'six' })
    expect([buffer.label, buffer.sizeBytes]).toEqual(['six', 6 * page])
    expect([buffer.residentBytes, buffer.backedUpBytes]).toEqual([0, 0])
    expect([subject.provider.requests.length, subject.provider.mappings.size]).toEqual([0, 0])
  })

  it('ttm_tt_init_misaligned, T52: a size that is no whole number of pages takes one page more, and ends where it was told', async () => {
    await using subject = subjectPool()
    const buffer = await subject.pool.allocate(2 * page + 1)
    await buffer.write(0, pattern(2 * page + 1))
    expect([buffer.sizeBytes, buffer.residentBytes]).toEqual([2 * page + 1, 3 * page])
    await expect(buffer.write(2 * page + 1, new Uint8Array(1))).rejects.toThrow(RangeError)
    await expectFilled(buffer)
  })

  it('ttm_tt_fini_basic, T50: has no pages when it was freed', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(6)
    await buffer.free()
    expect([buffer.freed, buffer.residentBytes, buffer.backedUpBytes]).toEqual([true, 0, 0])
    expect(subject.pool.stats()).toMatchObject({ buffers: 0, chunks: 0 })
  })

  it('ttm_tt_fini_sg, T50: addresses are there before, and gone when it was freed', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(6, 1, { deviceMapped: true })
    const pin = await buffer.pin()
    expect(pin.deviceAddresses.every((address) => address > 0)).toBe(true)
    pin.release()
    expect(() => pin.deviceAddresses).toThrow(expect.objectContaining({ code: 'EBADF' }))
    await buffer.free()
    expect(subject.provider.mappings.size).toBe(0)
  })

  it('ttm_tt_fini_shmem, T50: its stored pages are dropped when it is freed', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(6)
    await buffer.backup()
    expect(subject.backup.stats().livePages).toBe(6)
    await buffer.free()
    expect(subject.backup.stats().livePages).toBe(0)
  })

  it('ttm_tt_create_basic: is one more buffer of its pool', async () => {
    await using subject = subjectPool()
    await subject.pool.allocate(page)
    expect(subject.pool.stats().buffers).toBe(1)
  })

  it('ttm_tt_create_invalid_bo_type, T52: what is unknown is refused, and there is no buffer', async () => {
    await using subject = subjectPool()
    const { pool } = subject
    await expect(pool.allocate(page, { kind: 'device' } as object)).rejects.toThrow(TypeError)
    await expect(pool.allocate(page, { caching: 'write-back' as 'cached' })).rejects.toThrow(TypeError)
    for (const size of [Number.NaN, 0.5, -1, Number.POSITIVE_INFINITY]) {
      await expect(pool.allocate(size)).rejects.toThrow(RangeError)
    }
    expect(pool.stats().buffers).toBe(0)
  })

  it('ttm_tt_create_failed, T52: without memory an access is ENOMEM, and works once there is some', async () => {
    await using subject = subjectPool()
    const buffer = await subject.pool.allocate(6 * page)
    subject.provider.refuse = () => true
    await expect(buffer.write(0, pattern(6 * page))).rejects.toMatchObject({ code: 'ENOMEM' })
    expect(buffer.residentBytes).toBe(0)
    subject.provider.refuse = () => false
    await buffer.write(0, pattern(6 * page))
    await expectFilled(buffer)
  })

  it('ttm_tt_destroy_basic, I12: is freed once; a second time is EBADF, and disposing does nothing more', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(1)
    await buffer.free()
    await expect(buffer.free()).rejects.toMatchObject({ code: 'EBADF' })
    await buffer[Symbol.asyncDispose]()
  })

  it('ttm_tt_populate_null_ttm, T53: nothing can be done with a buffer that is not there', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(1)
    await expect(buffer.copyTo(undefined as never)).rejects.toThrow(TypeError)
    await buffer.free()
    await expect(buffer.pin()).rejects.toMatchObject({ code: 'EBADF' })
    await expect(buffer.restore()).rejects.toMatchObject({ code: 'EBADF' })
    await expect(buffer.read(0, new Uint8Array(1))).rejects.toMatchObject({ code: 'EBADF' })
  })

  it('ttm_tt_populate_populated_ttm, T53: pinned again, it has the very same memory', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(8)
    using one = await buffer.pin()
    using two = await buffer.pin()
    expect(two.bytes.buffer).toBe(one.bytes.buffer)
    expect(two.bytes.byteOffset).toBe(one.bytes.byteOffset)
    expect(subject.provider.requests).toHaveLength(1)
  })

  it('ttm_tt_unpopulate_basic, T54: is resident before, and not after', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(6)
    expect(buffer.residentBytes).toBe(6 * page)
    await buffer.purge()
    expect(buffer.residentBytes).toBe(0)
  })

  it('ttm_tt_unpopulate_empty_ttm, T54: giving up what was never there is nothing, twice', async () => {
    await using subject = subjectPool()
    const buffer = await subject.pool.allocate(6 * page)
    for (let round = 0; round < 2; round++) {
      expect(await buffer.purge()).toEqual({ pages: 0 })
      expect(await buffer.backup()).toEqual({ pages: 0 })
    }
    expect(buffer.purged).toBe(false)
  })

  it('ttm_tt_swapin_basic, T63, T64: all leave and all come back, and both say how many', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(11)
    expect(await buffer.backup({ atomic: true })).toEqual({ pages: 11 })
    expect([buffer.residentBytes, buffer.backedUpBytes]).toEqual([0, 11 * page])
    subject.backup.inject({ method: 'copyPages', times: 1, code: 'EIO' })
    expect(code((await buffer.restore()).error)).toBe('EIO')
    expect((await buffer.restore()).error).toBeUndefined()
    expect([buffer.residentBytes, buffer.backedUpBytes]).toEqual([11 * page, 0])
    await expectFilled(buffer)
    await buffer.fill(7)
    await subject.pool.settled()
    expect(subject.backup.stats().livePages).toBe(0)
  })
})
