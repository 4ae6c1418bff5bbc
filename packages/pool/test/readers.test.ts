import { memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { Pool } from '../src/index.ts'
import { mebibyte, page, pattern } from './support/bytes.ts'

/** Pages restored for each page of data, when `readers` read a buffer each from front to back, in turn. */
async function restoredPerPage(readers: number, stepBytes: number): Promise<number> {
  await using backup = memoryBackup()
  await using pool = new Pool({ limitBytes: 8 * mebibyte, maxOrder: 7, provider: 'resizable', backup })
  const sizeBytes = (32 * mebibyte) / readers
  const buffers = []
  for (let reader = 0; reader < readers; reader++) {
    const buffer = await pool.allocate(sizeBytes)
    for (let at = 0; at < sizeBytes; at += mebibyte)
      await buffer.write(at, new Uint8Array(mebibyte).fill(reader + 1))
    await buffer.backup()
    buffers.push(buffer)
  }
  const before = pool.stats().restoredPages
  const into = new Uint8Array(stepBytes)
  for (let at = 0; at < sizeBytes; at += stepBytes) {
    for (let reader = 0; reader < readers; reader++) {
      await buffers[reader]!.read(at, into)
      expect(into[stepBytes - 1]).toBe(reader + 1)
    }
  }
  await pool.settled()
  expect(pool.verify()).toEqual([])
  return ((pool.stats().restoredPages - before) * pool.pageSizeBytes) / (32 * mebibyte)
}

/** A pool of 16 chunks of 8 pages, and a stored buffer of twice as many. */
async function twoTimes() {
  const backup = memoryBackup()
  const pool = new Pool({ limitBytes: 128 * page, maxOrder: 3, provider: 'resizable', backup })
  const buffer = await pool.allocate(256 * page, { label: 'long' })
  await buffer.write(0, pattern(256 * page))
  await buffer.backup()
  return { backup, pool, buffer }
}

describe('a sequential reader', () => {
  it('leaves its pages to be the next to go, before older ones that others may use again', async () => {
    const { backup, pool, buffer } = await twoTimes()
    const older = await pool.allocate(64 * page)
    await older.write(0, pattern(64 * page, 2))
    await older.backup()
    await older.restore()
    const into = new Uint8Array(4 * page)
    for (let at = 0; at < 256; at += 4) await buffer.read(at * page, into)
    await pool.settled()
    expect(older.residentBytes).toBeGreaterThanOrEqual(32 * page)
    await pool.close()
    await backup.close()
  })

  it('does not push out pages that were read before and are read again', async () => {
    const { backup, pool, buffer } = await twoTimes()
    const again = await pool.allocate(32 * page)
    await again.write(0, pattern(32 * page, 2))
    await again.backup()
    const into = new Uint8Array(4 * page)
    const readAgain = async () => {
      for (let at = 0; at < 32; at += 4) await again.read(at * page, into)
    }
    await readAgain()
    await readAgain()
    const before = pool.stats().restoredPages
    for (let at = 0; at < 256; at += 4) {
      await buffer.read(at * page, into)
      if (at % 32 === 0) await readAgain()
    }
    await pool.settled()
    expect(pool.stats().restoredPages - before).toBeLessThanOrEqual(256 + 16)
    expect(pool.verify()).toEqual([])
    await pool.close()
    await backup.close()
  })

  it('that never comes back for what was read ahead takes no room from others for good', async () => {
    const { backup, pool, buffer } = await twoTimes()
    const into = new Uint8Array(4 * page)
    for (let at = 0; at < 8; at += 4) await buffer.read(at * page, into)
    await buffer.free()
    const other = await pool.allocate(64 * page)
    await other.write(0, pattern(64 * page, 3))
    await other.backup()
    const before = pool.stats().readaheads
    for (let at = 0; at < 32; at += 4) await other.read(at * page, into)
    expect(pool.stats().readaheads).toBeGreaterThan(before)
    expect(pool.verify()).toEqual([])
    await pool.close()
    await backup.close()
  })
})

describe('several sequential readers', () => {
  for (const readers of [1, 2, 4, 8, 16]) {
    it(`do not evict each other's pages: ${readers} of them under a limit of 16 chunks`, async () => {
      for (const stepBytes of [mebibyte / 4, mebibyte / 16]) {
        expect(await restoredPerPage(readers, stepBytes)).toBeLessThanOrEqual(1.1)
      }
    })
  }
})
