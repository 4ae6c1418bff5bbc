import { describe, expect, it } from 'vitest'
import { page } from '../support/bytes.ts'
import { Random } from '../support/random.ts'
import { returned } from '../support/setup.ts'
import { expectFilled, subjectPool } from './support/pools.ts'

/** Under this limit a buffer of 21 pages, in chunks of 8, 8, 4 and 1, is restored in one call to the backup. */
const limitBytes = 128 * page
const pages = 21

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
    await returned(subject.pool)
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

  it('T26, T35, I4: a chunk that was pinned while it was stored loses its mapping when it is split', async () => {
    await using subject = subjectPool({ limitBytes, idleBytes: 0 })
    const { provider, backup, pool } = subject
    const buffer = await subject.filled(8, 1, { deviceMapped: true })
    backup.inject({ method: 'backupPages', times: 1, delayMs: 5, stop: 3, code: 'EIO' })
    const storing = buffer.backup()
    await new Promise((resolve) => setTimeout(resolve, 1))
    const pin = await buffer.pin()
    expect(provider.mappings.size).toBe(1)
    pin.release()
    expect((await storing).pages).toBe(3)
    expect(provider.mappings.size).toBe(0)
    using again = await buffer.pin()
    expect(again.deviceAddresses).toHaveLength(provider.mappings.size)
    expect(pool.verify()).toEqual([])
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
