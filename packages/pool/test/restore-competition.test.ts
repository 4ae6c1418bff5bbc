import { faultyBackup, memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { type PagedBuffer, Pool, type PoolOptions } from '../src/index.ts'
import { firstDifference, page, pattern } from './support/bytes.ts'

const limitPages = 32

function make(options: Partial<PoolOptions> = {}) {
  const backup = faultyBackup(memoryBackup())
  const pool = new Pool({
    limitBytes: limitPages * page,
    maxOrder: 2,
    provider: 'resizable',
    backup,
    background: false,
    ...options,
  })
  return { pool, backup }
}

async function stored(pool: Pool, pages: number, seed: number): Promise<PagedBuffer> {
  const buffer = await pool.allocate(pages * page, { label: `b${seed}` })
  await buffer.write(0, pattern(pages * page, seed))
  await buffer.backup()
  return buffer
}

async function expectContent(buffer: PagedBuffer, seed: number): Promise<void> {
  const found = new Uint8Array(buffer.sizeBytes)
  await buffer.read(0, found)
  expect(firstDifference(found, pattern(buffer.sizeBytes, seed))).toBe(-1)
}

/** Both halves at once: a write of more than a window lets others run between its windows. */
async function writeBoth(buffer: PagedBuffer, bytes: Uint8Array): Promise<void> {
  const half = bytes.byteLength / 2
  await Promise.all([buffer.write(0, bytes.subarray(0, half)), buffer.write(half, bytes.subarray(half))])
}

describe('a restore whose pages are evicted again before it ends', () => {
  it('T41, T57: is done only when all of the buffer was in memory at one moment', async () => {
    const { pool, backup } = make()
    const buffer = await stored(pool, 24, 1)
    const other = await pool.allocate(16 * page)
    const seen: number[] = []
    let writing: Promise<void> | undefined
    const { error, pages } = await buffer.restore({
      onProgress: () => {
        seen.push(buffer.residentBytes / page)
        // Takes what was restored first: it is clean and cold.
        if (seen.length === 2) writing = writeBoth(other, pattern(16 * page, 2))
      },
    })
    expect(error).toBeUndefined()
    expect(backup.stats().copiedPages).toBeGreaterThan(24)
    expect(seen.at(-1)).toBe(24)
    expect(pages).toBe(24)
    await writing
    await expectContent(other, 2)
    await expectContent(buffer, 1)
    expect(pool.verify()).toEqual([])
    await pool.close()
  })

  it('T41, I9: two buffers that do not fit together are both restored, one after the other', async () => {
    const { pool } = make()
    const buffers = [await stored(pool, 20, 1), await stored(pool, 20, 2), await stored(pool, 20, 3)]
    const most = buffers.map(() => 0)
    const results = await Promise.all(
      buffers.map((buffer, index) =>
        buffer.restore({ onProgress: () => (most[index] = buffer.residentBytes / page) }),
      ),
    )
    expect(results.map(({ error }) => error)).toEqual([undefined, undefined, undefined])
    expect(most).toEqual([20, 20, 20])
    expect(pool.verify()).toEqual([])
    expect(pool.stats().waiters).toBe(0)
    for (const [index, buffer] of buffers.entries()) await expectContent(buffer, index + 1)
    await pool.close()
  })

  it('T45, T61: what does not fit beside the pins of others is ENOMEM that names them, and not a success', async () => {
    const { pool } = make({ whenFull: 'fail' })
    const buffer = await stored(pool, 24, 1)
    const other = await pool.allocate(16 * page, { label: 'other' })
    const pin = await other.pin({ write: true })
    const { error } = await buffer.restore()
    expect(error).toMatchObject({ code: 'ENOMEM', buffer: 'b1', message: expect.stringMatching(/other/) })
    expect(pool.verify()).toEqual([])
    pin.release()
    expect((await buffer.restore()).error).toBeUndefined()
    expect(buffer.residentBytes).toBe(24 * page)
    await pool.close()
  })

  it('T6, T57: with "wait" it waits for those pins, and can be aborted meanwhile', async () => {
    const { pool } = make()
    const buffer = await stored(pool, 24, 1)
    const other = await pool.allocate(16 * page)
    const pin = await other.pin({ write: true })
    const controller = new AbortController()
    const waits = async () => {
      while (pool.stats().waiters === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    const given = buffer.restore({ signal: controller.signal })
    await waits()
    controller.abort()
    expect((await given).error).toMatchObject({ code: 'EINTR' })
    const patient = buffer.restore()
    await waits()
    expect(pool.stats().waiters).toBe(1)
    pin.release()
    expect((await patient).error).toBeUndefined()
    expect(buffer.residentBytes).toBe(24 * page)
    await pool.close()
  })

  it('T46: pages that were never written take no memory for it', async () => {
    const { pool } = make({ maxOrder: 0 })
    const sparse = await pool.allocate(200 * page)
    sparse.advise('random')
    for (let index = 0; index < 20; index++) await sparse.write(index * 10 * page, pattern(page, index + 1))
    await sparse.backup()
    const other = await pool.allocate(16 * page)
    let writing: Promise<void> | undefined
    const { error } = await sparse.restore({
      onProgress: ({ pages }) => {
        if (pages === 15) writing = other.write(0, pattern(16 * page, 2))
      },
    })
    expect(error).toBeUndefined()
    await writing
    await sparse.restore()
    expect(sparse.residentBytes).toBe(20 * page)
    const found = new Uint8Array(page)
    await sparse.read(190 * page, found)
    expect(firstDifference(found, pattern(page, 20))).toBe(-1)
    expect(pool.verify()).toEqual([])
    await pool.close()
  })

  it('T40: fits when what is stored fits, though whole chunks around it would not', async () => {
    const { pool, backup } = make()
    const buffer = await pool.allocate(4 * limitPages * page)
    const lonely = Array.from({ length: limitPages - 2 }, (_, index) => index * 4 + (index % 4))
    buffer.advise('random')
    for (const index of lonely) await buffer.write(index * page, pattern(page, index))
    await buffer.backup()
    buffer.advise('normal')
    expect(await buffer.restore()).toEqual({ pages: lonely.length })
    expect([buffer.residentBytes, buffer.backedUpBytes]).toEqual([lonely.length * page, 0])
    await buffer.backup()
    // Half of it is taken by another before the end: all of it is held at one moment then.
    const other = await pool.allocate((limitPages / 2) * page)
    let writing: Promise<void> | undefined
    const { error } = await buffer.restore({
      onProgress: ({ pages }) => {
        if (pages > limitPages / 2) writing ??= other.write(0, pattern((limitPages / 2) * page, 3))
      },
    })
    await writing
    expect(error).toBe(undefined)
    const found = new Uint8Array(page)
    for (const index of lonely) {
      await buffer.read(index * page, found)
      expect(firstDifference(found, pattern(page, index))).toBe(-1)
    }
    expect(pool.verify()).toEqual([])
    await pool.close()
    await backup.close()
  })
})
