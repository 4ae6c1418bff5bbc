import { faultyBackup, memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { machineOf } from '../src/api/pool.ts'
import { Pool } from '../src/index.ts'
import { page } from './support/bytes.ts'

/** What a claim costs does not depend on how many chunks and claims there are: counted, since time depends on the machine. */
describe('a thousand claims at once', () => {
  it('do not each go through all dirty chunks while the backup has all the calls that it takes', async () => {
    const limitPages = 2048
    const backup = faultyBackup(memoryBackup(), { seed: 1 })
    backup.inject({ method: 'backupPages', delayMs: 1, times: 1000 })
    const pool = new Pool({ limitBytes: limitPages * page, maxOrder: 0, backup, provider: 'resizable' })
    const buffer = await pool.allocate(2 * limitPages * page)
    await buffer.fill(1, { offset: 0, length: limitPages * page })
    const { residents } = machineOf(pool)
    let looks = 0
    const bufferOf = residents.bufferOf.bind(residents)
    residents.bufferOf = (chunk) => {
      looks++
      return bufferOf(chunk)
    }
    const claims = 1000
    const bytes = new Uint8Array(page).fill(2)
    await Promise.all(
      Array.from({ length: claims }, (_, index) => buffer.write((limitPages + index) * page, bytes)),
    )
    // Each walk through all of them would be two thousand looks a claim.
    expect(looks / claims).toBeLessThan(60)
    expect(pool.verify()).toEqual([])
    await pool.close()
  })

  it('leave the queue in one step each when they are aborted', async () => {
    const pool = new Pool({
      limitBytes: 16 * page,
      maxOrder: 0,
      backup: memoryBackup(),
      provider: 'resizable',
    })
    const buffer = await pool.allocate(16 * page)
    const pin = await buffer.pin({ write: true })
    const other = await pool.allocate(2000 * page)
    const controllers = Array.from({ length: 2000 }, () => new AbortController())
    const writes = controllers.map(({ signal }, index) =>
      other.write(index * page, new Uint8Array(page), { signal }).catch((failure) => failure.code),
    )
    await new Promise((resolve) => setImmediate(resolve))
    // From the last to the first: a list that is searched from its head would look two million times.
    for (const controller of controllers.reverse()) controller.abort()
    expect(new Set(await Promise.all(writes))).toEqual(new Set(['EINTR']))
    expect(pool.stats().waiters).toBe(0)
    pin.release()
    await pool.close()
  })
})
