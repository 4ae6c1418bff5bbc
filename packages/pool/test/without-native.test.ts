import { tmpdir } from 'node:os'
import type { Backup } from '@spillway/core'
import { expect, it } from 'vitest'
import { firstDifference, page, pattern } from './support/bytes.ts'

// Before anything asks for native code: this file has a process of its own.
process.env['SPILLWAY_DISABLE_NATIVE'] = '1'
const { openFileBackup } = await import('@spillway/backup-file')
const { openShmemBackup } = await import('@spillway/backup-shmem')
const { Pool } = await import('../src/index.ts')

const backups: Record<string, () => Promise<Backup>> = {
  file: async () => {
    const backup = await openFileBackup({ directory: tmpdir(), keepFreeBytes: 0 })
    expect(backup.stats().io).toMatchObject({
      engine: 'threads',
      reason: expect.stringContaining('SPILLWAY_DISABLE_NATIVE'),
    })
    return backup
  },
  shmem: async () => {
    const backup = await openShmemBackup({ capacityBytes: 2 ** 22 })
    expect(backup.stats()).toMatchObject({ mediumReason: expect.stringContaining('SPILLWAY_DISABLE_NATIVE') })
    return backup
  },
}

for (const [name, open] of Object.entries(backups)) {
  it(`a pool over ${name} does without native code where it is switched off, and loses no byte`, async () => {
    await using backup = await open()
    await using pool = new Pool({ limitBytes: 64 * page, maxOrder: 3, backup })
    const buffer = await pool.allocate(256 * page)
    const bytes = pattern(256 * page, 7)
    await buffer.write(0, bytes)
    expect(pool.dump().provider).toBe('resizable')
    const found = new Uint8Array(256 * page)
    await buffer.read(0, found)
    expect(firstDifference(found, bytes)).toBe(-1)
  })
}
