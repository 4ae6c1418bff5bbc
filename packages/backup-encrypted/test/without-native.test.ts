import { memoryBackup } from '@spillway/core'
import { backupSuite } from '@spillway/core/conformance'
import { describe, expect, it } from 'vitest'

// Before anything asks for native code: this file has a process of its own.
process.env['SPILLWAY_DISABLE_NATIVE'] = '1'
const { encryptedBackup } = await import('../src/index.ts')

backupSuite({
  describe,
  it,
  name: 'encrypted memory, by node:crypto',
  open: async ({ capacityPages }) => encryptedBackup(memoryBackup({ capacityBytes: capacityPages * 4096 })),
})

it('says that node:crypto does the work where native code is switched off', async () => {
  await using backup = encryptedBackup(memoryBackup())
  expect(backup.stats().cipher).toBeUndefined()
  await backup.backupPages([new Uint8Array(4096)])
  expect(backup.stats().cipher).toBe('node:crypto')
})
