import { memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { type PageProvider, Pool, ProviderRegistry } from '../src/index.ts'
import { RecordingProvider } from './exhaustive/support/recording-provider.ts'
import { firstDifference, page, pattern } from './support/bytes.ts'
import { FakeProvider } from './support/fake-provider.ts'

const options = { limitBytes: 64 * page, maxOrder: 3, idleBytes: 0 }

describe('providers', () => {
  it('T81: the first that probes well serves all memory; the latest registered is asked first', async () => {
    const registry = new ProviderRegistry()
    const early = new FakeProvider({ name: 'early' })
    const late = new FakeProvider({ name: 'late' })
    registry.register(early)
    const unregister = registry.register(late)
    expect((await registry.select()).provider).toBe(late)
    late.probes = false
    expect((await registry.select()).provider).toBe(early)
    late.probes = true
    unregister()
    unregister()
    expect((await registry.select()).provider).toBe(early)
  })

  it('T81: a probe that throws counts as no, and there is always a default', async () => {
    const registry = new ProviderRegistry()
    const broken = new FakeProvider()
    broken.probe = () => {
      throw new Error('no such device')
    }
    registry.register(broken)
    const { provider, made } = await registry.select()
    expect(['mmap', 'resizable']).toContain(provider.name)
    expect(made).toBe(true)
  })

  it('T24, T81: chunks of one access that come from two providers are converted by their own', async () => {
    const first = new RecordingProvider({ pageExactRelease: false })
    const second = new RecordingProvider()
    await using pool = new Pool({ ...options, maxOrder: 1, provider: first })
    const small = await pool.allocate(page, { caching: 'write-combined' })
    // The other half of this block is taken before the new provider is asked.
    await small.fill(1)
    await pool.setProvider(second)
    const buffer = await pool.allocate(5 * page, { caching: 'write-combined', maxOrder: 0 })
    using pin = await buffer.pin({ write: true })
    expect(pin.spans).toHaveLength(5)
    expect([first.convertedPages, second.convertedPages]).toEqual([2, 4])
    expect([first.violations, second.violations]).toEqual([[], []])
  })

  it('T26, T81: one that lacks what a buffer was allocated with is refused, and the former one stays', async () => {
    for (const needs of [{ caching: 'uncached' }, { deviceMapped: true }] as const) {
      const able = new FakeProvider({ name: 'able' })
      await using pool = new Pool({ ...options, provider: able })
      const buffer = await pool.allocate(4 * page, needs)
      const unable = new FakeProvider({ name: 'unable' })
      Object.assign(unable, { setCaching: undefined, unmap: undefined })
      await expect(pool.setProvider(unable)).rejects.toMatchObject({
        code: 'ENOSYS',
        message: expect.stringMatching(
          /unable cannot (change the caching of memory|map memory for a device)/,
        ),
      })
      await buffer.fill(3)
      expect([able.pagesOut > 0, unable.pagesOut]).toEqual([true, 0])
      await buffer.free()
      await pool.setProvider(unable)
    }
  })

  it('T81: one that is unregistered or replaced while its pages are out keeps taking them back', async () => {
    const registry = new ProviderRegistry()
    const first = new FakeProvider({ name: 'first' })
    const second = new FakeProvider({ name: 'second' })
    const unregister = registry.register(first)
    await using backup = memoryBackup()
    await using pool = new Pool({ ...options, backup, providers: registry })
    const buffer = await pool.allocate(16 * page)
    const bytes = pattern(16 * page)
    await buffer.write(0, bytes)
    unregister()
    await pool.setProvider(second)
    const other = await pool.allocate(8 * page)
    await other.write(0, pattern(8 * page))
    expect([first.pagesOut, second.pagesOut]).toEqual([16, 8])
    await buffer.backup()
    expect([first.pagesOut, second.pagesOut]).toEqual([0, 8])
    const found = new Uint8Array(16 * page)
    await buffer.read(0, found)
    expect(firstDifference(found, bytes)).toBe(-1)
    expect([first.pagesOut, second.pagesOut]).toEqual([0, 24])
    await other.free()
    await buffer.free()
    expect(second.pagesOut).toBe(0)
    second.probes = false
    await expect(pool.setProvider(second)).rejects.toMatchObject({ code: 'ENOSYS' })
  })

  it('T81: a named provider that does not work here is ENOSYS at the first allocation', async () => {
    const provider = new FakeProvider()
    provider.probes = false
    const pool = new Pool({ ...options, provider })
    await expect(pool.allocate(page)).rejects.toMatchObject({ code: 'ENOSYS' })
    provider.probes = true
    await pool.allocate(page)
    await pool.close()
  })

  it('T81, T82: what a provider lacks is found out before it is used', () => {
    const registry = new ProviderRegistry()
    expect(() => registry.register({ name: 'x' } as PageProvider)).toThrow(
      /a page provider needs probe, get, put/,
    )
    const liar = new FakeProvider() as PageProvider
    ;(liar as { release: unknown }).release = undefined
    expect(() => registry.register(liar)).toThrow(/says pageExactRelease but has no release/)
  })

  it('a block of the wrong size is refused and given back', async () => {
    const provider = new FakeProvider()
    const get = provider.get.bind(provider)
    provider.get = (order, request) => get(order, { ...request, lengthBytes: page })
    await using pool = new Pool({ ...options, provider })
    const buffer = await pool.allocate(8 * page)
    await expect(buffer.write(0, new Uint8Array(1))).rejects.toThrow(/gave 4096 bytes; asked for 32768/)
    expect(provider.blocks.size).toBe(0)
    expect(pool.verify()).toEqual([])
  })
})

describe('caching', () => {
  it('T24: chunks from the system are converted in one call per run, idle ones not at all', async () => {
    const provider = new FakeProvider()
    await using pool = new Pool({ ...options, provider, idleBytes: 64 * page })
    const buffer = await pool.allocate(28 * page, { caching: 'write-combined' })
    using pin = await buffer.pin()
    expect(provider.cachingCalls).toEqual([{ caching: 'write-combined', pages: 28, runs: 4 }])
    pin.release()
    await buffer.free()
    // An idle chunk in between makes two runs: 8 pages before it, the rest after.
    const holder = await pool.allocate(8 * page, { caching: 'write-combined' })
    await holder.write(0, pattern(8 * page))
    expect(provider.cachingCalls).toHaveLength(1)
    expect(pool.dump().freeLists[1]?.pages).toBe(20)
  })

  it('T24: a matching idle chunk splits the run', async () => {
    const provider = new FakeProvider()
    await using pool = new Pool({ ...options, provider, idleBytes: 8 * page })
    const idle = await pool.allocate(4 * page, { caching: 'uncached', maxOrder: 2 })
    await idle.write(0, pattern(page))
    await idle.free()
    provider.cachingCalls.length = 0
    // Chunks of 8, 4 and 2 pages: the one of 4 is idle already.
    const buffer = await pool.allocate(14 * page, { caching: 'uncached' })
    using _pin = await buffer.pin()
    expect(provider.cachingCalls.map((call) => call.pages)).toEqual([8, 2])
  })

  it('T82, I5: caching is set back before memory leaves the pool', async () => {
    const provider = new FakeProvider()
    await using backup = memoryBackup()
    const pool = new Pool({ ...options, provider, backup })
    const buffer = await pool.allocate(21 * page, { caching: 'uncached' })
    const bytes = pattern(21 * page)
    await buffer.write(0, bytes)
    await buffer.backup()
    await buffer.restore()
    const found = new Uint8Array(21 * page)
    await buffer.read(0, found)
    expect(firstDifference(found, bytes)).toBe(-1)
    await buffer.free()
    await pool.close()
    // The fake throws when a page comes back that is not cached.
    expect(provider.blocks.size).toBe(0)
    const set = provider.cachingCalls.filter((call) => call.caching === 'uncached')
    const back = provider.cachingCalls.filter((call) => call.caching === 'cached')
    const pages = (calls: typeof set) => calls.reduce((sum, call) => sum + call.pages, 0)
    expect(pages(set)).toBe(pages(back))
  })

  it('T24, T25, B3: a conversion that fails undoes the allocation, each page once', async () => {
    const provider = new FakeProvider()
    await using pool = new Pool({ ...options, provider, idleBytes: 64 * page })
    const idle = await pool.allocate(4 * page, { caching: 'uncached', maxOrder: 2 })
    await idle.write(0, pattern(page))
    await idle.free()
    provider.failCaching = true
    const buffer = await pool.allocate(14 * page, { caching: 'uncached', maxOrder: 2 })
    await expect(buffer.pin()).rejects.toThrow('caching refused')
    expect(pool.verify()).toEqual([])
    expect(pool.stats()).toMatchObject({ inUseBytes: 0, pinnedBytes: 0, idleBytes: 4 * page })
    // What was never converted went back without a change of its caching.
    expect(provider.cachingCalls).toMatchObject([{ caching: 'uncached', pages: 4 }])
    provider.failCaching = false
    provider.cachingCalls.length = 0
    // The four pages that were idle have their caching still; what came from the system went back without it.
    using _pin = await buffer.pin()
    expect(provider.cachingCalls).toMatchObject([{ caching: 'uncached', pages: 10 }])
    expect(pool.stats()).toMatchObject({ providerFailures: 0 })
  })

  it('T24, T25, B15: what one call has converted goes back as that when the next call fails', async () => {
    const provider = new FakeProvider()
    await using pool = new Pool({ ...options, provider, idleBytes: 64 * page })
    const idle = await pool.allocate(2 * page, { caching: 'uncached', maxOrder: 1 })
    await idle.write(0, pattern(page))
    await idle.free()
    provider.cachingCalls.length = 0
    const { setCaching } = provider
    // Four pages, then the two that are idle, then one.
    provider.setCaching = (runs, caching) => {
      if (provider.cachingCalls.length === 1) throw new Error('caching refused')
      setCaching.call(provider, runs, caching)
    }
    const buffer = await pool.allocate(7 * page, { caching: 'uncached', maxOrder: 2 })
    await expect(buffer.pin()).rejects.toThrow('caching refused')
    Object.assign(provider, { setCaching })
    expect(provider.cachingCalls).toMatchObject([{ caching: 'uncached', pages: 4 }])
    expect(pool.stats()).toMatchObject({ providerFailures: 0, inUseBytes: 0, idleBytes: 6 * page })
    expect(pool.verify()).toEqual([])
  })

  it('T24, T25, I5: memory that a provider does not take back after its caching was reset is converted again', async () => {
    const provider = new FakeProvider()
    await using pool = new Pool({ ...options, provider })
    const first = await pool.allocate(4 * page, { caching: 'uncached', maxOrder: 2 })
    await first.write(0, pattern(page))
    const refuse = () => {
      throw new Error('not now')
    }
    const { put, release } = provider
    Object.assign(provider, { put: refuse, release: refuse })
    await first.free()
    expect(pool.stats()).toMatchObject({ idleBytes: 4 * page })
    Object.assign(provider, { put, release })
    provider.cachingCalls.length = 0
    const second = await pool.allocate(4 * page, { caching: 'uncached', maxOrder: 2 })
    await second.write(0, pattern(page))
    expect(provider.cachingCalls).toMatchObject([{ caching: 'uncached', pages: 4 }])
  })
})

describe('device mappings', () => {
  it('T26: each chunk is mapped once, pages follow each other, and every mapping ends', async () => {
    const provider = new FakeProvider()
    await using backup = memoryBackup()
    const pool = new Pool({ ...options, provider, backup })
    const buffer = await pool.allocate(21 * page, { deviceMapped: true })
    await buffer.write(0, pattern(21 * page))
    {
      using pin = await buffer.pin()
      expect(pin.deviceAddresses).toHaveLength(4)
      expect(pin.deviceAddresses.every((address) => address > 0)).toBe(true)
      using part = await buffer.pin({ offset: 3 * page, length: page })
      expect(part.deviceAddresses).toEqual([pin.deviceAddresses[0]! + 3 * page])
      expect(provider.mappings.size).toBe(4)
    }
    await buffer.backup()
    expect(provider.mappings.size).toBe(0)
    await buffer.restore()
    using again = await buffer.pin()
    expect(again.deviceAddresses).toHaveLength(4)
    again.release()
    await pool.close()
    expect(provider.mappings.size).toBe(0)
  })

  it('T26, I4: a mapping that fails is EFAULT, and the next try maps the rest', async () => {
    const provider = new FakeProvider()
    const pool = new Pool({ ...options, provider })
    const buffer = await pool.allocate(21 * page, { deviceMapped: true, label: 'mapped' })
    provider.mapsUntilFailure = 1
    await expect(buffer.pin()).rejects.toMatchObject({ code: 'EFAULT', buffer: 'mapped', page: 8 })
    expect(pool.verify()).toEqual([])
    provider.mapsUntilFailure = 10
    const pin = await buffer.pin()
    expect(new Set(pin.deviceAddresses).size).toBe(4)
    pin.release()
    await pool.close()
    expect(provider.mappings.size).toBe(0)
  })

  it('T26, T33: a chunk that is split is unmapped as a whole', async () => {
    const provider = new FakeProvider()
    const backup = memoryBackup({ capacityBytes: 3 * page })
    const pool = new Pool({ ...options, provider, backup })
    const buffer = await pool.allocate(8 * page, { deviceMapped: true })
    await buffer.write(0, pattern(8 * page))
    expect((await buffer.backup()).pages).toBe(3)
    expect(provider.mappings.size).toBe(0)
    const pin = await buffer.pin({ offset: 3 * page, length: 5 * page })
    expect(pin.deviceAddresses).toHaveLength(2)
    pin.release()
    await pool.close()
    expect(provider.mappings.size).toBe(0)
    await backup.close()
  })
})
