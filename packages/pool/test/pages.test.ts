import { describe, expect, it } from 'vitest'
import { Pages } from '../src/memory/pages.ts'
import { ResidentLimit } from '../src/memory/resident-limit.ts'
import type { PageProvider } from '../src/providers/provider.ts'
import { page } from './support/bytes.ts'
import { FakeProvider } from './support/fake-provider.ts'

const cached = 0

async function heapUsed(): Promise<number> {
  for (let time = 0; time < 3; time++) {
    globalThis.gc!()
    await new Promise((resolve) => setImmediate(resolve))
  }
  return process.memoryUsage().heapUsed
}

const writeCombined = 1

function pagesOn(
  provider: FakeProvider,
  options: { maxOrder?: number; limit?: number; idle?: number } = {},
): Pages {
  const pages = new Pages(
    page,
    options.maxOrder ?? 3,
    new ResidentLimit((options.limit ?? 64) * page),
    options.idle ?? 64,
  )
  pages.slabs.provider = provider
  return pages
}

describe('the free lists', () => {
  it('T14, T17: takes exactly the caching and order asked for, and leaves the others alone', () => {
    const provider = new FakeProvider()
    const pages = pagesOn(provider)
    const two = pages.allocate(2)
    pages.free(two, 2, false, cached)
    expect(pages.listLength(cached, 2)).toBe(1)
    // KUnit ttm_pool_alloc_order_mismatch: an order-2 entry is not used for an order-0 request.
    const zero = pages.allocate(0)
    expect(pages.listLength(cached, 2)).toBe(1)
    pages.free(zero, 0, false, cached)
    expect([pages.listLength(cached, 0), pages.listLength(cached, 2)]).toEqual([1, 1])
    // KUnit ttm_pool_alloc_caching_mismatch.
    const other = pages.allocate(2, writeCombined)
    expect(pages.listLength(cached, 2)).toBe(1)
    provider.setCaching([pages.slabs.run(other, 4)], 'write-combined')
    pages.free(other, 2, false, writeCombined)
    expect([pages.listLength(cached, 2), pages.listLength(writeCombined, 2)]).toEqual([1, 1])
    // KUnit ttm_pool_alloc_order_caching_match.
    expect(pages.allocate(2, cached)).toBe(two)
    expect(pages.listLength(cached, 2)).toBe(0)
  })

  it('T16, T18: counts pages and not chunks, and comes back to zero', () => {
    const provider = new FakeProvider()
    const pages = pagesOn(provider)
    const frames = [3, 2, 0].map((order) => ({ order, frame: pages.allocate(order) }))
    expect([pages.inUsePages, pages.idlePages]).toEqual([13, 0])
    for (const { frame, order } of frames) pages.free(frame, order, false)
    expect([pages.inUsePages, pages.idlePages]).toEqual([0, 13])
    expect(pages.residentPages).toBe(13)
    pages.trim(0)
    expect(pages.residentPages).toBe(0)
    expect(provider.blocks.size).toBe(0)
  })

  it('T16, I6: says which chunks hold old bytes, and which are known to be zeros', () => {
    const pages = pagesOn(new FakeProvider())
    const fresh = pages.allocate(3)
    expect(pages.takenZero).toBe(true)
    pages.free(fresh, 3, false)
    expect(pages.allocate(3)).toBe(fresh)
    expect(pages.takenZero).toBe(false)
    pages.free(fresh, 3, true)
    pages.allocate(3)
    expect(pages.takenZero).toBe(true)
  })

  it('T19: an empty pool trims to nothing, again and again', () => {
    const pages = pagesOn(new FakeProvider())
    expect([pages.trim(0), pages.trim(0), pages.shrinkStep()]).toEqual([0, 0, 0])
  })

  it('T28: keeps no more idle pages than it was told, and none with a cap of 0', () => {
    const provider = new FakeProvider()
    const pages = pagesOn(provider, { idle: 8 })
    const frames = [pages.allocate(3), pages.allocate(3)]
    for (const frame of frames) pages.free(frame, 3, false)
    expect(pages.idlePages).toBe(8)
    const none = pagesOn(new FakeProvider(), { idle: 0 })
    none.free(none.allocate(0), 0, false)
    expect(none.residentPages).toBe(0)
  })

  it('T29, T30: shrinks by turns, one chunk a step, and ends when nothing is left (I9, B17)', () => {
    const pages = pagesOn(new FakeProvider())
    const orders = [0, 0, 2, 2, 3]
    const frames = orders.map((order) => pages.allocate(order))
    frames.forEach((frame, index) => {
      pages.free(frame, orders[index]!, false)
    })
    const steps: number[] = []
    for (let given = pages.shrinkStep(); given > 0; given = pages.shrinkStep()) steps.push(given)
    expect(steps).toEqual([1, 4, 8, 1, 4])
    expect(pages.idlePages).toBe(0)
  })
})

describe('slabs', () => {
  it('remember no more pieces than are free, whatever came and went', async () => {
    const bytes = new Uint8Array(512 * page)
    const provider: PageProvider = {
      name: 'always the same',
      capabilities: { swappable: true, movable: true, shareable: false, pageExactRelease: true },
      probe: () => true,
      get: () => ({ bytes }),
      put: () => {},
      release: () => {},
    }
    const pages = new Pages(page, 9, new ResidentLimit(4096 * page), 0)
    pages.slabs.provider = provider
    // Pages of a chunk leave one by one, and none of the lower orders is ever asked for.
    const cycle = () => {
      const frame = pages.allocate(9)
      for (let index = 0; index < 512; index++) pages.release(frame + index, 0)
    }
    for (let time = 0; time < 100; time++) cycle()
    const before = await heapUsed()
    for (let time = 0; time < 4000; time++) cycle()
    // Two million pages were given back: at a few bytes each it would be far more.
    expect((await heapUsed()) - before).toBeLessThan(2 * 2 ** 20)
    expect([pages.residentPages, pages.slabs.slabCount]).toEqual([0, 0])
  })

  it('T57: after a change of providers, a page that idle memory leaves behind serves when a new one has no room', () => {
    const pages = pagesOn(new FakeProvider({ capabilities: { pageExactRelease: false } }), {
      maxOrder: 1,
      limit: 3,
    })
    const [held, idle] = [pages.allocate(0), pages.allocate(0)]
    pages.slabs.provider = new FakeProvider()
    pages.allocate(0)
    pages.free(idle, 0, false, cached)
    // The other half of the second block is free and has no memory; the idle page cannot leave, for its block is in use.
    expect(pages.allocate(0, writeCombined)).toBe(idle)
    expect([pages.residentPages, pages.inUsePages, held === idle]).toEqual([3, 3, false])
  })

  it('of a pool of single pages are blocks of 64 pages, smaller ones where the limit has no room', () => {
    const provider = new FakeProvider()
    const pages = pagesOn(provider, { maxOrder: 0, limit: 200 })
    for (let page = 0; page < 128; page++) expect(pages.allocate(0)).toBeGreaterThanOrEqual(0)
    expect([provider.blocks.size, pages.residentPages, pages.takenOrder]).toEqual([2, 128, 0])
    expect(provider.requests.every(({ whole }) => !whole)).toBe(true)
    const inexact = new FakeProvider({ capabilities: { pageExactRelease: false } })
    const few = pagesOn(inexact, { maxOrder: 0, limit: 9 })
    for (let page = 0; page < 9; page++) expect(few.allocate(0)).toBeGreaterThanOrEqual(0)
    expect([few.allocate(0), few.residentPages]).toEqual([-1, 9])
    expect(inexact.requests.map(({ order }) => order)).toEqual([3, 0])
  })

  it('find every free piece again after a sweep', () => {
    const pages = pagesOn(new FakeProvider(), { maxOrder: 6, limit: 20_000, idle: 0 })
    const frames: number[] = []
    for (let page = 0; page < 10_000; page++) frames.push(pages.allocate(0))
    // Every second page: 5000 free pieces of order 0, none of which can merge.
    for (let page = 0; page < frames.length; page += 2) pages.release(frames[page]!, 0)
    expect(pages.residentPages).toBe(5000)
    const again = new Set<number>()
    for (let page = 0; page < 5000; page++) again.add(pages.allocate(0))
    expect([...again].sort()).toEqual(frames.filter((_, page) => page % 2 === 0).sort())
    expect(pages.slabs.slabCount).toBe(157)
  })
})

describe('allocation', () => {
  it('T21: goes one order down when the system has nothing, and gives up at order 0', () => {
    const provider = new FakeProvider()
    provider.refuse = (order) => order > 1
    const pages = pagesOn(provider)
    expect(pages.allocate(3)).toBeGreaterThanOrEqual(0)
    expect(pages.takenOrder).toBe(1)
    provider.refuse = () => true
    pages.allocate(0)
    pages.allocate(0)
    expect(pages.allocate(3)).toBe(-1)
    expect(pages.inUsePages).toBeLessThanOrEqual(4)
  })

  it('T22, T23, B10: asks for high orders without effort, except for the beneficial one', () => {
    for (const [beneficial, expected] of [
      [0, [true, false]],
      [3, [false, false]],
    ] as const) {
      const provider = new FakeProvider()
      const pages = pagesOn(provider)
      pages.beneficialOrder = beneficial
      pages.allocate(3)
      pages.allocate(0)
      expect(provider.requests.map((request) => request.retryMayFail)).toEqual(expected)
    }
  })

  it('T57: never goes past the limit, and gives idle memory back first', () => {
    const provider = new FakeProvider()
    const pages = pagesOn(provider, { limit: 16 })
    const frames = [pages.allocate(3), pages.allocate(0)]
    pages.free(frames[0]!, 3, false)
    expect(pages.residentPages).toBe(9)
    pages.allocate(2)
    pages.allocate(2)
    expect(pages.residentPages).toBeLessThanOrEqual(16)
    pages.allocate(3)
    expect(pages.takenOrder).toBeLessThan(3)
    while (pages.allocate(0) >= 0);
    expect(pages.residentPages).toBe(16)
    expect(pages.inUsePages).toBe(16)
  })

  it('I2: without page-exact release, what is free inside a slab counts until the slab is free', () => {
    const provider = new FakeProvider({ capabilities: { pageExactRelease: false } })
    const pages = pagesOn(provider, { idle: 0 })
    const one = pages.allocate(0)
    expect(pages.residentPages).toBe(8)
    const two = pages.allocate(1)
    expect(pages.residentPages).toBe(8)
    pages.free(one, 0, false)
    expect(pages.residentPages).toBe(8)
    pages.free(two, 1, false)
    expect(pages.residentPages).toBe(0)
    expect(provider.released).toEqual([])
  })

  it('I2: with page-exact release, every page that is given up leaves at once', () => {
    const provider = new FakeProvider()
    const pages = pagesOn(provider, { idle: 0 })
    const whole = pages.allocate(3)
    for (let index = 0; index < 3; index++) pages.release(whole + index, 0)
    expect(provider.released).toEqual([1, 1, 1])
    expect(pages.residentPages).toBe(5)
    pages.release(whole + 3, 0)
    pages.release(whole + 4, 2)
    expect(provider.blocks.size).toBe(0)
    expect(pages.residentPages).toBe(0)
  })
})
