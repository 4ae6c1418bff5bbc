import { setImmediate as nextTurn } from 'node:timers/promises'
import { faultyBackup, memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { type PagedBuffer, type Pin, Pool } from '../src/index.ts'
import { firstDifference, page, pattern } from './support/bytes.ts'

/**
 * A claim that waits is charged first, and makes its chunks a moment later. If a page beside its range leaves memory between
 * the two, the chunk around both is larger than what was charged.
 *
 *   page   0  1 … 5  [6 7 8 9 10 11  12]  13 … 15
 *          n              the range   m           n leaves between charge and installation: [0…7] would be one chunk now
 */
async function afterANeighbourLeft<Result>(
  call: (buffer: PagedBuffer) => Promise<Result>,
): Promise<{ pool: Pool; buffer: PagedBuffer; result: Result; end: () => Promise<void> }> {
  const pool = new Pool({
    limitBytes: 18 * page,
    maxOrder: 4,
    backup: memoryBackup(),
    provider: 'resizable',
    background: false,
    idleBytes: 0,
  })
  const [buffer, filler, next] = [
    await pool.allocate(16 * page),
    await pool.allocate(16 * page),
    await pool.allocate(16 * page),
  ]
  await buffer.write(0, pattern(16 * page, 1))
  await buffer.backup()
  buffer.advise('random')
  const neighbour = await buffer.pin({ offset: 0, length: page })
  const inside = await buffer.pin({ offset: 12 * page, length: page })
  buffer.advise('normal')
  const full = await filler.pin()
  const calling = call(buffer)
  const waiting = next.pin()
  while (pool.stats().waiters < 2) await nextTurn()
  // The first claim is served at once; the second has the neighbour evicted before the first goes on.
  full.release()
  await null
  neighbour.release()
  const result = await calling
  const end = async () => {
    inside.release()
    const pin = await waiting
    pin.release()
    expect(pool.verify()).toEqual([])
  }
  return { pool, buffer, result, end }
}

async function contentOf(buffer: PagedBuffer): Promise<Uint8Array> {
  const found = new Uint8Array(buffer.sizeBytes)
  await buffer.read(0, found)
  return found
}

const offset = 6 * page
const length = 7 * page

describe('a page beside the range that leaves while a claim is served', () => {
  it('T41, I1: a read gets all of its bytes', async () => {
    const { pool, result, end } = await afterANeighbourLeft(async (buffer) => {
      const found = new Uint8Array(length)
      await buffer.read(offset, found)
      return found
    })
    expect(firstDifference(result, pattern(16 * page, 1).subarray(offset, offset + length))).toBe(-1)
    await end()
    await pool.close()
  })

  it('T41, T86: a pin covers all of its range', async () => {
    const { pool, result, end } = await afterANeighbourLeft((buffer) => buffer.pin({ offset, length }))
    const found = Buffer.concat((result as Pin).spans)
    expect(firstDifference(found, pattern(16 * page, 1).subarray(offset, offset + length))).toBe(-1)
    result.release()
    await end()
    await pool.close()
  })

  it('I1: a write changes its range and nothing else', async () => {
    const bytes = pattern(6 * page + 100, 2)
    const { pool, buffer, end } = await afterANeighbourLeft((target) => target.write(offset + 5, bytes))
    const expected = pattern(16 * page, 1)
    expected.set(bytes, offset + 5)
    await end()
    expect(firstDifference(await contentOf(buffer), expected)).toBe(-1)
    await pool.close()
  })
})

describe('claims beside walks and frees', () => {
  const limitPages = 4096

  /** Memory is full of two buffers without a backup, so of many chunks that only the walk makes evictable. */
  async function full(): Promise<{ pool: Pool; large: PagedBuffer; other: PagedBuffer }> {
    const pool = new Pool({
      limitBytes: limitPages * page,
      maxOrder: 0,
      provider: 'resizable',
      background: false,
      idleBytes: 0,
    })
    const first = await pool.allocate(1500 * page)
    await first.fill(1)
    const large = await pool.allocate(100_000 * page)
    await large.fill(2, { length: (limitPages - 1500) * page })
    return { pool, large, other: await pool.allocate(page) }
  }

  it('T60, I9: a claim waits for what was just advised to be purgeable', async () => {
    const { pool, large, other } = await full()
    large.advise('purgeable')
    await other.write(0, pattern(page, 3))
    expect(await contentOf(other)).toEqual(pattern(page, 3))
    await pool.close()
  })

  it('T49, I9: a claim waits for what is being freed', async () => {
    const { pool, large, other } = await full()
    const freeing = large.free()
    await other.write(0, pattern(page, 3))
    await freeing
    await pool.close()
  })

  it('T49, I9: a buffer is freed although others hold the memory that its pin would wait for', async () => {
    const copying = Promise.withResolvers<void>()
    const backup = faultyBackup(memoryBackup(), {
      faults: [{ method: 'copyPages', times: 1, delayMs: 1 }],
      wait: () => copying.promise,
    })
    const pool = new Pool({
      limitBytes: 128 * page,
      maxOrder: 0,
      backup,
      provider: 'resizable',
      background: false,
      idleBytes: 0,
    })
    const buffer = await pool.allocate(100 * page)
    await buffer.fill(7)
    await buffer.backup()
    const other = await pool.allocate(100 * page)
    const held = await other.pin({ length: 94 * page })
    const pinning = buffer.pin().catch((error: { code: string }) => error.code)
    while (backup.callsOf('copyPages') === 0) await nextTurn()
    const freeing = buffer.free()
    copying.resolve()
    await freeing
    expect(await pinning).toBe('EBADF')
    held.release()
    await pool.close()
  })
})
