import { describe, it } from 'vitest'
import { backupSuite, backupSuites } from '../src/conformance/index.ts'
import { memoryBackup, nullBackup } from '../src/index.ts'

backupSuites({
  describe,
  it,
  startsCopies: true,
  name: 'memoryBackup',
  open: async ({ capacityPages }) => memoryBackup({ capacityBytes: capacityPages * 4096 }),
})

backupSuite({
  describe,
  it,
  startsCopies: true,
  name: 'memoryBackup with pages of 8 KiB',
  open: async ({ capacityPages }) =>
    memoryBackup({ pageSizeBytes: 8192, capacityBytes: capacityPages * 8192 }),
})

backupSuites({
  describe,
  it,
  startsCopies: true,
  name: 'nullBackup',
  open: async ({ capacityPages }) => nullBackup({ capacityBytes: capacityPages * 4096 }),
})
