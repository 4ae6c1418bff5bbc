import { describe, expect, it } from 'vitest'
import { ordersOf, subjectPool } from '../ledger/support/pools.ts'
import { page } from '../support/bytes.ts'

/** The kernel's cases for its page pool, with the free lists of a pool in their place. Chunks have at most 8 pages. */
const requests = [
  { pages: 1, orders: [0], deviceMapped: false },
  { pages: 4, orders: [2], deviceMapped: false },
  { pages: 9, orders: [3, 0], deviceMapped: false },
  { pages: 1, orders: [0], deviceMapped: true },
  { pages: 9, orders: [3, 0], deviceMapped: true },
]

describe('the page pool', () => {
  for (const { pages, orders, deviceMapped } of requests) {
    const kind = `${pages} pages${deviceMapped ? ', mapped for a device' : ''}`

    it(`ttm_pool_alloc_basic, T20: ${kind}: as many pages as asked for, at the highest orders that fit`, async () => {
      await using subject = subjectPool()
      const buffer = await subject.filled(pages, 1, { deviceMapped })
      expect(buffer.residentBytes).toBe(pages * page)
      expect(await ordersOf(buffer)).toEqual(orders)
    })

    it(`ttm_pool_alloc_basic_dma_addr, T26: ${kind}: addresses only where they were asked for`, async () => {
      await using subject = subjectPool()
      const buffer = await subject.filled(pages, 1, { deviceMapped })
      using pin = await buffer.pin()
      if (deviceMapped) {
        expect(pin.deviceAddresses).toHaveLength(orders.length)
        expect(pin.deviceAddresses[0]).toBeGreaterThan(0)
        expect(pin.deviceAddresses.at(-1)).toBeGreaterThan(0)
      } else {
        expect(subject.provider.mappings.size).toBe(0)
      }
      pin.release()
      await buffer.free()
      expect(subject.provider.mappings.size).toBe(0)
    })
  }

  it('ttm_pool_alloc_order_caching_match, T17: an idle chunk of the same caching and order is taken', async () => {
    await using subject = subjectPool()
    await (await subject.filled(4, 1, { caching: 'uncached' })).free()
    expect(subject.idle('uncached', 2)).toBe(1)
    await subject.filled(4, 2, { caching: 'uncached' })
    expect(subject.idle('uncached', 2)).toBe(0)
  })

  it('ttm_pool_alloc_caching_mismatch, T17: an idle chunk of another caching is left alone', async () => {
    await using subject = subjectPool()
    await (await subject.filled(4, 1, { caching: 'uncached' })).free()
    const other = await subject.filled(4, 2, { caching: 'write-combined' })
    expect([subject.idle('uncached', 2), subject.idle('write-combined', 2)]).toEqual([1, 0])
    await other.free()
    expect([subject.idle('uncached', 2), subject.idle('write-combined', 2)]).toEqual([1, 1])
  })

  it('ttm_pool_alloc_order_mismatch, T17: an idle chunk of another order is left alone', async () => {
    await using subject = subjectPool()
    await (await subject.filled(4)).free()
    const other = await subject.filled(1, 2)
    expect([subject.idle('cached', 0), subject.idle('cached', 2)]).toEqual([0, 1])
    await other.free()
    expect([subject.idle('cached', 0), subject.idle('cached', 2)]).toEqual([1, 1])
  })

  it('ttm_pool_free_dma_alloc, T15: the list of a pool is empty while its memory is in use, and not after', async () => {
    await using subject = subjectPool()
    const buffer = await subject.filled(4, 1, { deviceMapped: true })
    expect(subject.idle('cached', 2)).toBe(0)
    await buffer.free()
    expect(subject.idle('cached', 2)).toBe(1)
  })

  it('ttm_pool_free_no_dma_alloc, T15: a pool that is to keep nothing gives freed memory to the system', async () => {
    await using subject = subjectPool({ idleBytes: 0 })
    const buffer = await subject.filled(8)
    await buffer.free()
    expect(subject.idle('cached', 3)).toBe(0)
    expect(subject.provider.pagesOut).toBe(0)
  })

  it('ttm_pool_fini_basic, T19: closing gives back what was idle', async () => {
    await using subject = subjectPool()
    await (await subject.filled(4)).free()
    expect(subject.idle('cached', 2)).toBe(1)
    await subject.pool.close()
    expect(subject.idle('cached', 2)).toBe(0)
    expect(subject.provider.pagesOut).toBe(0)
  })
})
