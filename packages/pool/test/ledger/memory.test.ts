import { describe, expect, it } from 'vitest'
import { page, pattern } from '../support/bytes.ts'
import { FakeProvider } from '../support/fake-provider.ts'
import { Random } from '../support/random.ts'
import { code, expectFilled, expectZeros, ordersOf, subjectPool } from './support/pools.ts'

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
    expect(pool.stats()).toMatchObject(nothing)
    // What a failed restore left behind is in the gauges, and leaves them when it is freed.
    backup.inject({ method: 'copyPages', times: 1, stop: 11, code: 'EIO' })
    await buffer.restore()
    expect(pool.stats().inUseBytes).toBe(buffer.residentBytes)
    await buffer.backup()
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
    expect(buffer.residentBytes + buffer.backedUpBytes).toBeLessThanOrEqual(8 * page)
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

describe('memory that is taken', () => {
  it('B2, T40, T42, T43: a restore that fails at any page, allocation, conversion or mapping goes on to the same bytes', async () => {
    for (const kind of ['copy', 'allocation', 'conversion', 'mapping'] as const) {
      for (let stop = 0; stop < (kind === 'copy' ? pages : 5); stop++) {
        await using subject = subjectPool({ limitBytes, idleBytes: 0 })
        const { pool, provider, backup } = subject
        const buffer = await subject.filled(pages, 1, { caching: 'uncached', deviceMapped: true })
        await buffer.backup()
        expect([provider.pagesOut, provider.mappings.size]).toEqual([0, 0])
        let asked = 0
        if (kind === 'copy') backup.inject({ method: 'copyPages', times: 1, stop, code: 'EIO' })
        if (kind === 'allocation') provider.refuse = () => ++asked > stop
        if (kind === 'conversion') provider.failCaching = stop === 0
        if (kind === 'mapping') provider.mapsUntilFailure = stop
        await buffer.restore().catch(() => {})
        expect(pool.verify(), `${kind} ${stop}`).toEqual([])
        provider.refuse = () => false
        provider.failCaching = false
        provider.mapsUntilFailure = Number.POSITIVE_INFINITY
        expect((await buffer.restore()).error).toBeUndefined()
        using pin = await buffer.pin()
        const addresses = pin.deviceAddresses
        expect(addresses.every((address) => address > 0)).toBe(true)
        expect(new Set(addresses).size).toBe(pin.spans.length)
        expect(provider.mappings.size).toBe(pin.spans.length)
        expect(backup.stats().copiedPages).toBe(pages)
        pin.release()
        await expectFilled(buffer)
        expect(await buffer.backup()).toEqual({ pages })
        await expectFilled(buffer)
      }
    }
  })

  it('T45, B11: a restore that should rather fail says so to the backup and to the provider, for single pages too', async () => {
    for (const retryMayFail of [true, false]) {
      await using subject = subjectPool({ limitBytes, idleBytes: 0 })
      const { provider, backup } = subject
      const buffer = await subject.filled(1)
      await buffer.backup()
      const asked: unknown[] = []
      const { copyPages } = backup
      backup.copyPages = (handles, spans, options) => {
        asked.push(options?.retryMayFail === true)
        return copyPages.call(backup, handles, spans, options)
      }
      provider.requests.length = 0
      expect((await buffer.restore({ retryMayFail })).error).toBeUndefined()
      expect(asked).toEqual([retryMayFail])
      expect(provider.requests.map((request) => request.retryMayFail)).toEqual([retryMayFail])
    }
  })

  it('B10, T22, T23: every order but 0 and the beneficial one is asked for without effort, larger or smaller', async () => {
    for (const beneficialOrder of [0, 1, 3]) {
      const efforts: boolean[] = []
      for (const order of [0, 1, 2, 3]) {
        await using subject = subjectPool({ beneficialOrder })
        await subject.filled(2 ** order)
        expect(subject.provider.requests).toHaveLength(1)
        efforts.push(subject.provider.requests[0]!.retryMayFail)
      }
      expect(efforts).toEqual([0, 1, 2, 3].map((order) => order > 0 && order !== beneficialOrder))
    }
  })

  it('B16, T38: after partial backups, a whole cycle brings the highest orders back, and no slab stays half used', async () => {
    await using subject = subjectPool({ limitBytes, idleBytes: 0 })
    const { provider, backup } = subject
    const buffer = await subject.filled(pages)
    for (const stop of [3, 1, 6]) {
      backup.inject({ method: 'backupPages', times: 1, stop, code: 'EIO' })
      await buffer.backup()
    }
    expect((await buffer.backup()).error).toBeUndefined()
    expect([provider.pagesOut, subject.pool.dump().slabs]).toEqual([0, 0])
    await buffer.restore()
    expect(await ordersOf(buffer)).toEqual([3, 3, 2, 0])
    await expectFilled(buffer)
  })

  it('B17, I9: a limit that is exceeded by one page takes one step to keep, and one that cannot be kept ends with its signal', async () => {
    await using subject = subjectPool({ limitBytes: 32 * page })
    const { pool } = subject
    const buffers = [await subject.filled(8, 1), await subject.filled(8, 2), await subject.filled(16, 3)]
    await pool.setLimit(31 * page)
    expect(pool.stats().residentBytes).toBe(24 * page)
    expect(pool.stats().backedUpPages).toBe(8)
    using pin = await buffers[2]!.pin()
    await expect(pool.setLimit(15 * page, { signal: AbortSignal.timeout(5) })).rejects.toMatchObject({
      code: 'EINTR',
    })
    expect(pin.length).toBe(16 * page)
    expect(pool.limitBytes).toBe(31 * page)
  })

  it('B18: what a quota charges is given back on every path, and a quota that is used up is no endless loop', async () => {
    const seed = 5
    const random = new Random(seed)
    const provider = new FakeProvider()
    await using subject = subjectPool({ limitBytes, idleBytes: 0, provider, whenFull: 'fail' })
    const { pool, backup } = subject
    const quotaPages = 48
    provider.refuse = (order) => provider.pagesOut + 2 ** order > quotaPages
    const buffers = [
      await pool.allocate(30 * page),
      await pool.allocate(pages * page),
      await pool.allocate(5 * page),
    ]
    const written = new Set<unknown>()
    for (let round = 0; round < 150; round++) {
      const buffer = buffers[random.below(buffers.length)]!
      if (random.below(6) === 0) {
        backup.inject({
          method: random.below(2) === 0 ? 'backupPages' : 'copyPages',
          times: 1,
          stop: 1,
          code: 'EIO',
        })
      }
      const operation = random.below(6)
      const bytes = pattern(buffer.sizeBytes, buffers.indexOf(buffer))
      const refused = (failure: unknown) => expect(['ENOMEM', 'EIO']).toContain(code(failure))
      if (operation < 2 || !written.has(buffer)) {
        await buffer.write(0, bytes).then(() => written.add(buffer), refused)
      } else if (operation === 2) await buffer.backup()
      else if (operation === 3) await buffer.restore()
      else if (operation === 4) await pool.shrink(random.below(20) * page)
      else await buffer.purge().then(() => written.delete(buffer))
      expect(provider.pagesOut, `seed ${seed} round ${round}`).toBeLessThanOrEqual(quotaPages)
      expect(pool.verify(), `seed ${seed} round ${round}`).toEqual([])
    }
    backup.heal()
    provider.refuse = () => false
    for (const buffer of buffers) expect((await buffer.backup()).error).toBeUndefined()
    for (const buffer of buffers) {
      if (written.has(buffer)) await expectFilled(buffer, buffers.indexOf(buffer))
      await buffer.free()
    }
    expect(provider.pagesOut).toBe(0)
  })

  it('T16, I6: memory of one buffer reads as zeros in the next, whichever way it came', async () => {
    await using subject = subjectPool({ limitBytes: 32 * page })
    for (const give of ['free', 'purge', 'backup', 'evict'] as const) {
      const before = await subject.filled(pages, 9)
      if (give === 'free') await before.free()
      if (give === 'purge') await before.purge()
      if (give === 'backup') await before.backup()
      const after = await subject.pool.allocate(pages * page)
      using pin = await after.pin()
      for (const span of pin.spans) expect(span.every((byte) => byte === 0)).toBe(true)
      pin.release()
      await expectZeros(after)
      if (!before.freed) await before.free()
      await after.free()
    }
  })
})

describe('buffers at the edge', () => {
  it('T20, B2: a buffer of no bytes takes every call and no memory', async () => {
    await using subject = subjectPool()
    const empty = await subject.pool.allocate(0)
    using pin = await empty.pin({ write: true })
    expect([pin.spans.length, pin.bytes.length]).toEqual([0, 0])
    pin.release()
    await empty.write(0, new Uint8Array(0))
    await empty.read(0, new Uint8Array(0))
    expect([await empty.backup(), await empty.restore(), await empty.purge()]).toEqual([
      { pages: 0 },
      { pages: 0 },
      { pages: 0 },
    ])
    expect(subject.provider.requests).toEqual([])
    await empty.free()
  })

  it('T43: a restore that was interrupted with a signal goes on without one, and the other way round', async () => {
    for (const withSignalFirst of [true, false]) {
      await using subject = subjectPool({ limitBytes })
      const buffer = await subject.filled(pages)
      await buffer.backup()
      const { signal } = new AbortController()
      const failure = withSignalFirst ? 'EINTR' : 'EIO'
      subject.backup.inject({ method: 'copyPages', times: 1, stop: 10, code: failure })
      expect(await buffer.restore(withSignalFirst ? { signal } : {})).toMatchObject({
        pages: 10,
        error: { code: failure },
      })
      expect(await buffer.restore(withSignalFirst ? {} : { signal })).toEqual({ pages: 11 })
      expect(subject.backup.stats().copiedPages).toBe(pages)
      await expectFilled(buffer)
    }
  })
})

describe('memory that a device sees', () => {
  it('T35, T68, I4: a mapping ends before the pages are stored, and memory is given up after', async () => {
    await using subject = subjectPool({ limitBytes, idleBytes: 0 })
    const { provider, backup } = subject
    const events: string[] = []
    const note = (name: string, target: object) => {
      const method = Reflect.get(target, name) as (...values: unknown[]) => unknown
      Reflect.set(target, name, (...values: unknown[]) => {
        events.push(name)
        return method.apply(target, values)
      })
    }
    for (const name of ['map', 'unmap', 'put', 'release']) note(name, provider)
    note('backupPages', backup)
    const buffer = await subject.filled(8, 1, { deviceMapped: true })
    ;(await buffer.pin()).release()
    expect(await buffer.backup()).toEqual({ pages: 8 })
    expect(events).toEqual(['map', 'unmap', 'backupPages', 'put'])
    // A backup that stops before it stored anything: the memory stays, without its mapping, until it is pinned again.
    await buffer.fill(1)
    ;(await buffer.pin()).release()
    backup.inject({ method: 'backupPages', times: 1, code: 'EIO' })
    events.length = 0
    expect((await buffer.backup()).pages).toBe(0)
    expect(events).toEqual(['unmap', 'backupPages'])
    using pin = await buffer.pin()
    expect(pin.deviceAddresses[0]).toBeGreaterThan(0)
    expect(provider.mappings.size).toBe(1)
  })

  it('T65, I4: closing ends every mapping, those of buffers that nobody freed too', async () => {
    const subject = subjectPool()
    await subject.filled(pages, 1, { deviceMapped: true })
    const buffer = await subject.filled(8, 2, { deviceMapped: true, caching: 'uncached' })
    ;(await buffer.pin()).release()
    expect(subject.provider.mappings.size).toBeGreaterThan(0)
    await subject.pool.close()
    expect([subject.provider.mappings.size, subject.provider.pagesOut]).toEqual([0, 0])
  })

  it('I4: mappings balance after any history, and no memory leaves while it is mapped', async () => {
    const seed = 7
    const random = new Random(seed)
    await using subject = subjectPool({ limitBytes: 32 * page, idleBytes: 8 * page, whenFull: 'fail' })
    const { pool, provider, backup } = subject
    const buffers = [
      await subject.filled(pages, 0, { deviceMapped: true }),
      await subject.filled(12, 1, { deviceMapped: true, caching: 'uncached' }),
      await subject.filled(16, 2),
    ]
    for (let round = 0; round < 150; round++) {
      const buffer = buffers[random.below(buffers.length)]!
      if (random.below(5) === 0) provider.mapsUntilFailure = random.below(3)
      if (random.below(5) === 0) {
        backup.inject({ method: 'backupPages', times: 1, stop: random.below(9), code: 'EIO' })
      }
      const offset = random.below(buffer.sizeBytes / page) * page
      const operation = random.below(4)
      if (operation < 2) {
        const pin = await buffer.pin({ offset, write: random.below(2) === 0 }).catch(() => undefined)
        if (pin !== undefined && buffer !== buffers[2]) {
          expect(pin.deviceAddresses).toHaveLength(pin.spans.length)
        }
        pin?.release()
      } else if (operation === 2) await buffer.backup()
      else await pool.shrink(random.below(16) * page)
      provider.mapsUntilFailure = Number.POSITIVE_INFINITY
      expect(pool.verify(), `seed ${seed} round ${round}`).toEqual([])
    }
    backup.heal()
    // Reclaim leaves a backup that failed alone for a while; what is backed up here needs none of it.
    for (const buffer of buffers) expect((await buffer.backup()).error).toBeUndefined()
    for (const [index, buffer] of buffers.entries()) {
      await expectFilled(buffer, index)
      await buffer.free()
    }
    expect(provider.mappings.size).toBe(0)
  })
})
