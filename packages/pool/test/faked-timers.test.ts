import { faultyBackup, memoryBackup } from '@spillway/core'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { Pool } from '../src/index.ts'
import { page, pattern } from './support/bytes.ts'

/** Tests of applications replace the timers of the process by some that stand still, after all packages were imported. */
describe('a pool beside timers that are faked', () => {
  afterEach(() => {
    vi.useRealTimers()
  })

  it('makes room, waits for a backup that fails for a while, copies and closes', async () => {
    vi.useFakeTimers({
      toFake: [
        'setTimeout',
        'clearTimeout',
        'setInterval',
        'setImmediate',
        'performance',
        'Date',
        'queueMicrotask',
      ],
    })
    const backup = faultyBackup(memoryBackup(), { seed: 1 })
    backup.inject({ method: 'backupPages', code: 'EAGAIN', stop: 0, times: 2 })
    const pool = new Pool({ limitBytes: 64 * page, maxOrder: 2, backup, provider: 'resizable' })
    const buffer = await pool.allocate(1024 * page)
    const bytes = pattern(1024 * page)
    await buffer.write(0, bytes)
    const found = new Uint8Array(bytes.byteLength)
    await buffer.read(0, found)
    expect(Buffer.compare(found, bytes)).toBe(0)
    await buffer.purge()
    await pool.close()
    await backup.close()
  })
})
