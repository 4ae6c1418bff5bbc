import { faultyBackup, memoryBackup } from '@spillway/core'
import { expect, it } from 'vitest'
import { type PagedBuffer, Pool } from '../../src/index.ts'
import { code } from '../ledger/support/pools.ts'
import { firstDifference, page, pattern } from '../support/bytes.ts'
import { Random } from '../support/random.ts'

/** The kernel's only case that backs up and restores for real: twice the memory there is, all of it looked at again. */
it('xe_bo_shrink_kunit, T44, I1: twice the limit in buffers, some purgeable, restored through interruptions', async () => {
  const seed = 11
  const random = new Random(seed)
  const limitBytes = 128 * page
  await using backup = faultyBackup(memoryBackup({ capacityBytes: 192 * page }), { seed })
  const pool = new Pool({ limitBytes, maxOrder: 3, provider: 'resizable', backup })
  const buffers: { buffer: PagedBuffer; purgeable: boolean }[] = []
  // The backup alone could not take what does not fit, so that some of it must be purged.
  for (let total = 0; total < 2 * limitBytes + 96 * page; ) {
    const buffer = await pool.allocate((1 + random.below(24)) * page - random.below(page))
    const purgeable = random.below(3) === 0
    if (purgeable) buffer.advise('purgeable')
    await buffer.write(0, pattern(buffer.sizeBytes, buffers.length))
    buffers.push({ buffer, purgeable })
    total += buffer.sizeBytes
    expect(pool.stats().residentBytes).toBeLessThanOrEqual(limitBytes)
  }
  expect(pool.stats().purgedPages).toBeGreaterThan(0)
  expect(pool.stats().backedUpPages).toBeGreaterThan(0)

  let interrupted = 0
  let restored = 0
  for (const [index, { buffer, purgeable }] of buffers.entries()) {
    if (!purgeable) {
      const { signal } = new AbortController()
      backup.inject({ method: 'copyPages', times: 1, stop: 'half', code: 'EINTR' })
      for (let rounds = 0; ; rounds++) {
        const { error } = await buffer.restore({ signal })
        if (error === undefined) break
        expect(code(error), `seed ${seed}`).toBe('EINTR')
        expect(rounds).toBeLessThan(10)
        interrupted++
      }
      backup.heal()
      restored++
      const found = new Uint8Array(buffer.sizeBytes)
      await buffer.read(0, found)
      expect(firstDifference(found, pattern(buffer.sizeBytes, index)), `seed ${seed}`).toBe(-1)
    }
    await buffer.free()
  }
  expect(interrupted).toBeGreaterThan(0)
  expect(restored).toBeGreaterThan(5)
  expect(pool.verify()).toEqual([])
  await pool.close()
  expect(backup.stats().livePages).toBe(0)
})
