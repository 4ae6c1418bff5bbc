import { describe, expect, it } from 'vitest'
import { page, pattern } from '../support/bytes.ts'
import { FakeProvider } from '../support/fake-provider.ts'
import { Random } from '../support/random.ts'
import { returned } from '../support/setup.ts'
import { code, expectFilled, expectZeros, ordersOf, subjectPool } from './support/pools.ts'

/** Under this limit a buffer of 21 pages, in chunks of 8, 8, 4 and 1, is restored in one call to the backup. */
const limitBytes = 128 * page
const pages = 21

describe('memory that is taken', () => {
  it('B2, T40, T42, T43: a restore that fails at any page, allocation, conversion or mapping goes on to the same bytes', async () => {
    for (const kind of ['copy', 'allocation', 'conversion', 'mapping'] as const) {
      for (let stop = 0; stop < (kind === 'copy' ? pages : 5); stop++) {
        await using subject = subjectPool({ limitBytes, idleBytes: 0 })
        const { pool, provider, backup } = subject
        const buffer = await subject.filled(pages, 1, { caching: 'uncached', deviceMapped: true })
        await buffer.backup()
        await returned(pool)
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
      await returned(subject.pool)
      const asked: unknown[] = []
      const { copyPages } = backup
      // Where nothing is to be said there may be a shorter way than this one.
      Object.assign(backup, { startCopy: undefined })
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
    await returned(subject.pool)
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
    await returned(pool)
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
