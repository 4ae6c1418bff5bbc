import { describe, it } from 'vitest'
import { backupSuite } from '../src/conformance/index.ts'
import { memoryBackup, nullBackup } from '../src/index.ts'

for (const pageSizeBytes of [4096, 16_384]) {
  backupSuite({
    describe,
    it,
    name: `memoryBackup with pages of ${pageSizeBytes}`,
    open: async ({ capacityPages }) =>
      memoryBackup({ pageSizeBytes, capacityBytes: capacityPages * pageSizeBytes }),
  })
}

backupSuite({
  describe,
  it,
  name: 'nullBackup',
  open: async ({ capacityPages }) => nullBackup({ capacityBytes: capacityPages * 4096 }),
})
