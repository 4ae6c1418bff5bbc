import { type FaultyBackup, faultyBackup, memoryBackup, nowMs, type SpillwayError } from '@spillway/core'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type PagedBuffer, Pool, type PoolOptions } from '../src/index.ts'
import { VirtualTime } from './model/virtual-time.ts'
import { firstDifference, page, pattern } from './support/bytes.ts'

const time = new VirtualTime()
const warnings = process.listeners('warning')
beforeEach(() => {
  time.install()
  // That a backup fails is told as a warning.
  process.removeAllListeners('warning')
})
afterEach(() => {
  time.uninstall()
  for (const listener of warnings) process.on('warning', listener)
})

const turns = async (count: number) => {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve))
}

interface Subject {
  readonly pool: Pool
  readonly backup: FaultyBackup
  /** Full of dirty pages: whoever wants memory needs the backup. */
  readonly full: PagedBuffer
  readonly other: PagedBuffer
  /** Attempts to store something so far. */
  attempts(): number
}

/** A pool whose backup has failed just now, so that reclaim leaves it alone. */
async function inBackoff(options: Partial<PoolOptions> = {}, maxOrder = 2): Promise<Subject> {
  const backup = failing()
  const pool = new Pool({
    limitBytes: 16 * page,
    maxOrder: 2,
    provider: 'resizable',
    backup,
    background: false,
    ...options,
  })
  const full = await pool.allocate(16 * page, { label: 'full', maxOrder })
  await full.write(0, pattern(16 * page, 1))
  const other = await pool.allocate(8 * page, { label: 'other' })
  backup.inject({ method: 'backupPages', code: 'EIO' })
  await expect(other.write(0, pattern(4 * page))).rejects.toMatchObject({
    code: 'ENOMEM',
    cause: { code: 'EIO' },
  })
  return { pool, backup, full, other, attempts: () => backup.callsOf('backupPages') }
}

function failing(name?: string): FaultyBackup {
  return faultyBackup(memoryBackup(name === undefined ? {} : { name }))
}

async function expectContent(buffer: PagedBuffer, seed: number): Promise<void> {
  const found = new Uint8Array(buffer.sizeBytes)
  await buffer.read(0, found)
  expect(firstDifference(found, pattern(buffer.sizeBytes, seed))).toBe(-1)
}

describe('claims that come while reclaim leaves a backup alone', () => {
  it('T57, B12: with "wait" one that comes after the backup is well again is served', async () => {
    const { pool, backup, full, other, attempts } = await inBackoff()
    backup.heal()
    const before = attempts()
    await other.write(0, pattern(8 * page, 2).subarray(0, 4 * page))
    expect(attempts()).toBe(before + 1)
    await other.write(0, pattern(8 * page, 2))
    await expectContent(other, 2)
    await expectContent(full, 1)
    expect(pool.stats()).toMatchObject({ refusals: 1, waiters: 0 })
    expect(pool.verify()).toEqual([])
    await pool.close()
  })

  it('T57, B12, I9: one attempt answers all that wait for it, and its failure is the cause', async () => {
    const { pool, backup, other, attempts } = await inBackoff()
    backup.heal()
    backup.inject({ method: 'backupPages', code: 'EACCES' })
    const before = attempts()
    const claims = [0, 1, 2].map((index) =>
      other.write(index * page, pattern(page)).catch((error: unknown) => error),
    )
    for (const error of await Promise.all(claims)) {
      expect(error).toMatchObject({ code: 'ENOMEM', retryable: true, cause: { code: 'EACCES' } })
    }
    expect(attempts()).toBe(before + 1)
    expect(pool.verify()).toEqual([])
    backup.heal()
    await pool.close()
  })

  it('B12, I9: claims one after the other have one attempt each, and longer and longer to wait for it', async () => {
    const { pool, backup, other, attempts } = await inBackoff()
    const before = attempts()
    const start = nowMs()
    for (let claim = 1; claim <= 12; claim++) {
      await expect(other.write(0, pattern(page))).rejects.toMatchObject({ code: 'ENOMEM' })
      expect(attempts()).toBe(before + claim)
    }
    // 10 + 20 + … + 640, then a second each.
    expect(nowMs() - start).toBeGreaterThan(1200 + 5 * 1000)
    backup.heal()
    await pool.close()
  })

  it('T6: the wait can be aborted, and then no attempt is made for it', async () => {
    const { pool, backup, other, attempts } = await inBackoff()
    const before = attempts()
    const controller = new AbortController()
    const writing = other.write(0, pattern(page), { signal: controller.signal })
    writing.catch(() => {})
    await undefined
    controller.abort(new Error('tired'))
    await expect(writing).rejects.toMatchObject({ code: 'EINTR', cause: new Error('tired') })
    await turns(3)
    expect(attempts()).toBe(before)
    backup.heal()
    await pool.close()
  })

  it('T22, T45: with "fail", or with retryMayFail, it is refused at once and nothing is attempted', async () => {
    for (const [options, access] of [
      [{ whenFull: 'fail' }, {}],
      [{}, { retryMayFail: true }],
    ] as const) {
      const { pool, backup, other, attempts } = await inBackoff(options)
      backup.heal()
      const before = attempts()
      await expect(other.write(0, pattern(page), access)).rejects.toMatchObject({
        code: 'ENOMEM',
        cause: { code: 'EIO' },
      })
      expect(attempts()).toBe(before)
      time.pass(1000)
      await other.write(0, pattern(page), access)
      await pool.close()
    }
  })

  it('T57: with two backups that fail it is refused only when both were tried for it', async () => {
    const second = failing('second')
    const { pool, backup, full, other } = await inBackoff()
    backup.heal()
    await full.purge({ offset: 8 * page })
    const more = await pool.allocate(8 * page, { backup: second })
    await more.write(0, pattern(8 * page, 3))
    await full.write(0, pattern(8 * page, 1))
    backup.inject({ method: 'backupPages', code: 'EIO' })
    second.inject({ method: 'backupPages', code: 'EIO' })
    const calls = () => [backup.callsOf('backupPages'), second.callsOf('backupPages')]
    for (let claim = 0; claim < 3; claim++) {
      const before = calls()
      await expect(other.write(0, pattern(page))).rejects.toMatchObject({ code: 'ENOMEM' })
      const after = calls()
      expect([after[0]! > before[0]!, after[1]! > before[1]!]).toEqual([true, true])
    }
    // One that is well is enough.
    second.heal()
    await other.write(0, pattern(page))
    await expectContent(more, 3)
    backup.heal()
    await pool.close()
    await second.close()
  })

  it('T60: a call of the application that stores something ends the back-off, and claims that wait go on', async () => {
    const { pool, backup, full, other, attempts } = await inBackoff()
    const small = await pool.allocate(page, { label: 'small' })
    backup.heal()
    const before = attempts()
    // What the application stores is no attempt of reclaim.
    await full.backup()
    expect(attempts()).toBe(before + 1)
    expect(pool.dump().backups[0]).toMatchObject({ backoffMs: 0, failure: undefined })
    await small.write(0, pattern(page))
    await other.write(0, pattern(8 * page, 2))
    await full.write(0, pattern(16 * page, 1))
    await expectContent(other, 2)
    await pool.close()
  })
})

describe('a lower limit while reclaim leaves a backup alone', () => {
  it('T28, T57: is set when the next attempt goes well, and refused with the failure when it does not', async () => {
    const { pool, backup, full } = await inBackoff()
    await expect(pool.setLimit(8 * page)).rejects.toMatchObject({ code: 'ENOMEM', cause: { code: 'EIO' } })
    expect(pool.limitBytes).toBe(16 * page)
    backup.heal()
    await pool.setLimit(8 * page)
    expect(pool.limitBytes).toBe(8 * page)
    await expectContent(full, 1)
    expect(pool.verify()).toEqual([])
    await pool.close()
  })

  it('T28: waits for that attempt also where idle memory keeps whole slabs resident, with its signal', async () => {
    for (const ending of ['well', 'failed', 'aborted'] as const) {
      // Two chunks lie in one slab; what is given up of it stays resident as long as the other is there.
      const { pool, backup, full } = await inBackoff({}, 1)
      for (let slab = 0; slab < 4; slab++) await full.purge({ offset: slab * 4 * page, length: 2 * page })
      expect(pool.stats()).toMatchObject({ inUseBytes: 8 * page, strandedBytes: 8 * page })
      const controller = new AbortController()
      const sinking = pool.setLimit(8 * page, { signal: controller.signal })
      sinking.catch(() => {})
      if (ending === 'well') backup.heal()
      if (ending === 'aborted') {
        await turns(1)
        controller.abort(new Error('tired'))
      }
      const failure = await sinking.catch((error: unknown) => error)
      expect((failure as SpillwayError | undefined)?.code, ending).toBe(
        { well: undefined, failed: 'ENOMEM', aborted: 'EINTR' }[ending],
      )
      expect(pool.limitBytes).toBe((ending === 'well' ? 8 : 16) * page)
      expect(pool.verify()).toEqual([])
      backup.heal()
      await pool.close()
    }
  })
})
