import { memoryBackup } from '@spillway/core'
import { afterEach, describe, expect, it } from 'vitest'
import { Pool } from '../src/index.ts'

const pageBytes = 4096

const opened: Pool[] = []
afterEach(async () => {
  for (const pool of opened.splice(0)) await pool.close()
})

function open(limitPages: number, maxOrder: number) {
  const backup = memoryBackup({ capacityBytes: 2 ** 24 })
  const pool = new Pool({ limitBytes: limitPages * pageBytes, maxOrder, backup, background: false })
  opened.push(pool)
  return { pool, backup }
}

describe('chunks of zeros', () => {
  it('are backed up without any I/O, and read as zeros', async () => {
    const { pool, backup } = open(64, 4)
    const buffer = await pool.allocate(64 * pageBytes)
    await buffer.write(0, new Uint8Array(64 * pageBytes))
    expect(await buffer.backup()).toEqual({ pages: 64 })
    expect(backup.stats()).toMatchObject({ backedUpPages: 0, livePages: 0 })
    expect(buffer.residentBytes).toBe(0)
    const bytes = new Uint8Array(64 * pageBytes).fill(1)
    await buffer.read(0, bytes)
    expect(bytes.every((byte) => byte === 0)).toBe(true)
    expect(backup.stats().copiedPages).toBe(0)
    expect(pool.verify()).toEqual([])
  })

  it('become empty where they lie between others, which are stored', async () => {
    const { pool, backup } = open(64, 4)
    const buffer = await pool.allocate(64 * pageBytes)
    const content = new Uint8Array(64 * pageBytes)
    content.fill(7, 0, 16 * pageBytes)
    // The last byte of a chunk is all that is not zero.
    content[48 * pageBytes - 1] = 1
    await buffer.write(0, content)
    expect(await buffer.backup()).toEqual({ pages: 64 })
    expect(backup.stats().backedUpPages).toBe(32)
    const bytes = new Uint8Array(content.byteLength)
    await buffer.read(0, bytes)
    expect(Buffer.compare(bytes, content)).toBe(0)
    expect(pool.verify()).toEqual([])
  })

  it('are evicted without any I/O when others need the memory', async () => {
    const { pool, backup } = open(32, 2)
    const buffer = await pool.allocate(32 * pageBytes)
    await buffer.write(0, new Uint8Array(32 * pageBytes))
    const other = await pool.allocate(16 * pageBytes)
    await other.write(0, new Uint8Array(16 * pageBytes).fill(1))
    expect(backup.stats().backedUpPages).toBe(0)
    await buffer.write(0, Uint8Array.of(5))
    const first = new Uint8Array(2)
    await buffer.read(0, first)
    expect([...first]).toEqual([5, 0])
    expect(pool.verify()).toEqual([])
  })

  it('take no room: a backup that is full has enough', async () => {
    const backup = memoryBackup({ capacityBytes: pageBytes })
    const pool = new Pool({ limitBytes: 16 * pageBytes, maxOrder: 2, backup, background: false })
    opened.push(pool)
    const buffer = await pool.allocate(256 * pageBytes)
    await buffer.write(0, new Uint8Array(256 * pageBytes))
    expect((await buffer.backup()).error).toBeUndefined()
    expect(pool.verify()).toEqual([])
  })

  it('become empty as pieces of a chunk that was split, and only the others are stored', async () => {
    const backup = memoryBackup({ capacityBytes: 48 * pageBytes })
    const { handles } = await backup.backupPages([new Uint8Array(40 * pageBytes)])
    const pool = new Pool({ limitBytes: 64 * pageBytes, maxOrder: 6, backup, background: false })
    opened.push(pool)
    const buffer = await pool.allocate(64 * pageBytes)
    const content = new Uint8Array(64 * pageBytes)
    content.fill(7, 0, 8 * pageBytes).fill(9, 48 * pageBytes, 49 * pageBytes)
    await buffer.write(0, content)
    // The backup is full behind the first eight pages: the chunk is split there, into pieces of 8, 16 and 32 pages.
    expect(await buffer.backup()).toMatchObject({ pages: 8, error: { code: 'ENOSPC' } })
    await backup.drop(handles)
    expect(await buffer.backup()).toEqual({ pages: 56 })
    expect(backup.stats()).toMatchObject({ livePages: 8 + 32, backedUpPages: 40 + 8 + 32 })
    const bytes = new Uint8Array(content.byteLength)
    await buffer.read(0, bytes)
    expect(Buffer.compare(bytes, content)).toBe(0)
    expect(pool.verify()).toEqual([])
  })

  it('leave all together or not at all in an atomic backup', async () => {
    const { pool, backup } = open(64, 4)
    const buffer = await pool.allocate(64 * pageBytes)
    const content = new Uint8Array(64 * pageBytes).fill(3, 32 * pageBytes)
    await buffer.write(0, content)
    const controller = new AbortController()
    const backingUp = buffer.backup({ atomic: true, signal: controller.signal })
    controller.abort()
    expect(await backingUp).toMatchObject({ pages: 0, error: { code: 'EINTR' } })
    expect(buffer.residentBytes).toBe(64 * pageBytes)
    expect(await buffer.backup({ atomic: true })).toEqual({ pages: 64 })
    expect(backup.stats().livePages).toBe(32)
    const bytes = new Uint8Array(content.byteLength)
    await buffer.read(0, bytes)
    expect(Buffer.compare(bytes, content)).toBe(0)
  })
})
