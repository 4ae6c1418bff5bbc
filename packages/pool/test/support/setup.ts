import { type Fault, type FaultyBackup, faultyBackup, memoryBackup } from '@spillway/core'
import { expect } from 'vitest'
import { type PagedBuffer, Pool, type PoolOptions } from '../../src/index.ts'
import { firstDifference, page, pattern } from './bytes.ts'

/** A pool of small chunks over a backup that fails as it is told, and a buffer full of known bytes. */
export interface Setup extends AsyncDisposable {
  readonly pool: Pool
  readonly backup: FaultyBackup
  readonly buffer: PagedBuffer
  readonly bytes: Uint8Array
  /** Reads everything and compares; checks every gauge. */
  check(): Promise<void>
}

export interface SetupOptions extends Partial<PoolOptions> {
  /** Pages of the buffer. Default 21: chunks of 8, 8, 4 and 1. */
  readonly pages?: number
  readonly capacityPages?: number
  readonly faults?: readonly Fault[]
}

export async function setup(options: SetupOptions = {}): Promise<Setup> {
  const { pages = 21, capacityPages = 1000, faults = [], ...poolOptions } = options
  const backup = faultyBackup(memoryBackup({ capacityBytes: capacityPages * page }), { faults: [...faults] })
  const pool = new Pool({
    limitBytes: 64 * page,
    maxOrder: 3,
    provider: 'resizable',
    backup,
    ...poolOptions,
  })
  const buffer = await pool.allocate(pages * page, { label: 'subject' })
  const bytes = pattern(pages * page)
  await buffer.write(0, bytes)
  return {
    pool,
    backup,
    buffer,
    bytes,
    async check() {
      const found = new Uint8Array(bytes.byteLength)
      await buffer.read(0, found)
      expect(firstDifference(found, bytes)).toBe(-1)
      expect(pool.verify()).toEqual([])
    },
    async [Symbol.asyncDispose]() {
      backup.heal()
      await buffer[Symbol.asyncDispose]()
      expect(pool.verify()).toEqual([])
      expect(backup.stats().livePages).toBe(0)
      await pool.close()
      expect(pool.stats().residentBytes).toBe(0)
      await backup.close()
    },
  }
}

/** A signal that is aborted already, or will be when `abort` is called. */
export function aborted(reason: unknown = new Error('no longer needed')): AbortSignal {
  return AbortSignal.abort(reason)
}

/** Resolves when what backups freed has gone to the system, as it does within a moment when nobody takes it. */
export async function returned(pool: Pool): Promise<void> {
  while (pool.stats().retainedBytes > 0) await new Promise((resolve) => setTimeout(resolve, 5))
}
