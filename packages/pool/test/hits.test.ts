import { memoryBackup } from '@spillway/core'
import { describe, expect, it } from 'vitest'
import { MemoryBudget, Pool } from '../src/index.ts'
import { mebibyte } from './support/bytes.ts'

describe('what a pool tells of itself', () => {
  it('counts the chunks that accesses used, and those of them that a backup had', async () => {
    await using backup = memoryBackup()
    await using pool = new Pool({ limitBytes: 4 * mebibyte, backup, background: false })
    const buffer = await pool.allocate(8 * mebibyte, { maxOrder: 0 })
    const other = await pool.allocate(8 * mebibyte, { maxOrder: 0 })
    const bytes = new Uint8Array(10).fill(7)
    await buffer.write(0, bytes)
    expect(pool.stats()).toMatchObject({ usedChunks: 1, missedChunks: 0 })
    await buffer.read(4, bytes)
    expect(pool.stats()).toMatchObject({ usedChunks: 1, missedChunks: 0 })
    await other.write(0, bytes)
    await buffer.read(0, bytes)
    expect(pool.stats()).toMatchObject({ usedChunks: 3, missedChunks: 0 })
    await buffer.backup()
    await buffer.read(0, bytes)
    expect(pool.stats()).toMatchObject({ usedChunks: 4, missedChunks: 1 })
  })

  it('names its budget, and each of its backups once', async () => {
    const budget = new MemoryBudget({ limitBytes: 8 * mebibyte })
    await using own = memoryBackup()
    await using other = memoryBackup()
    await using pool = new Pool({ budget, backup: own })
    await using alone = new Pool({ limitBytes: 4 * mebibyte })
    const buffers = await Promise.all([
      pool.allocate(1),
      pool.allocate(1, { backup: other }),
      pool.allocate(1, { backup: other }),
    ])
    expect(pool.backups).toEqual([own, other])
    expect(pool.budget).toBe(budget)
    expect(alone.budget).toBeUndefined()
    expect(alone.backups).toEqual([])
    for (const buffer of buffers) await buffer.free()
    expect(pool.backups).toEqual([own])
  })
})
