import { memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { Pool } from '../../src/index.ts'
import { expectFilled, subjectPool } from '../ledger/support/pools.ts'
import { page, pattern } from '../support/bytes.ts'
import { FakeProvider } from '../support/fake-provider.ts'

/** The kernel's cases for a device, with a pool in its place. */
describe('a pool', () => {
  it('ttm_device_init_basic: has a limit, a page size, empty lists and nothing in use', async () => {
    await using subject = subjectPool({ name: 'mine' })
    const { pool } = subject
    expect([pool.name, pool.limitBytes, pool.pageSizeBytes]).toEqual(['mine', 64 * page, page])
    expect(pool.stats()).toMatchObject({ residentBytes: 0, backedUpBytes: 0, buffers: 0, chunks: 0, pins: 0 })
    expect(pool.dump().lists).toEqual({ unevictable: 0, dirty: 0, clean: 0, purgeable: 0 })
  })

  it('ttm_device_init_multiple, T15: three pools share nothing', async () => {
    await using backup = memoryBackup()
    const pools = [1, 2, 3].map(
      (index) =>
        new Pool({ limitBytes: 16 * page, maxOrder: 3, provider: 'resizable', backup, name: `${index}` }),
    )
    for (const [index, pool] of pools.entries()) {
      const buffer = await pool.allocate(8 * page)
      await buffer.write(0, pattern(8 * page, index))
    }
    await pools[0]!.close()
    expect(pools.map((pool) => pool.stats().residentBytes)).toEqual([0, 8 * page, 8 * page])
    expect(pools.map((pool) => pool.dump().buffers.length)).toEqual([0, 1, 1])
    await Promise.all(pools.map((pool) => pool.close()))
  })

  it('ttm_device_fini_basic, T19: is empty when it was closed, and refuses everything', async () => {
    await using subject = subjectPool()
    const { pool } = subject
    const buffer = await subject.filled(11)
    await pool.close()
    expect(pool.stats()).toMatchObject({ residentBytes: 0, backedUpBytes: 0, buffers: 0, chunks: 0 })
    expect(pool.dump().lists).toEqual({ unevictable: 0, dirty: 0, clean: 0, purgeable: 0 })
    await expect(pool.allocate(page)).rejects.toMatchObject({ code: 'EBADF' })
    await expect(buffer.read(0, new Uint8Array(1))).rejects.toMatchObject({ code: 'EBADF' })
  })

  it('ttm_device_init_no_vma_man, T82: what the provider cannot do is refused before there is a buffer', async () => {
    const provider = new FakeProvider()
    const plain = Object.assign(Object.create(provider), { map: undefined, setCaching: undefined })
    await using pool = new Pool({ limitBytes: 16 * page, maxOrder: 3, provider: plain })
    await expect(pool.allocate(page, { deviceMapped: true })).rejects.toMatchObject({ code: 'ENOSYS' })
    await expect(pool.allocate(page, { caching: 'uncached' })).rejects.toMatchObject({ code: 'ENOSYS' })
    expect(pool.stats().buffers).toBe(0)
    expect(() => new Pool({ limitBytes: 16 * page, maxOrder: 3, provider: {} as never })).toThrow(TypeError)
  })

  it('ttm_device_init_pools, T14: has an empty list for each caching and order', async () => {
    for (const deviceMapped of [false, true]) {
      for (const caching of ['cached', 'uncached'] as const) {
        await using subject = subjectPool()
        const lists = subject.pool.dump().freeLists
        expect(lists.map((list) => list.caching)).toEqual(['cached', 'write-combined', 'uncached'])
        for (const list of lists) expect(list).toMatchObject({ chunksByOrder: [0, 0, 0, 0], pages: 0 })
        const buffer = await subject.filled(9, 1, { deviceMapped, caching })
        await expectFilled(buffer)
        await buffer.free()
        for (const list of subject.pool.dump().freeLists) {
          expect(list.chunksByOrder).toEqual(list.caching === caching ? [1, 0, 0, 1] : [0, 0, 0, 0])
        }
      }
    }
  })
})

/** The kernel's cases for resources and their managers, with pages and the gauges of a pool in their place. */
describe('the gauges of a pool', () => {
  it('ttm_resource_manager_init_basic: begin at zero, with the limit as size', async () => {
    await using subject = subjectPool()
    expect(subject.pool.stats()).toMatchObject({
      limitBytes: 64 * page,
      residentBytes: 0,
      inUseBytes: 0,
      idleBytes: 0,
      dirtyBytes: 0,
    })
  })

  const kinds = [
    { caching: 'cached', deviceMapped: false },
    { caching: 'write-combined', deviceMapped: false },
    { caching: 'uncached', deviceMapped: false },
    { caching: 'cached', deviceMapped: true },
  ] as const
  for (const kind of kinds) {
    const name = `${kind.caching}${kind.deviceMapped ? ', mapped' : ''}`
    it(`ttm_resource_init_basic, T57: rise by the pages of a buffer (${name}), which are on a list`, async () => {
      await using subject = subjectPool()
      await subject.filled(5, 1, kind)
      expect(subject.pool.stats()).toMatchObject({ inUseBytes: 5 * page, residentBytes: 8 * page - 3 * page })
      expect(subject.pool.dump().lists).toMatchObject({ dirty: 5, unevictable: 0 })
    })
  }

  it('ttm_resource_init_pinned, T66: pinned pages are on the unevictable list from the start', async () => {
    await using subject = subjectPool()
    const buffer = await subject.pool.allocate(5 * page)
    using pin = await buffer.pin({ write: true })
    expect(pin.length).toBe(5 * page)
    expect(subject.pool.dump().lists).toEqual({ unevictable: 5, dirty: 0, clean: 0, purgeable: 0 })
  })

  it('ttm_resource_fini_basic, T18: fall back to zero, and the lists are empty', async () => {
    await using subject = subjectPool()
    await (await subject.filled(5)).free()
    expect(subject.pool.stats()).toMatchObject({ inUseBytes: 0, dirtyBytes: 0, chunks: 0 })
    expect(subject.pool.dump().lists).toEqual({ unevictable: 0, dirty: 0, clean: 0, purgeable: 0 })
  })

  it('ttm_resource_manager_usage_basic, I11: are the sum over the buffers', async () => {
    await using subject = subjectPool()
    const buffers = [await subject.filled(5), await subject.filled(11), await subject.filled(1)]
    await buffers[1]!.backup()
    const sum = buffers.reduce((bytes, buffer) => bytes + buffer.residentBytes, 0)
    expect(sum).toBe(6 * page)
    expect(subject.pool.stats()).toMatchObject({ inUseBytes: sum, backedUpBytes: 11 * page })
  })

  it('ttm_sys_man_alloc_basic: count the pages of a buffer', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(7)
    expect(subject.pool.stats().inUseBytes).toBe(buffer.residentBytes)
  })

  it('ttm_sys_man_free_basic: are zero when it was freed', async () => {
    await using subject = subjectPool({ idleBytes: 0 })
    await (await subject.filled(7)).free()
    expect(subject.pool.stats()).toMatchObject({ inUseBytes: 0, residentBytes: 0 })
  })
})
