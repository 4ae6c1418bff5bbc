import { type Fault, type FaultyBackup, faultyBackup, MemoryMedium, memoryBackup } from '@spillway/core'
import { expect } from 'vitest'
import { type PagedBuffer, Pool, type PoolOptions } from '../../src/index.ts'
import { firstDifference, page, pattern } from './bytes.ts'

/** A pool over a backup that holds images, whose calls take a turn or more, and a buffer with pages in every state. */
export interface SavedSetup extends AsyncDisposable {
  readonly pool: Pool
  readonly backup: FaultyBackup
  readonly medium: MemoryMedium
  readonly buffer: PagedBuffer
  /** What the buffer holds; whoever writes to it writes here too. */
  readonly bytes: Uint8Array
  write(offsetBytes: number, bytes: Uint8Array): Promise<void>
  /** Loads an image, in another buffer, and compares. */
  expectImage(name: string, expected: Uint8Array): Promise<void>
  /** Closes all, opens what is left, and compares; nothing but the images is left. */
  expectAfterRestart(images: Record<string, Uint8Array>): Promise<void>
}

export interface SavedOptions extends Partial<PoolOptions> {
  readonly faults?: readonly Fault[]
  readonly delayMs?: number
  readonly capacityPages?: number
}

const bufferPages = 45

export async function savedSetup(options: SavedOptions = {}): Promise<SavedSetup> {
  const { faults = [], delayMs = 1, capacityPages = 2000, ...poolOptions } = options
  const medium = new MemoryMedium()
  const capacityBytes = capacityPages * page
  const backup = faultyBackup(memoryBackup({ medium, capacityBytes }), {
    faults: [...faults, { method: 'backupPages', delayMs }, { method: 'save', delayMs }],
  })
  const pool = new Pool({
    limitBytes: 64 * page,
    maxOrder: 3,
    provider: 'resizable',
    backup,
    debug: true,
    background: false,
    ...poolOptions,
  })
  const buffer = await pool.allocate(bufferPages * page - 100, { label: 'subject' })
  const bytes = new Uint8Array(buffer.sizeBytes)
  const write = async (offsetBytes: number, written: Uint8Array): Promise<void> => {
    bytes.set(written, offsetBytes)
    await buffer.write(offsetBytes, written)
  }
  // Blocks of eight pages: dirty; clean; stored; empty; clean in part, and dirty; the end, dirty.
  await write(8 * page, pattern(16 * page, 2))
  await write(32 * page, pattern(5 * page, 3))
  await buffer.backup()
  await buffer.read(8 * page, new Uint8Array(8 * page))
  await buffer.read(33 * page, new Uint8Array(page))
  await write(0, pattern(8 * page, 4))
  await write(35 * page, pattern(page, 5))
  await write(40 * page + 10, pattern(4 * page, 6))
  let isClosed = false
  return {
    pool,
    backup,
    medium,
    buffer,
    bytes,
    write,
    async expectImage(name, expected) {
      const loaded = await pool.load(name, { label: `copy of ${name}` })
      await expectContent(loaded, expected)
      await loaded.free()
      expect(pool.verify()).toEqual([])
    },
    async expectAfterRestart(images) {
      isClosed = true
      await pool.close()
      await backup.close()
      await using again = memoryBackup({ medium, capacityBytes })
      await using next = new Pool({
        limitBytes: 64 * page,
        maxOrder: 2,
        provider: 'resizable',
        backup: again,
      })
      expect(await again.images!.names()).toEqual(Object.keys(images).sort())
      let pages = 0
      for (const [name, expected] of Object.entries(images)) {
        const loaded = await next.load(name)
        expect(again.stats().copiedPages).toBe(pages)
        await expectContent(loaded, expected)
        pages = again.stats().copiedPages
        await loaded.free()
        await again.images!.remove(name)
      }
      expect(again.stats().livePages).toBe(0)
    },
    async [Symbol.asyncDispose]() {
      if (isClosed) return
      backup.heal()
      if (!buffer.freed) await buffer.free()
      expect(pool.verify()).toEqual([])
      await pool.close()
      const { livePages, images } = backup.stats()
      expect(livePages).toBe(images!.onlyPages)
      await backup.close()
    },
  }
}

export async function expectContent(buffer: PagedBuffer, expected: Uint8Array): Promise<void> {
  const found = new Uint8Array(buffer.sizeBytes)
  await buffer.read(0, found)
  expect(firstDifference(found, expected)).toBe(-1)
}
